// What the routed scan is called with, checked and in normal form, for every
// device; and how a device registers its kernels.
#pragma once

#include <torch/library.h>

#include <string_view>
#include <tuple>

#include "../common/checks.h"
#include "../common/library.h"
#include "args.h"

namespace mmssm {

// The arguments that both of the op's schemas have, see ops.cpp.
struct ScanCall {
  at::Tensor x, dt, A, B;
  OptionalTensor C, D, dt_weight, dt_bias;
  at::Tensor routes;
  bool delta_softplus;
  std::string_view output;
  const char* op = "routed_selective_scan";  // for messages
};
using ScanCallTypes =
    Types<const at::Tensor&, const at::Tensor&, const at::Tensor&,
          const at::Tensor&, const OptionalTensor&, const OptionalTensor&,
          const OptionalTensor&, const OptionalTensor&, const at::Tensor&, bool,
          std::string_view>;

// The tensors as a kernel reads them: one dtype (float32, or float64 for
// float64 tokens), parameters contiguous, B and C with a group axis. Tokens
// that are all of one 16-bit dtype stay so if `keep_half` asks for it; `a` has
// the dtype of the math.
struct ScanInputs {
  ScanSizes size;
  ScanOutput output;
  bool delta_softplus;
  at::Tensor x, dt, a, b, c, d, dt_weight, dt_bias, routes;
};

ScanInputs prepare(const ScanCall& call, bool keep_half = false);

void check_backward(const ScanCall& call, const ScanInputs& in,
                    const at::Tensor& grad, const at::Tensor& checkpoints);

// Empty if they are not to be kept.
at::Tensor new_checkpoints(const ScanInputs& in, bool keep);

// Shape of the result: (B, L, C), (B, K, L, C) or (B, K, L, C, N).
std::vector<int64_t> output_shape(const ScanInputs& in);

template <typename T, typename Token = T>
ScanArgs<T, Token> make_args(const ScanInputs& in,
                             const at::Tensor& checkpoints) {
  ScanArgs<T, Token> p;
  p.size = in.size;
  p.output = in.output;
  p.softplus = in.delta_softplus;
  const auto data = [](const at::Tensor& t) -> const T* {
    return t.defined() ? t.const_data_ptr<T>() : nullptr;
  };
  const auto view = [&](const at::Tensor& t) {
    TokenView<Token> v;
    if (!t.defined()) return v;
    v.data = t.const_data_ptr<Token>();
    v.batch = t.stride(0);
    v.token = t.stride(1);
    v.route = t.stride(2);
    v.group = t.dim() == 5 ? t.stride(3) : 0;
    return v;
  };
  p.x = in.x.const_data_ptr<Token>();
  p.dt = view(in.dt);
  p.b = view(in.b);
  p.c = view(in.c);
  p.a = data(in.a);
  p.d = data(in.d);
  p.dt_weight = data(in.dt_weight);
  p.dt_bias = data(in.dt_bias);
  p.route = in.routes.const_data_ptr<int32_t>();
  p.checkpoints = checkpoints.numel() ? checkpoints.data_ptr<T>() : nullptr;
  return p;
}

// The gradients of x, dt, A, B, C, D, dt_weight and dt_bias.
using ScanGradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
               at::Tensor, at::Tensor, at::Tensor>;

// What a device has: the result with the state checkpoints, and the gradients.
using ScanFwd = std::tuple<at::Tensor, at::Tensor>(
    const ScanCall& call, std::optional<at::ScalarType> out_dtype,
    bool keep_checkpoints);
using ScanBwd = ScanGradients(const at::Tensor& grad,
                              const at::Tensor& checkpoints,
                              const ScanCall& call);

template <ScanFwd* fwd, ScanBwd* bwd, typename... T>
void register_scan(torch::Library& m, Types<T...>) {
  m.impl("routed_selective_scan",
         [](T... call, std::optional<at::ScalarType> out_dtype,
            bool keep_checkpoints) {
           return fwd({call...}, out_dtype, keep_checkpoints);
         });
  m.impl("_routed_selective_scan_backward",
         [](const at::Tensor& grad, const at::Tensor& checkpoints, T... call) {
           return bwd(grad, checkpoints, {call...});
         });
}

}  // namespace mmssm
