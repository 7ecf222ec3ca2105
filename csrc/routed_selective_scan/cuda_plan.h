// How one launch of the routed scan shares its work out over the chip, and
// what its kernels are given besides ScanArgs. Plain data, for host and device.
#pragma once

#include "../common/cuda_launch.h"
#include "args.h"

namespace mmssm {
namespace cuda {

constexpr int kMaxThreads = 128;  // of a block: one per channel

// A block of threads has one segment of one route, one block of channels of
// one group, and every `shares`-th batch item.
struct ScanPlan {
  int threads;  // per block, whole warps
  int64_t blocks_per_group;
  int64_t segments, segment_steps;  // segments are whole checkpoints
  int64_t shares;
  int64_t first_route, routes;  // of this launch
  // Whether what a block adds to one place is added in the order of the steps,
  // even where a route passes a token more than once.
  bool ordered;

  int64_t grid(const ScanSizes& s) const {
    return shares * segments * routes * s.groups * blocks_per_group;
  }
};

// What goes from one segment of a route to the next: `state` (B, K, S, N, C),
// the states where segment S starts or, in backward, the gradients where it
// ends; `steps` (B, K, S, C), the sum of its step sizes, which gives the
// product of its decays. Null for one segment.
template <typename T>
struct Carry {
  T *state, *steps;
};

// Set by tests, so that small inputs take every path; 0 leaves the choice.
struct PlanLimits {
  int64_t threads = 0;   // at most
  int64_t segments = 0;  // as many, if the route is long enough
  int64_t shares = 0;    // as many, if the batch is large enough
};
inline PlanLimits& plan_limits() {
  static PlanLimits limits;
  return limits;
}

// Bytes of shared memory that a block of so many threads needs: one of the two
// functions below.
using MemoryOf = size_t (*)(const ScanSizes&, int threads);

// A thread's steps are one after the other: warps are what fills the chip, as
// many as four full blocks on each multiprocessor.
int64_t blocks_that_fill(int threads);

// The plan for the current device. Needs at least one of everything (batch,
// route, step, channel).
ScanPlan make_plan(const char* op, const ScanSizes& s, MemoryOf memory,
                   bool deterministic);

// Throws if not even a block of one warp fits into the shared memory.
void check_memory(const char* op, const ScanSizes& s, MemoryOf memory);

// Throws if a token of a batch item is more than 2^32 values from its first:
// the kernels find it by 32 bits. `widest`: the most values between neighbors.
void check_offsets(const char* op, const ScanSizes& s, int64_t widest);

// In any of the tensors that the kernels read or write.
template <typename T, typename Token>
int64_t widest_token(const ScanArgs<T, Token>& p) {
  const ScanSizes& s = p.size;
  const int64_t steps = s.routes * (s.dt_rank ? s.dt_rank : s.channels);
  int64_t widest = s.channels;
  for (const int64_t values :
       {s.channels * (p.output == ScanOutput::kStates ? s.d_state : 1), steps,
        s.routes * s.groups * s.d_state, p.dt.token, p.b.token, p.c.token})
    if (values > widest) widest = values;
  return widest;
}

// What a forward kernel makes.
enum class FwdKind { kSum, kStates, kCarry };

// The kernels, by plain pointers (cuda_fwd.cu, cuda_bwd.cu). Launches
// go to `stream`, a cudaStream_t; an error is returned as a cudaError_t.
template <typename T, typename Token>
int launch_fwd(const ScanArgs<T, Token>& p, const ScanPlan& plan,
               const Carry<T>& carry, T* out, FwdKind kind, void* stream);
template <typename T, typename Token>
int launch_bwd(const ScanArgs<T, Token>& p, const ScanPlan& plan,
               const Carry<T>& carry, const ScanGrads<T>& grads, void* stream);
// The gradients that leave each segment if none enter it.
template <typename T, typename Token>
int launch_bwd_carry(const ScanArgs<T, Token>& p, const ScanPlan& plan,
                     const Carry<T>& carry, const T* grad, void* stream);
// From what each segment makes of zeros to what it is given.
template <typename T>
int launch_combine(const ScanSizes& s, int64_t segments, const T* a,
                   const Carry<T>& carry, bool backward, void* stream);

// Bytes of shared memory of a block.
template <typename T>
size_t fwd_memory(const ScanSizes& s, int threads);
template <typename T>
size_t bwd_memory(const ScanSizes& s, int threads);

}  // namespace cuda
}  // namespace mmssm
