// The routed scan's forward kernels.
#pragma once

#include "cuda_carry.cuh"
#include "cuda_tile.cuh"

namespace mmssm {
namespace cuda {

template <typename T, typename Token, FwdKind kKind>
__device__ void forward_tile(const ScanArgs<T, Token>& p, const Place& at,
                             int64_t batch, ForwardMemory<T>& memory,
                             const Channel<T>& own, const int* token, int count,
                             T* out, T& step_sum) {
  const ScanSizes& s = p.size;
  const int stride = column_stride(blockDim.x), states = int(s.d_state);
  T* tile = memory.tile.next_tile();
  T u[kTile], delta[kTile], y[kTile], h[kTile];
  gather(p.x + batch * s.length * s.channels + at.channel(), s.channels, token,
         at.active(), u);
  load_tile(p, at, batch, token, tile, kKind == FwdKind::kSum);
  __syncthreads();
  raw_steps(p, at, batch, memory.weight, own.bias, tile, token, delta);
  pass_softplus(p.softplus, at.active() ? count : 0, delta);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    y[i] = own.skip * u[i];
    step_sum = step_sum + delta[i];
  }
  // (B, K, L, C, N) for states, else the channel's place in each token.
  T* to = out + (kKind == FwdKind::kCarry
                     ? 0
                     : output_offset(p, batch, at.route, 0, at.channel()));
  const T* row_b = tile + s.dt_rank * kRow;
  for (int n = 0; n < states; ++n) {
    T& state = memory.state[n * stride + threadIdx.x];
    state = run_state(state, memory.a[n * stride + threadIdx.x],
                      row_b + n * kRow, delta, u, h);
    if (kKind == FwdKind::kStates)
      scatter(to + n, s.channels * s.d_state, token, at.active(), h);
    if (kKind != FwdKind::kSum) continue;
    T c[kTile];
    read_row(row_b + (states + n) * kRow, c);
#pragma unroll
    for (int i = 0; i < kTile; ++i) y[i] = y[i] + c[i] * h[i];
  }
  if (kKind == FwdKind::kSum) scatter(to, s.channels, token, at.active(), y);
}

template <typename T, typename Token>
__device__ void save_checkpoint(const ScanArgs<T, Token>& p, const Place& at,
                                int64_t batch, int64_t begin, const T* state) {
  if (!at.active()) return;
  const int stride = column_stride(blockDim.x);
  for (int n = 0; n < int(p.size.d_state); ++n)
    p.checkpoints[checkpoint_offset(
        p.size, batch, at.route, begin / kCheckpointSteps, n, at.channel())] =
        state[n * stride + threadIdx.x];
}

// kSum also gives the routes' own results: the offset is all that differs.
// kCarry writes nothing but what a segment makes of a state of zeros.
template <typename T, typename Token, FwdKind kKind>
__global__ void __launch_bounds__(kMaxThreads)
    fwd_kernel(const ScanArgs<T, Token> p, const ScanPlan plan,
               const Carry<T> carry, T* out) {
  constexpr bool kCarries = kKind == FwdKind::kCarry;
  const ScanSizes& s = p.size;
  const Place at = find_place(s, plan);
  Memory shared(block_memory());
  ForwardMemory<T> memory(shared, s, blockDim.x);
  const Channel<T> own(p, at);
  load_parameters(p, at, memory.weight, memory.a);
  for (int64_t batch = at.share; batch < s.batch; batch += plan.shares) {
    start_column(s, plan, kCarries ? nullptr : carry.state, batch, at,
                 memory.state);
    T step_sum(0);
    for (int64_t begin = at.begin; begin < at.end; begin += kCheckpointSteps) {
      int* token = memory.tile.next_chunk();
      load_tokens(p, at, begin, token);
      __syncthreads();
      if (!kCarries && p.checkpoints)
        save_checkpoint(p, at, batch, begin, memory.state);
      for (int i = 0; i < kCheckpointSteps && begin + i < at.end; i += kTile)
        forward_tile<T, Token, kKind>(p, at, batch, memory, own, token + i,
                                      int(at.end - begin - i), out, step_sum);
    }
    if (kCarries)
      store_carry(s, plan, carry, batch, at, memory.state, step_sum);
  }
}

}  // namespace cuda
}  // namespace mmssm
