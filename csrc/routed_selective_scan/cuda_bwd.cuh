// The routed scan's backward kernels.
//
// Chunks are taken from the last to the first. A chunk's states are computed
// again from its checkpoint: first those where its tiles start, then, tile by
// tile from the last, those in between, which stay in registers.
#pragma once

#include "cuda_carry.cuh"
#include "cuda_sums.cuh"
#include "cuda_tile.cuh"

namespace mmssm {
namespace cuda {

template <typename T>
struct BackwardMemory {
  TileMemory<T> tile;
  T *weight, *d_weight;  // (rank, column stride)
  T *a, *d_a, *grad;     // (N, column stride)
  T* starts;             // (kTilesPerChunk, N, column stride): each tile's
  T* d_raw;              // (kTile, column stride); the softplus' slope before
  T* sums;               // (N, warps, 2 kTile)

  MMSSM_MEMBER BackwardMemory(Memory& memory, const ScanSizes& s, int threads)
      : tile(memory, s) {
    const int64_t stride = column_stride(threads);
    weight = memory.take<T>(s.dt_rank * stride);
    d_weight = memory.take<T>(s.dt_rank * stride);
    a = memory.take<T>(s.d_state * stride);
    d_a = memory.take<T>(s.d_state * stride);
    grad = memory.take<T>(s.d_state * stride);
    starts = memory.take<T>(kTilesPerChunk * s.d_state * stride);
    d_raw = memory.take<T>(kTile * stride);
    sums = memory.take<T>(s.d_state * (threads / kWarp) * 2 * kTile);
  }
};

// What a thread keeps of its channel over all the steps.
template <typename T>
struct ChannelSums {
  T bias = T(0), skip = T(0);
};

template <typename T>
__device__ void clear_sums(const ScanSizes& s, BackwardMemory<T>& memory) {
  const int stride = column_stride(blockDim.x);
  for (int n = 0; n < int(s.d_state); ++n)
    memory.d_a[n * stride + threadIdx.x] = T(0);
  for (int r = 0; r < int(s.dt_rank); ++r)
    memory.d_weight[r * stride + threadIdx.x] = T(0);
}

// From the checkpoint to the states where the chunk's tiles start.
template <typename T, typename Token>
__device__ void replay(const ScanArgs<T, Token>& p, const Place& at,
                       int64_t batch, int64_t begin, int tiles,
                       BackwardMemory<T>& memory, const Channel<T>& own,
                       const int* token) {
  const ScanSizes& s = p.size;
  const int stride = column_stride(blockDim.x), states = int(s.d_state);
  for (int n = 0; n < states; ++n)
    memory.starts[n * stride + threadIdx.x] =
        at.active() ? p.checkpoints[checkpoint_offset(s, batch, at.route,
                                                      begin / kCheckpointSteps,
                                                      n, at.channel())]
                    : T(0);
  for (int j = 0; j + 1 < tiles; ++j, token += kTile) {
    T* tile = memory.tile.next_tile();
    T u[kTile], delta[kTile], h[kTile];
    gather(p.x + batch * s.length * s.channels + at.channel(), s.channels,
           token, at.active(), u);
    load_tile(p, at, batch, token, tile, false);
    __syncthreads();
    raw_steps(p, at, batch, memory.weight, own.bias, tile, token, delta);
    pass_softplus(p.softplus, at.active() ? kTile : 0, delta);
    const T* from = memory.starts + j * states * stride + threadIdx.x;
    T* to = memory.starts + (j + 1) * states * stride + threadIdx.x;
    for (int n = 0; n < states; ++n)
      to[n * stride] =
          run_state(from[n * stride], memory.a[n * stride + threadIdx.x],
                    tile + (s.dt_rank + n) * kRow, delta, u, h);
  }
}

// What one thread has of a tile in backward.
template <typename T>
struct TileGrads {
  T u[kTile], delta[kTile], grad_y[kTile], d_u[kTile], d_delta[kTile];
};

// One state of the tile, there and back. `row` is C's, or the gradients of the
// states themselves. A thread's parts of dB and dC are left in `parts`.
template <typename T, bool kToStates>
__device__ void rewind_state(TileGrads<T>& t, T start, T a, T& grad, T& d_a,
                             const T* row_b, const T (&row)[kTile],
                             T (&parts)[kWarp]) {
  T decays[kTile], before[kTile], b[kTile];
  read_row(row_b, b);
  T state = start;
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    decays[i] = decay(t.delta[i], a);
    before[i] = state;
    state = advance(decays[i], state, t.delta[i], b[i], t.u[i]);
  }
#pragma unroll
  for (int i = kTile - 1; i >= 0; --i) {
    grad = grad + (kToStates ? row[i] : row[i] * t.grad_y[i]);
    parts[i + kTile] = kToStates ? T(0) : t.grad_y[i] * state;
    state = before[i];
    step_bwd(grad, decays[i], before[i], t.delta[i], a, b[i], t.u[i], d_a,
             parts[i], t.d_u[i], t.d_delta[i]);
  }
}

// All states of the tile; their sums over the warp are left in memory.sums.
template <typename T, typename Token, bool kToStates>
__device__ void rewind_states(const ScanArgs<T, Token>& p, const Place& at,
                              int64_t batch, BackwardMemory<T>& memory,
                              const T* grad_out, const T* starts, const T* tile,
                              const int* token, TileGrads<T>& t) {
  const int stride = column_stride(blockDim.x), states = int(p.size.d_state);
  const int warps = blockDim.x / kWarp;
  const T* rows_b = tile + p.size.dt_rank * kRow;
  for (int n = 0; n < states; ++n) {
    const int own = n * stride + threadIdx.x;
    T parts[kWarp], row[kTile];
    if (kToStates)
      gather_grad(p, at, batch, grad_out, n, token, row);
    else
      read_row(rows_b + (states + n) * kRow, row);
    T grad = memory.grad[own], d_a = memory.d_a[own];
    rewind_state<T, kToStates>(t, starts[own], memory.a[own], grad, d_a,
                               rows_b + n * kRow, row, parts);
    memory.grad[own] = grad;
    memory.d_a[own] = d_a;
    memory.sums[n * warps * kWarp + threadIdx.x] = sum_over_warp(parts);
  }
}

// Step sizes, 0 beyond the end; their slopes are left in memory.d_raw. One test
// for the whole tile, as in pass_softplus.
template <typename T, typename Token>
__device__ void open_tile(const ScanArgs<T, Token>& p, T* slopes, int count,
                          TileGrads<T>& t) {
  const int stride = column_stride(blockDim.x);
  T slope[kTile];
#pragma unroll
  for (int i = 0; i < kTile; ++i) slope[i] = T(1);
  if (p.softplus) {
#pragma unroll
    for (int i = 0; i < kTile; ++i)
      t.delta[i] = softplus_and_slope(t.delta[i], slope[i]);
  }
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (i >= count) t.delta[i] = T(0);
    slopes[i * stride + threadIdx.x] = slope[i];
    t.d_delta[i] = T(0);
  }
}

