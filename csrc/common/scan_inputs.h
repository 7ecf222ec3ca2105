// Checks and normal forms of the routed scan's inputs, for every device.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>

#include "scan_args.h"

namespace mmssm {

// The tensors as a kernel reads them: one dtype (float32, or float64 for
// float64 tokens), parameters contiguous, B and C with a group axis. Tokens
// that are all of one 16-bit dtype stay so if `keep_half` asks for it; `a` has
// the dtype of the maths.
struct ScanInputs {
  ScanSizes size;
  ScanOutput output;
  at::Tensor x, dt, a, b, c, d, dt_weight, dt_bias, routes;
};

ScanOutput parse_output(std::string_view name);

ScanInputs prepare_inputs(const at::Tensor& x, const at::Tensor& dt,
                          const at::Tensor& A, const at::Tensor& B,
                          const std::optional<at::Tensor>& C,
                          const std::optional<at::Tensor>& D,
                          const std::optional<at::Tensor>& dt_weight,
                          const std::optional<at::Tensor>& dt_bias,
                          const at::Tensor& routes, std::string_view output,
                          std::optional<at::ScalarType> out_dtype,
                          bool keep_half = false);

void check_backward_inputs(const ScanInputs& in, const at::Tensor& grad,
                           const at::Tensor& checkpoints);

// (B, K, checkpoints, N, C)
std::vector<int64_t> checkpoint_shape(const ScanSizes& size);

// Shape of the result: (B, L, C), (B, K, L, C) or (B, K, L, C, N).
std::vector<int64_t> output_shape(const ScanInputs& in);

template <typename T, typename Token = T>
ScanArgs<T, Token> make_args(const ScanInputs& in, bool delta_softplus,
                             const at::Tensor& checkpoints) {
  ScanArgs<T, Token> p;
  p.size = in.size;
  p.output = in.output;
  p.softplus = delta_softplus;
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
  p.checkpoints = checkpoints.defined() ? checkpoints.data_ptr<T>() : nullptr;
  return p;
}

}  // namespace mmssm
