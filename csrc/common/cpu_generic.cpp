// The loops for any processor, and the choice of a better set.
#include <stdlib.h>
#include <string.h>

#define MMSSM_SIMD generic
#define MMSSM_VECTOR_BYTES 16
#include "cpu_ops.h"

namespace mmssm {

#ifdef MMSSM_X86_DISPATCH
static bool allowed_above(const char* capability) {
  const char* limit = getenv("ATEN_CPU_CAPABILITY");
  return limit == nullptr || strcmp(limit, capability) != 0;
}

InstructionSet best_set() {
  const bool avx2 = allowed_above("default") &&
                    __builtin_cpu_supports("avx2") &&
                    __builtin_cpu_supports("fma");
  if (!avx2) return InstructionSet::kGeneric;
  const bool avx512 =
      allowed_above("avx2") && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  return avx512 ? InstructionSet::kAvx512 : InstructionSet::kAvx2;
}

const char* instruction_set() {
  const InstructionSet set = best_set();
  return set == InstructionSet::kAvx512 ? "AVX-512"
         : set == InstructionSet::kAvx2 ? "AVX2"
                                        : "SSE2";
}
#else
InstructionSet best_set() { return InstructionSet::kGeneric; }
const char* instruction_set() { return "generic"; }
#endif

}  // namespace mmssm