// From d_delta to d_raw, and from there to the gradients of a channel's own.
template <typename T, typename Token>
__device__ void close_tile(const ScanArgs<T, Token>& p, const ScanGrads<T>& g,
                           const Place& at, int64_t batch,
                           BackwardMemory<T>& memory, const T* tile,
                           const int* token, TileGrads<T>& t,
                           ChannelSums<T>& sums) {
  const ScanSizes& s = p.size;
  const int stride = column_stride(blockDim.x);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    T& shared = memory.d_raw[i * stride + threadIdx.x];
    t.d_delta[i] = t.d_delta[i] * shared;
    shared = t.d_delta[i];
    sums.bias = sums.bias + t.d_delta[i];
  }
  scatter(g.x + batch * s.length * s.channels + at.channel(), s.channels, token,
          at.active(), t.d_u);
  if (!p.dt_weight)
    scatter(g.dt + (batch * s.length * s.routes + at.route) * s.channels +
                at.channel(),
            s.routes * s.channels, token, at.active(), t.d_delta);
  for (int r = 0; r < int(s.dt_rank); ++r) {
    T dt[kTile], sum = memory.d_weight[r * stride + threadIdx.x];
    read_row(tile + r * kRow, dt);
#pragma unroll
    for (int i = 0; i < kTile; ++i) sum = sum + dt[i] * t.d_delta[i];
    memory.d_weight[r * stride + threadIdx.x] = sum;
  }
}

// The rest of a tile, once its states' sums are in memory.sums.
template <typename T, typename Token>
__device__ void finish_tile(const ScanArgs<T, Token>& p, const ScanGrads<T>& g,
                            const Place& at, const ScanPlan& plan,
                            int64_t batch, BackwardMemory<T>& memory, T* tile,
                            const int* token, TileGrads<T>& t,
                            ChannelSums<T>& sums, bool with_c) {
  const ScanSizes& s = p.size;
  close_tile(p, g, at, batch, memory, tile, token, t, sums);
  // The tile's rows have been read; their gradients take their place.
  __syncthreads();
  sum_over_warps(memory.sums, int(s.d_state), tile + s.dt_rank * kRow);
  if (p.dt_weight)
    sum_rank_grads(memory.d_raw, memory.weight, int(s.dt_rank), tile);
  __syncthreads();
  add_tile(s, g, at, plan, batch, token, tile, with_c);
}

