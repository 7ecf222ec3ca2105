// The tree scan's gradient: its own native op, called with the inputs only.
#include <torch/library.h>

#include "derivatives.h"

namespace mmssm {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

class TreeScanFunction : public torch::autograd::Function<TreeScanFunction> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x,
                          const Variable& dt, const Variable& A,
                          const Variable& B, const OptionalTensor& dt_weight,
                          const OptionalTensor& dt_bias, const Tensor& order,
                          bool delta_softplus,
                          std::optional<at::ScalarType> out_dtype) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, dt, A, B, dt_weight.value_or(Tensor()),
                            dt_bias.value_or(Tensor()), order});
    ctx->saved_data["delta_softplus"] = delta_softplus;
    return tree_scan_op().call(x, dt, A, B, dt_weight, dt_bias, order,
                               delta_softplus, out_dtype);
  }

  static variable_list backward(AutogradContext* ctx,
                                const variable_list& grad_outputs) {
    const auto saved = ctx->get_saved_variables();
    const auto given = [&](int i) -> OptionalTensor {
      return saved[i].defined() ? OptionalTensor(saved[i]) : std::nullopt;
    };
    const auto g = tree_scan_backward_op().call(
        grad_outputs[0], saved[0], saved[1], saved[2], saved[3], given(4),
        given(5), saved[6], ctx->saved_data["delta_softplus"].toBool());
    const auto where_given = [&](int i, const Tensor& grad) {
      return saved[i].defined() ? grad : Tensor();
    };
    return {std::get<0>(g),
            std::get<1>(g),
            std::get<2>(g),
            std::get<3>(g),
            where_given(4, std::get<4>(g)),
            where_given(5, std::get<5>(g)),
            Variable(),
            Variable(),
            Variable()};
  }
};

Tensor tree_scan(const Tensor& x, const Tensor& dt, const Tensor& A,
                 const Tensor& B, const OptionalTensor& dt_weight,
                 const OptionalTensor& dt_bias, const Tensor& order,
                 bool delta_softplus, std::optional<at::ScalarType> out_dtype) {
  refuse_tangents("tree_scan", x, dt, A, B, dt_weight, dt_bias);
  if (!needs_gradient(x, dt, A, B, dt_weight, dt_bias)) {
    at::AutoDispatchBelowADInplaceOrView below;
    return tree_scan_op().call(x, dt, A, B, dt_weight, dt_bias, order,
                               delta_softplus, out_dtype);
  }
  return TreeScanFunction::apply(x, dt, A, B, dt_weight, dt_bias, order,
                                 delta_softplus, out_dtype);
}

class NoSecondGradient : public torch::autograd::Function<NoSecondGradient> {
 public:
  static variable_list forward(AutogradContext* ctx, const Variable& grad,
                               const Variable& x, const Variable& dt,
                               const Variable& A, const Variable& B,
                               const OptionalTensor& dt_weight,
                               const OptionalTensor& dt_bias,
                               const Tensor& order, bool delta_softplus) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto g = tree_scan_backward_op().call(grad, x, dt, A, B, dt_weight,
                                                dt_bias, order, delta_softplus);
    return std::apply([](const auto&... t) { return variable_list{t...}; }, g);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    refuse_second_derivative("tree_scan");
    return {};
  }
};

SixTensors tree_scan_backward(const Tensor& grad, const Tensor& x,
                              const Tensor& dt, const Tensor& A,
                              const Tensor& B, const OptionalTensor& dt_weight,
                              const OptionalTensor& dt_bias,
                              const Tensor& order, bool delta_softplus) {
  const auto g = NoSecondGradient::apply(grad, x, dt, A, B, dt_weight, dt_bias,
                                         order, delta_softplus);
  return {g[0], g[1], g[2], g[3], g[4], g[5]};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, Autograd, m) {
  m.impl("tree_scan", &tree_scan);
  m.impl("_tree_scan_backward", &tree_scan_backward);
}

}  // namespace mmssm
