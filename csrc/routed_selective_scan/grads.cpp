#include "grads.h"

namespace mmssm {

using at::Tensor;

GradTensors::GradTensors(const ScanInputs& in, const GradParts& parts) {
  const ScanSizes& s = in.size;
  const auto options = in.a.options();
  const auto tokens = [&](int64_t count, int64_t last) {
    return at::zeros({count, s.batch, s.length, s.routes, last}, options);
  };
  const auto parameter = [&](int64_t last) {
    return at::empty({parts.parameters, s.routes, s.channels, last}, options);
  };
  x = at::zeros({parts.x, s.batch, s.length, s.channels}, options);
  dt = in.dt_weight.defined() ? tokens(parts.shared, s.dt_rank)
                              : tokens(1, s.channels);
  b = tokens(parts.shared, s.groups * s.d_state);
  if (in.c.defined()) c = tokens(parts.shared, s.groups * s.d_state);
  a = parameter(s.d_state);
  if (in.d.defined()) d = parameter(1);
  if (in.dt_weight.defined()) dt_weight = parameter(s.dt_rank);
  if (in.dt_bias.defined()) dt_bias = parameter(1);
}

Tensor sum_of_parts(const Tensor& parts) {
  return parts.size(0) == 1 ? parts.squeeze(0) : parts.sum(0);
}

ScanGradients add_up(const std::optional<GradTensors>& g,
                     const ScanCall& call) {
  const Tensor& x = call.x;
  const auto give_back = [&](Tensor GradTensors::* of,
                             const OptionalTensor& like) {
    if (!given(like)) return at::empty({0}, x.options());
    if (!g.has_value()) return at::zeros(like->sizes(), like->options());
    const Tensor sum = sum_of_parts((*g).*of);
    return sum.reshape(like->sizes()).to(like->scalar_type());
  };
  return {give_back(&GradTensors::x, x),
          give_back(&GradTensors::dt, call.dt),
          give_back(&GradTensors::a, call.A),
          give_back(&GradTensors::b, call.B),
          give_back(&GradTensors::c, call.C),
          give_back(&GradTensors::d, call.D),
          give_back(&GradTensors::dt_weight, call.dt_weight),
          give_back(&GradTensors::dt_bias, call.dt_bias)};
}

}  // namespace mmssm
