#include "cuda_device.h"

#include <cuda_runtime.h>

#include <map>
#include <mutex>

namespace mmssm {
namespace cuda {

Device current_device() {
  static std::mutex mutex;
  static std::map<int, Device> known;
  const std::lock_guard<std::mutex> lock(mutex);
  int index = 0;
  C10_CUDA_CHECK(cudaGetDevice(&index));
  const auto found = known.find(index);
  if (found != known.end()) return found->second;
  Device device;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&device.multiprocessors,
                                        cudaDevAttrMultiProcessorCount, index));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(
      &device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  return known[index] = device;
}

}  // namespace cuda
}  // namespace mmssm
