// Checks and normal forms of the state fusion's inputs, for every device.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "fusion_args.h"

namespace mmssm {

// The tensors as a kernel reads them, contiguous: maps of one dtype (float32,
// float64 for a float64 map; 16 bits if all are and `keep_half` asks for it),
// parameters of the dtype of the maths. c, d and u are undefined without a
// read-out.
struct FusionInputs {
  FusionSizes size;
  at::Tensor x, taps, c, d, u;
};

FusionInputs prepare_fusion(const at::Tensor& x, const at::Tensor& taps,
                            const std::optional<at::Tensor>& C,
                            const std::optional<at::Tensor>& D,
                            const std::optional<at::Tensor>& u,
                            bool keep_half = false);

void check_fusion_grad(const at::Tensor& grad, const at::Tensor& x);

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

}  // namespace mmssm
