// The routed scan's gradient: its own native op, called with the inputs only.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

#include "derivatives.h"

namespace mmssm {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

class RoutedScanFunction
    : public torch::autograd::Function<RoutedScanFunction> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x,
                          const Variable& dt, const Variable& A,
                          const Variable& B, const OptionalTensor& C,
                          const OptionalTensor& D,
                          const OptionalTensor& dt_weight,
                          const OptionalTensor& dt_bias, const Tensor& routes,
                          bool delta_softplus, std::string_view output,
                          std::optional<at::ScalarType> out_dtype) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [y, checkpoints] = routed_scan_forward_op().call(
        x, dt, A, B, C, D, dt_weight, dt_bias, routes, delta_softplus, output,
        out_dtype);
    ctx->save_for_backward({x, dt, A, B, C.value_or(Tensor()),
                            D.value_or(Tensor()), dt_weight.value_or(Tensor()),
                            dt_bias.value_or(Tensor()), routes, checkpoints});
    ctx->saved_data["delta_softplus"] = delta_softplus;
    ctx->saved_data["output"] = std::string(output);
    return y;
  }

  static variable_list backward(AutogradContext* ctx,
                                const variable_list& grad_outputs) {
    const auto saved = ctx->get_saved_variables();
    const auto given = [&](int i) -> OptionalTensor {
      return saved[i].defined() ? OptionalTensor(saved[i]) : std::nullopt;
    };
    const std::string output = ctx->saved_data["output"].toStringRef();
    const auto g = routed_scan_backward_op().call(
        grad_outputs[0], saved[9], saved[0], saved[1], saved[2], saved[3],
        given(4), given(5), given(6), given(7), saved[8],
        ctx->saved_data["delta_softplus"].toBool(), output);
    const auto where_given = [&](int i, const Tensor& grad) {
      return saved[i].defined() ? grad : Tensor();
    };
    return {std::get<0>(g),
            std::get<1>(g),
            std::get<2>(g),
            std::get<3>(g),
            where_given(4, std::get<4>(g)),
            where_given(5, std::get<5>(g)),
            where_given(6, std::get<6>(g)),
            where_given(7, std::get<7>(g)),
            Variable(),
            Variable(),
            Variable(),
            Variable()};
  }
};

Tensor routed_selective_scan(const Tensor& x, const Tensor& dt, const Tensor& A,
                             const Tensor& B, const OptionalTensor& C,
                             const OptionalTensor& D,
                             const OptionalTensor& dt_weight,
                             const OptionalTensor& dt_bias,
                             const Tensor& routes, bool delta_softplus,
                             std::string_view output,
                             std::optional<at::ScalarType> out_dtype) {
  refuse_tangents("routed_selective_scan", x, dt, A, B, C, D, dt_weight,
                  dt_bias);
  // Without a gradient to come, no checkpoints are kept.
  if (!needs_gradient(x, dt, A, B, C, D, dt_weight, dt_bias)) {
    at::AutoDispatchBelowADInplaceOrView below;
    return routed_scan_op().call(x, dt, A, B, C, D, dt_weight, dt_bias, routes,
                                 delta_softplus, output, out_dtype);
  }
  return RoutedScanFunction::apply(x, dt, A, B, C, D, dt_weight, dt_bias,
                                   routes, delta_softplus, output, out_dtype);
}

// Without this the gradient of a gradient would silently be zero.
class NoSecondGradient : public torch::autograd::Function<NoSecondGradient> {
 public:
  static variable_list forward(
      AutogradContext* ctx, const Variable& grad, const Variable& checkpoints,
      const Variable& x, const Variable& dt, const Variable& A,
      const Variable& B, const OptionalTensor& C, const OptionalTensor& D,
      const OptionalTensor& dt_weight, const OptionalTensor& dt_bias,
      const Tensor& routes, bool delta_softplus, std::string_view output) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto g = routed_scan_backward_op().call(
        grad, checkpoints, x, dt, A, B, C, D, dt_weight, dt_bias, routes,
        delta_softplus, output);
    return std::apply([](const auto&... t) { return variable_list{t...}; }, g);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    refuse_second_derivative("routed_selective_scan");
  }
};

EightTensors routed_selective_scan_backward(
    const Tensor& grad, const Tensor& checkpoints, const Tensor& x,
    const Tensor& dt, const Tensor& A, const Tensor& B, const OptionalTensor& C,
    const OptionalTensor& D, const OptionalTensor& dt_weight,
    const OptionalTensor& dt_bias, const Tensor& routes, bool delta_softplus,
    std::string_view output) {
  const auto g =
      NoSecondGradient::apply(grad, checkpoints, x, dt, A, B, C, D, dt_weight,
                              dt_bias, routes, delta_softplus, output);
  return {g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7]};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, Autograd, m) {
  m.impl("routed_selective_scan", &routed_selective_scan);
  m.impl("_routed_selective_scan_backward", &routed_selective_scan_backward);
}

}  // namespace mmssm
