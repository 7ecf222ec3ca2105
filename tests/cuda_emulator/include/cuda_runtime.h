// In place of CUDA's own header: kernels compiled as plain C++ run on the
// emulator.
#pragma once

#include <c10/macros/Macros.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <utility>

#include "../emulator.h"

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __syncthreads() emulator::Block::wait_for_block(__LINE__)
#define __syncwarp() emulator::Block::wait_for_warp(__LINE__)
#undef CUDA_KERNEL_ASSERT
#define CUDA_KERNEL_ASSERT(condition) \
  if (!(condition)) throw std::runtime_error(#condition)

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
using emulator::blockDim;
using emulator::blockIdx;
using emulator::dim3;
using emulator::threadIdx;

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  if (mask != 0xffffffffu) throw std::runtime_error("a shuffle of part of it");
  return emulator::Block::exchange(value, lane_mask);
}

// Threads take turns only at barriers.
template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}

typedef int cudaError_t;
typedef void* cudaStream_t;
constexpr cudaError_t cudaSuccess = 0;
constexpr cudaError_t cudaErrorInvalidConfiguration = 9;
constexpr cudaError_t cudaErrorNoKernelImageForDevice = 209;
enum {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };

// The error that the next call would report; asking for it clears it.
inline cudaError_t pending_error = cudaSuccess;
inline cudaError_t cudaGetLastError() {
  return std::exchange(pending_error, cudaSuccess);
}

inline cudaError_t cudaGetDevice(int* index) {
  *index = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? 2
               : int(emulator::kSharedBytes);
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, int, int bytes) {
  return size_t(bytes) <= emulator::kSharedBytes ? cudaSuccess : 1;
}

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid,
                             dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  std::tuple<Parameters*...> given;
  int i = 0;
  std::apply(
      [&](auto*&... pointer) {
        ((pointer =
              static_cast<std::decay_t<decltype(pointer)>>(arguments[i++])),
         ...);
      },
      given);
  emulator::launch(grid, block, shared_bytes, [&] {
    std::apply([&](auto*... pointer) { kernel(*pointer...); }, given);
  });
  return cudaSuccess;
}
