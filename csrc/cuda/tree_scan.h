// The tree scan's ops on a CUDA device; schemas in ops.cpp.
#pragma once

#include "../common/op_handles.h"

namespace mmssm {
namespace cuda {

at::Tensor scan_tree(const at::Tensor& x, const at::Tensor& dt,
                     const at::Tensor& A, const at::Tensor& B,
                     const OptionalTensor& dt_weight,
                     const OptionalTensor& dt_bias, const at::Tensor& order,
                     bool delta_softplus,
                     std::optional<at::ScalarType> out_dtype);

SixTensors scan_tree_backward(const at::Tensor& grad, const at::Tensor& x,
                              const at::Tensor& dt, const at::Tensor& A,
                              const at::Tensor& B,
                              const OptionalTensor& dt_weight,
                              const OptionalTensor& dt_bias,
                              const at::Tensor& order, bool delta_softplus);

}  // namespace cuda
}  // namespace mmssm
