// Memory for the routed scan's gradients, on any device.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "inputs.h"

namespace mmssm {

// How many partial sums each kind of gradient has.
struct GradParts {
  int64_t x;       // of the routes
  int64_t shared;  // of the channels, for what they share: dt, B and C
  int64_t parameters;
};

// Gradients with an axis of partial sums before all others. Those of tokens
// are zeroed, those of parameters are not.
struct GradTensors {
  at::Tensor x, dt, a, b, c, d, dt_weight, dt_bias;

  GradTensors(const ScanInputs& in, const GradParts& parts);

  template <typename T>
  ScanGrads<T> pointers(const at::Tensor& out) const {
    const auto data = [](const at::Tensor& t) -> T* {
      return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
    };
    return {out.const_data_ptr<T>(),
            data(x),
            data(dt),
            data(b),
            data(c),
            data(a),
            data(d),
            data(dt_weight),
            data(dt_bias)};
  }
};

// What the backward op returns: the sums of the parts, each like its input;
// empty for one that was not given, zero where there was nothing to run.
ScanGradients add_up(const std::optional<GradTensors>& g, const ScanCall& call);

// The sum over the first axis.
at::Tensor sum_of_parts(const at::Tensor& parts);

}  // namespace mmssm
