// The routed scan for any processor, and the choice of a better one.
#define MMSSM_SIMD generic
#include "scan_loops.h"

namespace mmssm {

#ifdef MMSSM_X86_DISPATCH
static bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") &&
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

const char* scan_instruction_set() {
#ifdef MMSSM_X86_DISPATCH
  if (has_avx512()) return "avx512";
  if (has_avx2()) return "avx2";
#endif
  return "generic";
}

}  // namespace mmssm
