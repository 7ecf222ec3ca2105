// The state fusion's gradient: its own native op, called with the inputs only.
#include <torch/library.h>

#include "derivatives.h"

namespace mmssm {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

class StateFusionFunction
    : public torch::autograd::Function<StateFusionFunction> {
 public:
  static Variable forward(AutogradContext* ctx, const Variable& x,
                          const Variable& taps, const OptionalTensor& C,
                          const OptionalTensor& D, const OptionalTensor& u) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, taps, C.value_or(Tensor()), D.value_or(Tensor()),
                            u.value_or(Tensor())});
    return state_fusion_op().call(x, taps, C, D, u);
  }

  static variable_list backward(AutogradContext* ctx,
                                const variable_list& grad_outputs) {
    const auto saved = ctx->get_saved_variables();
    const auto given = [&](int i) -> OptionalTensor {
      return saved[i].defined() ? OptionalTensor(saved[i]) : std::nullopt;
    };
    const auto g = state_fusion_backward_op().call(
        grad_outputs[0], saved[0], saved[1], given(2), given(3), given(4));
    const auto where_given = [&](int i, const Tensor& grad) {
      return saved[i].defined() ? grad : Tensor();
    };
    return {std::get<0>(g), std::get<1>(g), where_given(2, std::get<2>(g)),
            where_given(3, std::get<3>(g)), where_given(4, std::get<4>(g))};
  }
};

Tensor state_fusion(const Tensor& x, const Tensor& taps,
                    const OptionalTensor& C, const OptionalTensor& D,
                    const OptionalTensor& u) {
  refuse_tangents("state_fusion", x, taps, C, D, u);
  if (!needs_gradient(x, taps, C, D, u)) {
    at::AutoDispatchBelowADInplaceOrView below;
    return state_fusion_op().call(x, taps, C, D, u);
  }
  return StateFusionFunction::apply(x, taps, C, D, u);
}

class NoSecondGradient : public torch::autograd::Function<NoSecondGradient> {
 public:
  static variable_list forward(AutogradContext* ctx, const Variable& grad,
                               const Variable& x, const Variable& taps,
                               const OptionalTensor& C, const OptionalTensor& D,
                               const OptionalTensor& u) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto g = state_fusion_backward_op().call(grad, x, taps, C, D, u);
    return std::apply([](const auto&... t) { return variable_list{t...}; }, g);
  }

  static variable_list backward(AutogradContext*, const variable_list&) {
    refuse_second_derivative("state_fusion");
    return {};
  }
};

FiveTensors state_fusion_backward(const Tensor& grad, const Tensor& x,
                                  const Tensor& taps, const OptionalTensor& C,
                                  const OptionalTensor& D,
                                  const OptionalTensor& u) {
  const auto g = NoSecondGradient::apply(grad, x, taps, C, D, u);
  return {g[0], g[1], g[2], g[3], g[4]};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, Autograd, m) {
  m.impl("state_fusion", &state_fusion);
  m.impl("_state_fusion_backward", &state_fusion_backward);
}

}  // namespace mmssm
