// Sums over the lanes of a warp, in a fixed order.
#pragma once

#include "cuda_launch.h"

namespace mmssm {
namespace cuda {

// Adds 2 kHalf values over as many neighboring lanes. Lane i of these is left
// with the sum of values[i]: each exchange halves what a lane still holds, so
// that 31 shuffles do for 32 values what 160 would, one value at a time. A
// recursion, not a loop, to index the registers by constants.
template <typename T, int kHalf = kWarp / 2>
__device__ T sum_over_warp(T* values) {
  const bool upper = threadIdx.x & kHalf;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const T keep = upper ? values[i + kHalf] : values[i];
    const T send = upper ? values[i] : values[i + kHalf];
    values[i] = keep + __shfl_xor_sync(0xffffffffu, send, kHalf);
  }
  if constexpr (kHalf > 1) sum_over_warp<T, kHalf / 2>(values);
  return values[0];
}

}  // namespace cuda
}  // namespace mmssm
