// The state fusion's loops for one instruction set, and the choice among them.
#pragma once

#include "../common/fusion_args.h"
#include "instruction_sets.h"

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

// `backward` stores the gradients of maps and adds to those of parameters.
template <typename T>
struct FusionKernels {
  int64_t (*scratch_size)(const FusionSizes&);  // elements
  void (*forward)(const FusionArgs<T>&, T* out, const FusionWork&, T* scratch);
  void (*backward)(const FusionArgs<T>&, const FusionGrads<T>&,
                   const FusionWork&, T* scratch);
};

// The fastest set this processor has, chosen when first asked for.
template <typename T>
const FusionKernels<T>& fusion_kernels();

MMSSM_FOR_EACH_SET(template <typename T> FusionKernels<T> fusion_loops();)

}  // namespace mmssm
