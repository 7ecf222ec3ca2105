// The routed scan on a CPU: sequential in time, vectorised over channels.
//
// Included once per instruction set, inside a file that has set the compiler's
// target, MMSSM_SIMD (the namespace) and MMSSM_VECTOR_BYTES. Nothing here may
// instantiate a standard template: its code would be shared with, and break,
// lesser processors.
#pragma once

#include "scan_backward.h"
#include "scan_forward.h"

namespace mmssm {
namespace MMSSM_SIMD {

template <typename T>
ScanKernels<T> scan_loops() {
  return {forward_scratch<T>, backward_scratch<T>, forward<T>, backward<T>};
}
template ScanKernels<float> scan_loops<float>();
template ScanKernels<double> scan_loops<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
