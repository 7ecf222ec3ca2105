// The choice of a plan. Speed depends on it, and the order of sums.
#include "cuda_plan.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "../common/cuda_device.h"

namespace mmssm {
namespace cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The fewest whole warps that cover a group in as many blocks as full ones
// would; fewer if the shared memory does not reach.
int choose_threads(const char* op, const ScanSizes& s, MemoryOf memory) {
  check_memory(op, s, memory);
  const size_t available = current_device().shared_bytes;
  const int64_t size = s.channels / s.groups;
  int64_t most = kMaxThreads;
  if (plan_limits().threads) most = std::min(most, plan_limits().threads);
  const int64_t blocks = ceil_div(size, most);
  int threads = int(ceil_div(ceil_div(size, blocks), kWarp) * kWarp);
  while (threads > kWarp && memory(s, threads) > available) threads -= kWarp;
  return threads;
}

}  // namespace

void check_memory(const char* op, const ScanSizes& s, MemoryOf memory) {
  const size_t needed = memory(s, kWarp);
  const int available = current_device().shared_bytes;
  TORCH_CHECK(needed <= size_t(available), op, ": ", s.d_state,
              " states and a step size of rank ", s.dt_rank, " need ", needed,
              " bytes of shared memory, this GPU has ", available,
              " for a block; use a smaller state or rank, or run on the CPU");
}

void check_offsets(const char* op, const ScanSizes& s, int64_t widest) {
  constexpr int64_t kMost = int64_t(1) << 32;
  TORCH_CHECK(s.length <= 1 || widest < kMost / (s.length - 1), op,
              ": on a GPU a batch item must lie within 2^32 "
              "values, but its ",
              s.length, " tokens are up to ", widest,
              " values apart; give contiguous inputs, or the map in parts");
}

int64_t blocks_that_fill(int threads) {
  const int64_t full = 4 * int64_t(current_device().multiprocessors);
  return full * kMaxThreads / threads;
}

ScanPlan make_plan(const char* op, const ScanSizes& s, MemoryOf memory,
                   bool deterministic) {
  ScanPlan plan;
  plan.threads = choose_threads(op, s, memory);
  plan.blocks_per_group = ceil_div(s.channels / s.groups, plan.threads);
  plan.first_route = 0;
  plan.routes = s.routes;
  plan.ordered = deterministic;
  const int64_t wanted = blocks_that_fill(plan.threads);
  const int64_t per_item = s.routes * s.groups * plan.blocks_per_group;
  const int64_t blocks = s.batch * per_item;
  // Segments cost half as much work again: worth it from two on, of enough
  // steps. They would also add to a repeated token in any order.
  int64_t segments = std::min(wanted / blocks, checkpoint_count(s) / 2);
  if (plan_limits().segments)
    segments = std::min(plan_limits().segments, checkpoint_count(s));
  if (segments < 2 || deterministic) segments = 1;
  plan.segment_steps =
      ceil_div(checkpoint_count(s), segments) * kCheckpointSteps;
  plan.segments = ceil_div(s.seq_len, plan.segment_steps);
  // With blocks to spare, one takes several items in turn: its parameters are
  // read, and their gradients written, once for all.
  const int64_t items = std::max<int64_t>(1, blocks / (4 * wanted));
  plan.shares = ceil_div(s.batch, items);
  if (plan_limits().shares)
    plan.shares = std::min(plan_limits().shares, s.batch);
  return plan;
}

}  // namespace cuda
}  // namespace mmssm
