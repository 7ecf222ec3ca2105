// The tree scan's kernels in which every step is for itself: before its two
// passes, and after those of backward. They are the routed scan's tiles, of one
// route and one state.
#pragma once

#include "../routed_selective_scan/cuda_bwd.cuh"

namespace mmssm {
namespace cuda {

// Where a thread's channel begins in (B, L, C), L steps.
__device__ inline int64_t step_offset(const ScanSizes& s, const Place& at,
                                      int64_t batch, int64_t step) {
  return (batch * s.seq_len + step) * s.channels + at.channel();
}

template <typename T, typename Token>
__device__ void values_tile(const ScanArgs<T, Token>& p, const Place& at,
                            int64_t batch, ForwardMemory<T>& memory,
                            const Channel<T>& own, const int* token,
                            int64_t begin, T* w, T* values) {
  const ScanSizes& s = p.size;
  const int count = int(at.end - begin < kTile ? at.end - begin : kTile);
  T* tile = memory.tile.next_tile();
  T u[kTile], delta[kTile], b[kTile];
  gather(p.x + batch * s.length * s.channels + at.channel(), s.channels, token,
         at.active(), u);
  load_tile(p, at, batch, token, tile, false);
  __syncthreads();
  raw_steps(p, at, batch, memory.weight, own.bias, tile, token, delta);
  pass_softplus(p.softplus, at.active() ? count : 0, delta);
  read_row(tile + s.dt_rank * kRow, b);
  const T a = memory.a[threadIdx.x];
  const int64_t first = step_offset(s, at, batch, begin);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (i >= count || !at.active()) continue;
    w[first + i * s.channels] = decay(delta[i], a);
    values[first + i * s.channels] = tree_value(delta[i], b[i], u[i]);
  }
}

template <typename T, typename Token>
__global__ void __launch_bounds__(kMaxThreads)
    tree_values_kernel(const ScanArgs<T, Token> p, const ScanPlan plan, T* w,
                       T* values) {
  const Place at = find_place(p.size, plan);
  Memory shared(block_memory());
  ForwardMemory<T> memory(shared, p.size, blockDim.x);
  const Channel<T> own(p, at);
  load_parameters(p, at, memory.weight, memory.a);
  for (int64_t batch = at.share; batch < p.size.batch; batch += plan.shares)
    for (int64_t begin = at.begin; begin < at.end; begin += kCheckpointSteps) {
      int* token = memory.tile.next_chunk();
      load_tokens(p, at, begin, token);
      __syncthreads();
      for (int i = 0; i < kCheckpointSteps && begin + i < at.end; i += kTile)
        values_tile(p, at, batch, memory, own, token + i, begin + i, w, values);
    }
}

template <typename T, typename Token>
__device__ void grads_tile(const ScanArgs<T, Token>& p, const ScanGrads<T>& g,
                           const Place& at, const ScanPlan& plan, int64_t batch,
                           BackwardMemory<T>& memory, const Channel<T>& own,
                           const int* token, int64_t begin, const T* through,
                           const T* grads, ChannelSums<T>& sums) {
  const ScanSizes& s = p.size;
  const int count = int(at.end - begin < kTile ? at.end - begin : kTile);
  T* tile = memory.tile.next_tile();
  TileGrads<T> t;
  gather(p.x + batch * s.length * s.channels + at.channel(), s.channels, token,
         at.active(), t.u);
  load_tile(p, at, batch, token, tile, false);
  __syncthreads();
  raw_steps(p, at, batch, memory.weight, own.bias, tile, token, t.delta);
  open_tile(p, memory.d_raw, at.active() ? count : 0, t);
  T b[kTile], parts[kWarp];
  read_row(tile + s.dt_rank * kRow, b);
  const T a = memory.a[threadIdx.x];
  T d_a = memory.d_a[threadIdx.x];
  const int64_t first = step_offset(s, at, batch, begin);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    const bool given = i < count && at.active();
    const int64_t from = first + i * s.channels;
    t.d_u[i] = parts[i + kTile] = T(0);
    decay_bwd(given ? through[from] : T(0), t.delta[i], a, d_a, t.d_delta[i]);
    value_bwd(given ? grads[from] : T(0), t.delta[i], b[i], t.u[i], parts[i],
              t.d_u[i], t.d_delta[i]);
  }
  memory.d_a[threadIdx.x] = d_a;
  memory.sums[threadIdx.x] = sum_over_warp(parts);
  finish_tile(p, g, at, plan, batch, memory, tile, token, t, sums, false);
}

template <typename T, typename Token>
__global__ void __launch_bounds__(kMaxThreads)
    tree_grads_kernel(const ScanArgs<T, Token> p, const ScanPlan plan,
                      const ScanGrads<T> g, const T* through, const T* grads) {
  const Place at = find_place(p.size, plan);
  Memory shared(block_memory());
  BackwardMemory<T> memory(shared, p.size, blockDim.x);
  const Channel<T> own(p, at);
  load_parameters(p, at, memory.weight, memory.a);
  clear_sums(p.size, memory);
  ChannelSums<T> sums;
  for (int64_t batch = at.share; batch < p.size.batch; batch += plan.shares)
    for (int64_t begin = at.begin; begin < at.end; begin += kCheckpointSteps) {
      int* token = memory.tile.next_chunk();
      load_tokens(p, at, begin, token);
      __syncthreads();
      for (int i = 0; i < kCheckpointSteps && begin + i < at.end; i += kTile)
        grads_tile(p, g, at, plan, batch, memory, own, token + i, begin + i,
                   through, grads, sums);
    }
  store_sums(p.size, plan, g, at, memory, sums);
}

}  // namespace cuda
}  // namespace mmssm
