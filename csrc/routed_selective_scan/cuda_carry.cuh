// A route in segments that run side by side. Each segment is first run from
// zeros; what it makes of them, and the product of its decays, gives what every
// segment starts with; then each runs in full.
#pragma once

#include "cuda_tile.cuh"

namespace mmssm {
namespace cuda {

// Of the forward kernels, and of those that find what goes between segments.
template <typename T>
struct ForwardMemory {
  TileMemory<T> tile;
  T *weight, *a, *state;  // (rank or N, column stride)

  MMSSM_MEMBER ForwardMemory(Memory& memory, const ScanSizes& s, int threads)
      : tile(memory, s) {
    const int64_t stride = column_stride(threads);
    weight = memory.take<T>(s.dt_rank * stride);
    a = memory.take<T>(s.d_state * stride);
    state = memory.take<T>(s.d_state * stride);
  }
};

MMSSM_INLINE int64_t carry_offset(const ScanSizes& s, const ScanPlan& plan,
                                  int64_t batch, const Place& at, int64_t n) {
  const int64_t segment =
      (batch * s.routes + at.route) * plan.segments + at.segment;
  return (segment * s.d_state + n) * s.channels + at.first;
}

MMSSM_INLINE int64_t carry_steps_offset(const ScanSizes& s,
                                        const ScanPlan& plan, int64_t batch,
                                        const Place& at) {
  const int64_t segment =
      (batch * s.routes + at.route) * plan.segments + at.segment;
  return segment * s.channels + at.first;
}

// A thread's column of states, or of their gradients, where a segment starts.
template <typename T>
__device__ void start_column(const ScanSizes& s, const ScanPlan& plan,
                             const T* carried, int64_t batch, const Place& at,
                             T* column) {
  const int stride = column_stride(blockDim.x);
  for (int n = 0; n < int(s.d_state); ++n) {
    const bool given = carried && at.active();
    column[n * stride + threadIdx.x] =
        given ? carried[carry_offset(s, plan, batch, at, n) + threadIdx.x]
              : T(0);
  }
}

// The thread's column and its sum of step sizes, for the segments' combining.
template <typename T>
__device__ void store_carry(const ScanSizes& s, const ScanPlan& plan,
                            const Carry<T>& carry, int64_t batch,
                            const Place& at, const T* column, T steps) {
  if (!at.active()) return;
  const int stride = column_stride(blockDim.x);
  for (int n = 0; n < int(s.d_state); ++n)
    carry.state[carry_offset(s, plan, batch, at, n) + threadIdx.x] =
        column[n * stride + threadIdx.x];
  carry.steps[carry_steps_offset(s, plan, batch, at) + threadIdx.x] = steps;
}

// One thread per channel, state, route and batch item goes through the
// segments: h = (product of decays) h + what the segment makes of zeros. In
// backward the gradients go the other way.
template <typename T>
__global__ void combine_kernel(const ScanSizes s, int64_t segments, const T* a,
                               const Carry<T> carry, bool backward) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= s.batch * s.routes * s.d_state * s.channels) return;
  const int64_t c = thread % s.channels;
  const int64_t n = thread / s.channels % s.d_state;
  const int64_t item = thread / s.channels / s.d_state;  // (batch, route)
  const T rate = a[((item % s.routes) * s.channels + c) * s.d_state + n];
  T value(0);
  for (int64_t i = 0; i < segments; ++i) {
    const int64_t segment = item * segments + (backward ? segments - 1 - i : i);
    T& state = carry.state[(segment * s.d_state + n) * s.channels + c];
    const T made = state;
    state = value;
    value = decay(carry.steps[segment * s.channels + c], rate) * value + made;
  }
}

// The gradient of y at the tile's tokens, or of state n.
template <typename T, typename Token>
__device__ void gather_grad(const ScanArgs<T, Token>& p, const Place& at,
                            int64_t batch, const T* grad, int n,
                            const int* token, T (&to)[kTile]) {
  const bool states = p.output == ScanOutput::kStates;
  const int64_t first = output_offset(p, batch, at.route, 0, at.channel());
  gather(grad + first + n, p.size.channels * (states ? p.size.d_state : 1),
         token, at.active(), to);
}

// The gradients of the states before a tile, from those after it.
template <typename T, typename Token, bool kToStates>
__device__ void carry_tile(const ScanArgs<T, Token>& p, const Place& at,
                           int64_t batch, ForwardMemory<T>& memory,
                           const Channel<T>& own, const T* grad_out,
                           const int* token, int count, T& step_sum) {
  const ScanSizes& s = p.size;
  const int stride = column_stride(blockDim.x), states = int(s.d_state);
  T* tile = memory.tile.next_tile();
  T delta[kTile], grad_y[kTile], c[kTile];
  if (!kToStates) gather_grad(p, at, batch, grad_out, 0, token, grad_y);
  load_tile(p, at, batch, token, tile, !kToStates);
  __syncthreads();
  raw_steps(p, at, batch, memory.weight, own.bias, tile, token, delta);
  pass_softplus(p.softplus, at.active() ? count : 0, delta);
#pragma unroll
  for (int i = 0; i < kTile; ++i) step_sum = step_sum + delta[i];
  for (int n = 0; n < states; ++n) {
    const T a = memory.a[n * stride + threadIdx.x];
    T grad = memory.state[n * stride + threadIdx.x];
    if (kToStates)
      gather_grad(p, at, batch, grad_out, n, token, grad_y);
    else
      read_row(tile + (s.dt_rank + states + n) * kRow, c);
#pragma unroll
    for (int i = kTile - 1; i >= 0; --i) {
      grad = grad + (kToStates ? grad_y[i] : c[i] * grad_y[i]);
      grad = grad * decay(delta[i], a);
    }
    memory.state[n * stride + threadIdx.x] = grad;
  }
}

// What backward's segments do to gradients needs step sizes and C only.
template <typename T, typename Token, bool kToStates>
__global__ void __launch_bounds__(kMaxThreads)
    bwd_carry_kernel(const ScanArgs<T, Token> p, const ScanPlan plan,
                     const Carry<T> carry, const T* grad_out) {
  const ScanSizes& s = p.size;
  const Place at = find_place(s, plan);
  Memory shared(block_memory());
  ForwardMemory<T> memory(shared, s, blockDim.x);
  const Channel<T> own(p, at);
  load_parameters(p, at, memory.weight, memory.a);
  for (int64_t batch = at.share; batch < s.batch; batch += plan.shares) {
    start_column(s, plan, static_cast<const T*>(nullptr), batch, at,
                 memory.state);
    T step_sum(0);
    int64_t begin = (at.end - 1) / kCheckpointSteps * kCheckpointSteps;
    for (; begin >= at.begin; begin -= kCheckpointSteps) {
      int* token = memory.tile.next_chunk();
      load_tokens(p, at, begin, token);
      __syncthreads();
      for (int i = int(kCheckpointSteps) - kTile; i >= 0; i -= kTile)
        if (begin + i < at.end)
          carry_tile<T, Token, kToStates>(p, at, batch, memory, own, grad_out,
                                          token + i, int(at.end - begin - i),
                                          step_sum);
    }
    store_carry(s, plan, carry, batch, at, memory.state, step_sum);
  }
}

}  // namespace cuda
}  // namespace mmssm
