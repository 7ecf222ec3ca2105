// The choice of a plan: only speed depends on it.
#include "scan_plan.h"

#include <c10/util/Exception.h>

#include <algorithm>

#include "device.h"

namespace mmssm {
namespace cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The fewest whole warps that cover a group in as many blocks as full ones
// would; fewer if the shared memory does not reach.
int choose_threads(const ScanSizes& s, size_t (*memory)(const ScanSizes&, int),
                   const Device& device) {
  const int64_t size = s.channels / s.groups;
  const int64_t most =
      plan_limits().threads ? plan_limits().threads : kMaxThreads;
  const int64_t blocks = ceil_div(size, most);
  int threads = int(ceil_div(ceil_div(size, blocks), kWarp) * kWarp);
  while (threads > kWarp && memory(s, threads) > size_t(device.shared_bytes))
    threads -= kWarp;
  TORCH_CHECK(memory(s, threads) <= size_t(device.shared_bytes),
              "routed_selective_scan: ", s.states, " states and a step size ",
              "of rank ", s.rank, " need ", memory(s, threads),
              " bytes of shared memory, this GPU has ", device.shared_bytes,
              " for a block; use a smaller state or rank, or run on the CPU");
  return threads;
}

}  // namespace

ScanPlan make_plan(const ScanSizes& s, size_t (*memory)(const ScanSizes&, int),
                   bool deterministic) {
  const Device device = current_device();
  ScanPlan plan;
  plan.threads = choose_threads(s, memory, device);
  plan.blocks_per_group = ceil_div(s.channels / s.groups, plan.threads);
  plan.first_route = 0;
  plan.routes = s.routes;
  plan.ordered = deterministic;
  // A block's steps are one after the other: blocks are what fills the chip.
  const int64_t wanted = 4 * int64_t(device.multiprocessors);
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
  plan.segments = ceil_div(s.steps, plan.segment_steps);
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
