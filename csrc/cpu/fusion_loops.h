// The state fusion on a CPU.
//
// Included once per instruction set, inside a file that has set the compiler's
// target, MMSSM_SIMD (the namespace) and MMSSM_VECTOR_BYTES. Nothing here may
// instantiate a standard template: its code would be shared with, and break,
// lesser processors.
#pragma once

#include "fusion_backward.h"
#include "fusion_forward.h"

namespace mmssm {
namespace MMSSM_SIMD {

template <typename T>
FusionKernels<T> fusion_loops() {
  return {fusion_scratch<T>, fuse_forward<T>, fuse_backward<T>};
}
template FusionKernels<float> fusion_loops<float>();
template FusionKernels<double> fusion_loops<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