template <typename T, typename Token, bool kToStates>
__device__ void backward_tile(const ScanArgs<T, Token>& p,
                              const ScanGrads<T>& g, const Place& at,
                              const ScanPlan& plan, int64_t batch,
                              BackwardMemory<T>& memory, const Channel<T>& own,
                              const T* starts, const int* token, int count,
                              ChannelSums<T>& sums) {
  const ScanSizes& s = p.size;
  T* tile = memory.tile.next_tile();
  TileGrads<T> t;
  gather(p.x + batch * s.length * s.channels + at.channel(), s.channels, token,
         at.active(), t.u);
  if (!kToStates) gather_grad(p, at, batch, g.out, 0, token, t.grad_y);
  load_tile(p, at, batch, token, tile, !kToStates);
  __syncthreads();
  raw_steps(p, at, batch, memory.weight, own.bias, tile, token, t.delta);
  open_tile(p, memory.d_raw, at.active() ? count : 0, t);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    t.d_u[i] = kToStates ? T(0) : own.skip * t.grad_y[i];
    if (!kToStates) sums.skip = sums.skip + t.grad_y[i] * t.u[i];
  }
  rewind_states<T, Token, kToStates>(p, at, batch, memory, g.out, starts, tile,
                                     token, t);
  finish_tile(p, g, at, plan, batch, memory, tile, token, t, sums, !kToStates);
}

// The block's sums over its steps and batch items: part (share, segment). The
// last tile's barriers stand between these reads and what others wrote.
template <typename T>
__device__ void store_sums(const ScanSizes& s, const ScanPlan& plan,
                           const ScanGrads<T>& g, const Place& at,
                           const BackwardMemory<T>& memory,
                           const ChannelSums<T>& sums) {
  const int64_t part =
      (at.share * plan.segments + at.segment) * s.routes + at.route;
  const int64_t row = part * s.channels + at.first;
  store_columns(g.a + row * s.d_state, memory.d_a, int(s.d_state), at.width);
  if (g.dt_weight)
    store_columns(g.dt_weight + row * s.dt_rank, memory.d_weight,
                  int(s.dt_rank), at.width);
  if (g.dt_bias && at.active()) g.dt_bias[row + threadIdx.x] = sums.bias;
  if (g.d && at.active()) g.d[row + threadIdx.x] = sums.skip;
}

// Three blocks on a multiprocessor at the price of 64 spilled bytes: with 255
// registers there are two, too few to hide each other's waiting.
template <typename T, typename Token, bool kToStates>
__global__ void __launch_bounds__(kMaxThreads, sizeof(T) == 4 ? 3 : 1)
    bwd_kernel(const ScanArgs<T, Token> p, const ScanPlan plan,
               const Carry<T> carry, const ScanGrads<T> g) {
  const ScanSizes& s = p.size;
  const Place at = find_place(s, plan);
  Memory shared(block_memory());
  BackwardMemory<T> memory(shared, s, blockDim.x);
  const Channel<T> own(p, at);
  const int stride = column_stride(blockDim.x), states = int(s.d_state);
  load_parameters(p, at, memory.weight, memory.a);
  clear_sums(s, memory);
  ChannelSums<T> sums;
  for (int64_t batch = at.share; batch < s.batch; batch += plan.shares) {
    start_column(s, plan, carry.state, batch, at, memory.grad);
    int64_t begin = (at.end - 1) / kCheckpointSteps * kCheckpointSteps;
    for (; begin >= at.begin; begin -= kCheckpointSteps) {
      int* token = memory.tile.next_chunk();
      load_tokens(p, at, begin, token);
      __syncthreads();
      const int count =
          int(at.end - begin < kCheckpointSteps ? at.end - begin
                                                : kCheckpointSteps);
      const int tiles = (count + kTile - 1) / kTile;
      replay(p, at, batch, begin, tiles, memory, own, token);
      for (int j = tiles - 1; j >= 0; --j)
        backward_tile<T, Token, kToStates>(p, g, at, plan, batch, memory, own,
                                           memory.starts + j * states * stride,
                                           token + j * kTile, count - j * kTile,
                                           sums);
    }
  }
  store_sums(s, plan, g, at, memory, sums);
}

}  // namespace cuda
}  // namespace mmssm
