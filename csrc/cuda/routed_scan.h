// The routed scan's ops on a CUDA device; schemas in ops.cpp.
#pragma once

#include "../common/op_handles.h"
#include "../common/scan_inputs.h"

namespace mmssm {
namespace cuda {

at::Tensor forward(const at::Tensor& x, const at::Tensor& dt,
                   const at::Tensor& A, const at::Tensor& B,
                   const OptionalTensor& C, const OptionalTensor& D,
                   const OptionalTensor& dt_weight,
                   const OptionalTensor& dt_bias, const at::Tensor& routes,
                   bool delta_softplus, std::string_view output,
                   std::optional<at::ScalarType> out_dtype);

std::tuple<at::Tensor, at::Tensor> forward_with_checkpoints(
    const at::Tensor& x, const at::Tensor& dt, const at::Tensor& A,
    const at::Tensor& B, const OptionalTensor& C, const OptionalTensor& D,
    const OptionalTensor& dt_weight, const OptionalTensor& dt_bias,
    const at::Tensor& routes, bool delta_softplus, std::string_view output,
    std::optional<at::ScalarType> out_dtype);

EightTensors backward(const at::Tensor& grad, const at::Tensor& checkpoints,
                      const at::Tensor& x, const at::Tensor& dt,
                      const at::Tensor& A, const at::Tensor& B,
                      const OptionalTensor& C, const OptionalTensor& D,
                      const OptionalTensor& dt_weight,
                      const OptionalTensor& dt_bias, const at::Tensor& routes,
                      bool delta_softplus, std::string_view output);

}  // namespace cuda
}  // namespace mmssm
