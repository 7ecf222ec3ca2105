// The routed scan for any processor, and the choice of a better one.
#include <stdlib.h>

#define MMSSM_SIMD generic
#define MMSSM_VECTOR_BYTES 16
#include "scan_loops.h"

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

template <typename T>
static ScanKernels<T> best_kernels() {
#ifdef MMSSM_X86_DISPATCH
  if (has_avx512()) return avx512::kernels<T>();
  if (has_avx2()) return avx2::kernels<T>();
#endif
  return generic::kernels<T>();
}

template <typename T>
const ScanKernels<T>& scan_kernels() {
  static const ScanKernels<T> best = best_kernels<T>();
  return best;
}
template const ScanKernels<float>& scan_kernels<float>();
template const ScanKernels<double>& scan_kernels<double>();

}  // namespace mmssm
