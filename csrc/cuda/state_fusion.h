// The state fusion's ops on a CUDA device; schemas in ops.cpp.
#pragma once

#include "../common/op_handles.h"

namespace mmssm {
namespace cuda {

at::Tensor fuse(const at::Tensor& x, const at::Tensor& taps,
                const OptionalTensor& C, const OptionalTensor& D,
                const OptionalTensor& u);

FiveTensors fuse_backward(const at::Tensor& grad, const at::Tensor& x,
                          const at::Tensor& taps, const OptionalTensor& C,
                          const OptionalTensor& D, const OptionalTensor& u);

}  // namespace cuda
}  // namespace mmssm
