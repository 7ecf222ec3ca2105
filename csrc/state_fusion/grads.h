// Memory for the state fusion's gradients, on any device.
#pragma once

#include "inputs.h"

namespace mmssm {

// Gradients of maps are not zeroed, those of parameters and of c are, and have
// an axis of partial sums before all others.
struct FusionGradTensors {
  at::Tensor x, taps, c, d, u;

  FusionGradTensors(const FusionInputs& in, int64_t parts,
                    int64_t channel_blocks) {
    const auto options = in.taps.options();
    const FusionSizes& s = in.size;
    x = at::empty(in.x.sizes(), in.x.options());
    taps = at::zeros({parts, kTaps, s.channels}, options);
    if (!in.u.defined()) return;
    c = at::zeros({channel_blocks, s.batch, s.height, s.width}, options);
    d = at::zeros({parts, s.channels}, options);
    u = at::empty(in.u.sizes(), in.u.options());
  }

  template <typename T, typename Token = T>
  FusionGrads<T, Token> pointers(const at::Tensor& out) const {
    const auto map = [](const at::Tensor& t) -> Token* {
      return t.defined() ? t.mutable_data_ptr<Token>() : nullptr;
    };
    const auto sums = [](const at::Tensor& t) -> T* {
      return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
    };
    return {out.const_data_ptr<Token>(),
            map(x),
            sums(taps),
            sums(c),
            sums(d),
            map(u)};
  }

  // What the backward op returns: the sums of the parts, each like its input;
  // empty for one that was not given.
  FusionGradients add_up(const FusionCall& call) const {
    const auto like = [&](const at::Tensor& grad, const OptionalTensor& of) {
      return given(of) ? grad.to(of->scalar_type())
                       : at::empty({0}, call.x.options());
    };
    const auto sum = [](const at::Tensor& parts) {
      return parts.defined() ? parts.sum(0) : parts;
    };
    return {like(x, call.x), like(sum(taps), call.taps), like(sum(c), call.C),
            like(sum(d), call.D), like(u, call.u)};
  }
};

}  // namespace mmssm
