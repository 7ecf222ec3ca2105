// Starts kernels through the runtime's plain function, so that the kernels'
// files need no compiler's launch syntax.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

#include <type_traits>

namespace mmssm {
namespace cuda {

constexpr int kWarp = 32;

// As much as the device has, whatever this launch needs: threads that launch
// one kernel with different sizes must not take it from each other.
inline cudaError_t allow_all_shared_memory(const void* kernel) {
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess)
    error = cudaDeviceGetAttribute(
        &most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  return error;
}

// Returns the first error, of the call itself or of the kernel's setup.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads,
                   size_t shared_bytes, void* stream,
                   const Arguments&... arguments) {
  // A conversion would leave an address of a temporary.
  static_assert((std::is_same_v<Parameters, Arguments> && ...));
  constexpr int64_t kMostBlocks = 0x7fffffff;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shared_bytes > kWithoutAsking) {
    const cudaError_t error =
        allow_all_shared_memory(reinterpret_cast<const void*>(kernel));
    if (error != cudaSuccess) return error;
  }
  const void* list[] = {&arguments...};
  return cudaLaunchKernel(kernel, dim3(unsigned(blocks)),
                          dim3(unsigned(threads)), const_cast<void**>(list),
                          shared_bytes, static_cast<cudaStream_t>(stream));
}

}  // namespace cuda
}  // namespace mmssm
