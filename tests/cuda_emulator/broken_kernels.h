// Kernels with one fault each, which the emulator must show.
#pragma once

#include <ATen/ATen.h>
#include <cuda_runtime.h>

#include "../../csrc/common/cuda_launch.h"

// Each thread gets its mirror image's number through shared memory.
inline __global__ void broken_kernel(float* out, int fault) {
  float* shared = reinterpret_cast<float*>(mmssm::cuda::shared_bytes);
  const int self = threadIdx.x, last = blockDim.x - 1;
  if (fault != 1 || self > 0) shared[self] = float(self);
  if (fault == 2 && self == last) shared[last + 1] = 0.f;
  if (fault == 3 && self == last) return;
  if (fault == 4 && self == last) {
    __syncthreads();
  } else if (fault != 5) {
    __syncthreads();
  }
  out[self] = shared[last - self];
}

inline at::Tensor run_broken_kernel(std::string_view fault) {
  const char* names[] = {"none",           "unwritten",       "overrun",
                         "early return",   "another barrier", "no barrier",
                         "too many blocks"};
  const auto found = std::find(std::begin(names), std::end(names), fault);
  TORCH_CHECK(found != std::end(names), "no such fault: ", fault);
  constexpr int kThreads = 64;
  const at::Tensor out = at::zeros({kThreads});
  // As 32 bits these would be one block.
  const int64_t blocks =
      fault == "too many blocks" ? (int64_t(1) << 32) + 1 : 1;
  const int error = mmssm::cuda::launch(
      &broken_kernel, blocks, kThreads, kThreads * sizeof(float), nullptr,
      out.mutable_data_ptr<float>(), int(found - names));
  TORCH_CHECK(error == cudaSuccess, "error ", error, " at the launch");
  return out;
}
