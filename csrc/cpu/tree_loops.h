// The tree scan on a CPU: sequential over the tree, vectorised over channels.
//
// Included once per instruction set, as scan_loops.h is.
#pragma once

#include "tree_backward.h"
#include "tree_forward.h"

namespace mmssm {
namespace MMSSM_SIMD {

template <typename T>
TreeKernels<T> tree_loops() {
  return {forward_tree_scratch<T>, backward_tree_scratch<T>, forward_tree<T>,
          backward_tree<T>};
}
template TreeKernels<float> tree_loops<float>();
template TreeKernels<double> tree_loops<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
