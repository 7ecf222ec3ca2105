// The state fusion's CPU kernels.
#pragma once

#include "../common/instruction_sets.h"
#include "args.h"

namespace mmssm {

// Channels are handled in blocks of this many: one line of the cache of
// float32, so that the rows that a token's taps reach fit the first level.
constexpr int kFusionLanes = 16;

MMSSM_INLINE int64_t channel_blocks(const FusionSizes& s) {
  return (s.channels + kFusionLanes - 1) / kFusionLanes;
}

// What one call works on: one block of channels in rows of one map.
struct FusionWork {
  int64_t batch, block, first_row, last_row;
};

// `bwd` stores the gradients of maps and adds to those of parameters.
//
// Both give the number of elements of scratch memory that the work needs, and
// do nothing else if `scratch` is null.
template <typename T>
struct FusionKernels {
  int64_t (*fwd)(const FusionArgs<T>&, T* out, const FusionWork&, T* scratch);
  int64_t (*bwd)(const FusionArgs<T>&, const FusionGrads<T>&, const FusionWork&,
                 T* scratch);
};

// The table of each instruction set; defined at the end of cpu_bwd.h.
MMSSM_FOR_EACH_SET(template <typename T> FusionKernels<T> fusion_kernels();)

}  // namespace mmssm
