// The tree scan's loops for one instruction set, and the choice among them.
#pragma once

#include "../common/tree_edge.h"
#include "instruction_sets.h"
#include "scan_kernels.h"

namespace mmssm {

// `forward` stores the result. `backward` does with the gradients what the
// routed scan's does (scan_kernels.h).
template <typename T>
struct TreeKernels {
  // Elements of scratch memory that work on so many blocks needs.
  int64_t (*forward_scratch)(const ScanSizes&, int64_t blocks);
  int64_t (*backward_scratch)(const ScanSizes&, int64_t blocks);
  void (*forward)(const TreeArgs<T>&, T* out, const ScanWork&, T* scratch);
  void (*backward)(const TreeArgs<T>&, const ScanGrads<T>&, const ScanWork&,
                   int64_t group, int64_t part, T* scratch);
};

// The fastest set this processor has, chosen when first asked for.
template <typename T>
const TreeKernels<T>& tree_kernels();

MMSSM_FOR_EACH_SET(template <typename T> TreeKernels<T> tree_loops();)

}  // namespace mmssm
