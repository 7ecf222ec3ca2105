#include "scan_grads.h"

namespace mmssm {

using at::Tensor;

GradTensors::GradTensors(const ScanInputs& in, const GradParts& parts) {
  const ScanSizes& s = in.size;
  const auto options = in.a.options();
  const auto tokens = [&](int64_t count, int64_t last) {
    return at::zeros({count, s.batch, s.tokens, s.routes, last}, options);
  };
  const auto parameter = [&](int64_t last) {
    return at::empty({parts.parameters, s.routes, s.channels, last}, options);
  };
  x = at::zeros({parts.x, s.batch, s.tokens, s.channels}, options);
  dt = in.dt_weight.defined() ? tokens(parts.shared, s.rank)
                              : tokens(1, s.channels);
  b = tokens(parts.shared, s.groups * s.states);
  if (in.c.defined()) c = tokens(parts.shared, s.groups * s.states);
  a = parameter(s.states);
  if (in.d.defined()) d = parameter(1);
  if (in.dt_weight.defined()) dt_weight = parameter(s.rank);
  if (in.dt_bias.defined()) dt_bias = parameter(1);
}

Tensor sum_of_parts(const Tensor& parts) {
  return parts.size(0) == 1 ? parts.squeeze(0) : parts.sum(0);
}

EightTensors add_up(const std::optional<GradTensors>& g, const Tensor& x,
                    const Tensor& dt, const Tensor& A, const Tensor& B,
                    const OptionalTensor& C, const OptionalTensor& D,
                    const OptionalTensor& dt_weight,
                    const OptionalTensor& dt_bias) {
  const auto give_back = [&](Tensor GradTensors::* of,
                             const OptionalTensor& like) {
    if (!like.has_value() || !like->defined())
      return at::empty({0}, x.options());
    if (!g.has_value()) return at::zeros(like->sizes(), like->options());
    const Tensor sum = sum_of_parts((*g).*of);
    return sum.reshape(like->sizes()).to(like->scalar_type());
  };
  return {give_back(&GradTensors::x, x),
          give_back(&GradTensors::dt, dt),
          give_back(&GradTensors::a, A),
          give_back(&GradTensors::b, B),
          give_back(&GradTensors::c, C),
          give_back(&GradTensors::d, D),
          give_back(&GradTensors::dt_weight, dt_weight),
          give_back(&GradTensors::dt_bias, dt_bias)};
}

}  // namespace mmssm
