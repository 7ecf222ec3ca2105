// The routed scan's loops for one instruction set, and the choice among them.
#pragma once

#include "../common/scan_args.h"
#include "instruction_sets.h"

namespace mmssm {

// Channels are handled in blocks of this many: long enough to fill vector
// registers, short enough that a chunk of steps stays in the first-level cache.
constexpr int kLanes = 32;
// Steps handled at a time, so that each stage of the work is a long loop with
// no dependence between steps; only the recurrence itself is sequential.
constexpr int kChunk = int(kCheckpointSteps);

MMSSM_INLINE int64_t blocks_per_group(const ScanSizes& s) {
  return (s.channels / s.groups + kLanes - 1) / kLanes;
}
MMSSM_INLINE int64_t channel_blocks(const ScanSizes& s) {
  return s.groups * blocks_per_group(s);
}

// What one call works on: batch items, blocks of channels, and routes, each
// from a first to before a last.
struct ScanWork {
  int64_t first_batch, last_batch, first_block, last_block, first_route,
      last_route;
  int64_t blocks() const { return last_block - first_block; }
};

// `forward` adds to the zeroed output, `backward` to the zeroed gradients of
// the tokens; those that channels share are sums of one `part` of the channels.
// Gradients of parameters are stored, as sums of one `group` of batch items.
template <typename T>
struct ScanKernels {
  // Elements of scratch memory that work on so many blocks needs.
  int64_t (*forward_scratch)(const ScanSizes&, int64_t blocks);
  int64_t (*backward_scratch)(const ScanSizes&, int64_t blocks);
  void (*forward)(const ScanArgs<T>&, T* out, const ScanWork&, T* scratch);
  void (*backward)(const ScanArgs<T>&, const ScanGrads<T>&, const ScanWork&,
                   int64_t group, int64_t part, T* scratch);
};

// The fastest set this processor has, chosen when first asked for.
template <typename T>
const ScanKernels<T>& scan_kernels();

MMSSM_FOR_EACH_SET(template <typename T> ScanKernels<T> scan_loops();)

}  // namespace mmssm
