// What the ops' host code asks of a CUDA device, and does on it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "library.h"

namespace mmssm {
namespace cuda {

struct Device {
  int multiprocessors, shared_bytes;  // shared_bytes: the most a block can have
};

Device current_device();

inline void check(int error) {
  if (error == cudaErrorNoKernelImageForDevice) {
    cudaGetLastError();  // or the next call would report it again
    TORCH_CHECK(false,
                "mmssm: the extension holds no kernels for this GPU's compute "
                "capability; `python -m mmssm.check` says which it holds, and "
                "how to build it for this GPU");
  }
  C10_CUDA_CHECK(static_cast<cudaError_t>(error));
}

inline void* current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

// Calls `run(T(), Token())` for the dtypes of the math and of tokens.
template <typename Run>
void dispatch(at::ScalarType token, const Run& run) {
  if (token == at::kDouble)
    run(double(), double());
  else if (token == at::kHalf)
    run(float(), at::Half());
  else if (token == at::kBFloat16)
    run(float(), at::BFloat16());
  else
    run(float(), float());
}

}  // namespace cuda
}  // namespace mmssm
