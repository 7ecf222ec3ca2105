// Sums over a block's channels, in a fixed order: the gradients of what
// channels share.
#pragma once

#include "../common/cuda_warp_sum.cuh"
#include "cuda_tile.cuh"

namespace mmssm {
namespace cuda {

// Adds the warps' sums of each state, (N, warps, 2 kTile), dB before dC, and
// leaves them in the tile's rows of B and C.
template <typename T>
__device__ void sum_over_warps(const T* sums, int states, T* rows_b) {
  const int warps = blockDim.x / kWarp;
  for (int i = threadIdx.x; i < states * kWarp; i += blockDim.x) {
    const int n = i / kWarp, value = i % kWarp;
    T total(0);
    for (int w = 0; w < warps; ++w)
      total = total + sums[(n * warps + w) * kWarp + value];
    const int row = value < kTile ? n : states + n;
    rows_b[row * kRow + value % kTile] = total;
  }
}

// d_dt = d_raw weight, summed over the block's channels, left in the tile's
// rows of dt. Warps share out the ranks, two at a time; lanes, the channels.
template <typename T>
__device__ void sum_rank_grads(const T* d_raw, const T* weight, int rank,
                               T* rows) {
  constexpr int kMost = kMaxThreads / kWarp;
  const int stride = column_stride(blockDim.x), warps = blockDim.x / kWarp;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (2 * warp >= rank) return;
  T own[kMost][kTile];
#pragma unroll
  for (int j = 0; j < kMost; ++j) {
#pragma unroll
    for (int i = 0; i < kTile; ++i)
      own[j][i] = j < warps ? d_raw[i * stride + j * kWarp + lane] : T(0);
  }
  for (int r = 2 * warp; r < rank; r += 2 * warps) {
    T values[kWarp];
#pragma unroll
    for (int i = 0; i < kWarp; ++i) values[i] = T(0);
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      if (j >= warps) break;
      const T* w = weight + r * stride + j * kWarp + lane;
      const T first = w[0], second = r + 1 < rank ? w[stride] : T(0);
#pragma unroll
      for (int i = 0; i < kTile; ++i) {
        values[i] = values[i] + first * own[j][i];
        values[i + kTile] = values[i + kTile] + second * own[j][i];
      }
    }
    const T total = sum_over_warp(values);
    if (r + lane / kTile < rank)
      rows[(r + lane / kTile) * kRow + lane % kTile] = total;
  }
}

// Adds a tile's rows to the gradients: load_tile the other way. Every block of
// a group's channels has a part of the sums; only segments may add to one
// place.
template <typename T>
__device__ void add_tile(const ScanSizes& s, const ScanGrads<T>& g,
                         const Place& at, const ScanPlan& plan, int64_t batch,
                         const int* token, const T* tile, bool with_c) {
  const int rank = int(s.dt_rank), states = int(s.d_state);
  const int rows = rank + states + (with_c ? states : 0);
  TileShare own = share_tile(rows);
  if (plan.ordered) {  // one warp, one step at a time
    if (threadIdx.x >= kWarp) return;
    own = {int(threadIdx.x), kWarp, 0, 1};
  }
  const int64_t part = at.block * s.batch + batch;
  const int64_t first = part * s.length * s.routes + at.route;
  const int64_t width = s.groups * s.d_state;
  for (int row = own.row; row < rows; row += own.rows_apart) {
    T* to = g.dt + first * s.dt_rank + row;
    int64_t stride = s.routes * s.dt_rank;
    if (row >= rank) {
      const bool is_c = row >= rank + states;
      to = (is_c ? g.c : g.b) + first * width + at.group * s.d_state +
           (row - rank - (is_c ? states : 0));
      stride = s.routes * width;
    }
    for (int i = own.step; i < kTile; i += own.steps_apart) {
      const int l = token[i];
      if (l >= 0) atomicAdd(to + token_offset(l, stride), tile[row * kRow + i]);
    }
  }
}

}  // namespace cuda
}  // namespace mmssm
