// The loops for any processor, and the choice of a better one.
#include <stdlib.h>

#define MMSSM_SIMD generic
#define MMSSM_VECTOR_BYTES 16
#include "fusion_loops.h"
#include "scan_loops.h"
#include "tree_loops.h"

namespace mmssm {

#ifdef MMSSM_X86_DISPATCH
// ATEN_CPU_CAPABILITY, PyTorch's own variable, lowers the choice here too.
static bool allowed_above(const char* capability) {
  const char* limit = getenv("ATEN_CPU_CAPABILITY");
  return limit == nullptr || strcmp(limit, capability) != 0;
}
static bool has_avx2() {
  return allowed_above("default") && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}
static bool has_avx512() {
  return allowed_above("avx2") && has_avx2() &&
         __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw");
}
#endif

// The loops for the best set that this processor has.
#ifdef MMSSM_X86_DISPATCH
#define MMSSM_BEST(loops)         \
  (has_avx512() ? avx512::loops() \
   : has_avx2() ? avx2::loops()   \
                : generic::loops())
#else
#define MMSSM_BEST(loops) generic::loops()
#endif

const char* instruction_set() {
#ifdef MMSSM_X86_DISPATCH
  return has_avx512() ? "AVX-512" : has_avx2() ? "AVX2" : "SSE2";
#else
  return "generic";
#endif
}

template <typename T>
const ScanKernels<T>& scan_kernels() {
  static const ScanKernels<T> best = MMSSM_BEST(scan_loops<T>);
  return best;
}
template const ScanKernels<float>& scan_kernels<float>();
template const ScanKernels<double>& scan_kernels<double>();

template <typename T>
const FusionKernels<T>& fusion_kernels() {
  static const FusionKernels<T> best = MMSSM_BEST(fusion_loops<T>);
  return best;
}
template const FusionKernels<float>& fusion_kernels<float>();
template const FusionKernels<double>& fusion_kernels<double>();

template <typename T>
const TreeKernels<T>& tree_kernels() {
  static const TreeKernels<T> best = MMSSM_BEST(tree_loops<T>);
  return best;
}
template const TreeKernels<float>& tree_kernels<float>();
template const TreeKernels<double>& tree_kernels<double>();

}  // namespace mmssm
