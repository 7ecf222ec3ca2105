// What the state fusion is called with, checked and in normal form, for every
// device; and how a device registers its kernels.
#pragma once

#include <torch/library.h>

#include <tuple>

#include "../common/checks.h"
#include "../common/library.h"
#include "args.h"

namespace mmssm {

// The arguments that both of the op's schemas have, see ops.cpp.
struct FusionCall {
  at::Tensor x, taps;
  OptionalTensor C, D, u;
};
using FusionCallTypes =
    Types<const at::Tensor&, const at::Tensor&, const OptionalTensor&,
          const OptionalTensor&, const OptionalTensor&>;

// The tensors as a kernel reads them, contiguous: maps of one dtype (float32,
// float64 for a float64 map; 16 bits if all are and `keep_half` asks for it),
// parameters of the dtype of the math. c, d and u are undefined without a
// read-out.
struct FusionInputs {
  FusionSizes size;
  at::Tensor x, taps, c, d, u;
};

FusionInputs prepare(const FusionCall& call, bool keep_half = false);

void check_grad(const FusionCall& call, const at::Tensor& grad);

template <typename T, typename Token = T>
FusionArgs<T, Token> make_args(const FusionInputs& in) {
  const auto map = [](const at::Tensor& t) -> const Token* {
    return t.defined() ? t.const_data_ptr<Token>() : nullptr;
  };
  const auto parameter = [](const at::Tensor& t) -> const T* {
    return t.defined() ? t.const_data_ptr<T>() : nullptr;
  };
  return {in.size,   map(in.x),       parameter(in.taps),
          map(in.c), parameter(in.d), map(in.u)};
}

// The gradients of x, taps, C, D and u.
using FusionGradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// What a device has.
using FusionFwd = at::Tensor(const FusionCall& call);
using FusionBwd = FusionGradients(const at::Tensor& grad,
                                  const FusionCall& call);

template <FusionFwd* fwd, FusionBwd* bwd, typename... T>
void register_state_fusion(torch::Library& m, Types<T...>) {
  m.impl("state_fusion", [](T... call) { return fwd({call...}); });
  m.impl("_state_fusion_backward", [](const at::Tensor& grad, T... call) {
    return bwd(grad, {call...});
  });
}

}  // namespace mmssm
