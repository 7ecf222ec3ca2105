// The instruction sets that the CPU's loops are compiled for.
//
// A cpu_<set>.cpp sets the compiler's target and includes every op's loops
// (cpu_ops.h), which are functions in the set's namespace.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define MMSSM_X86_DISPATCH 1
// Declares the same functions for every set.
#define MMSSM_FOR_EACH_SET(declarations) \
  namespace generic {                    \
  declarations                           \
  }                                      \
  namespace avx2 {                       \
  declarations                           \
  }                                      \
  namespace avx512 {                     \
  declarations                           \
  }
// Calls a function of the best set that this processor has.
#define MMSSM_BEST_SET(function)                              \
  (best_set() == InstructionSet::kAvx512 ? avx512::function() \
   : best_set() == InstructionSet::kAvx2 ? avx2::function()   \
                                         : generic::function())
#else
#define MMSSM_FOR_EACH_SET(declarations) \
  namespace generic {                    \
  declarations                           \
  }
#define MMSSM_BEST_SET(function) generic::function()
#endif

namespace mmssm {

enum class InstructionSet { kGeneric, kAvx2, kAvx512 };

// Defined in cpu_generic.cpp. ATEN_CPU_CAPABILITY, PyTorch's own variable,
// lowers it.
InstructionSet best_set();

// Its name: 'AVX-512', 'AVX2', 'SSE2' or, on other processors, 'generic'.
const char* instruction_set();

}  // namespace mmssm
