// The instruction sets that the CPU's loops are compiled for.
//
// A kernels_<set>.cpp sets the compiler's target and includes the loops, which
// are functions in the set's namespace. kernels_generic.cpp chooses.
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
#else
#define MMSSM_FOR_EACH_SET(declarations) \
  namespace generic {                    \
  declarations                           \
  }
#endif

namespace mmssm {

// The name of the set that the loops use on this processor.
const char* instruction_set();

}  // namespace mmssm
