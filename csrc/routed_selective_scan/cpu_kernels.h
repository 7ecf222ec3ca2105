// The routed scan's CPU kernels, and what one call of them works on.
#pragma once

#include "../common/instruction_sets.h"
#include "args.h"

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

// `fwd` adds to the zeroed output, `bwd` to the zeroed gradients of the tokens;
// those that channels share are sums over one `part` of the channels. Gradients
// of parameters are stored, as sums over one part of the batch.
//
// Both give the number of elements of scratch memory that the work needs, and
// do nothing else if `scratch` is null.
template <typename T>
struct ScanKernels {
  int64_t (*fwd)(const ScanArgs<T>&, T* out, const ScanWork&, T* scratch);
  int64_t (*bwd)(const ScanArgs<T>&, const ScanGrads<T>&, const ScanWork&,
                 int64_t batch_part, int64_t part, T* scratch);
};

// The table of each instruction set; defined at the end of cpu_bwd.h.
MMSSM_FOR_EACH_SET(template <typename T> ScanKernels<T> scan_kernels();)

}  // namespace mmssm
