// The tree scan's CPU kernels.
#pragma once

#include "../common/instruction_sets.h"
#include "../routed_selective_scan/cpu_kernels.h"
#include "args.h"

namespace mmssm {

// `fwd` stores the result. `bwd` does with the gradients what the routed scan's
// does, and `scratch` is used in the same way.
template <typename T>
struct TreeKernels {
  int64_t (*fwd)(const TreeArgs<T>&, T* out, const ScanWork&, T* scratch);
  int64_t (*bwd)(const TreeArgs<T>&, const ScanGrads<T>&, const ScanWork&,
                 int64_t batch_part, int64_t part, T* scratch);
};

// The table of each instruction set; defined at the end of cpu_bwd.h.
MMSSM_FOR_EACH_SET(template <typename T> TreeKernels<T> tree_kernels();)

}  // namespace mmssm
