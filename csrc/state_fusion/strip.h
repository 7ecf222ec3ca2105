// How the taps of the state fusion visit a strip of neighboring tokens: each
// value of a row is read once, for all the tokens of the strip that it serves.
//
// `load(j)` gives the value at column j of the strip, which reaches kReach
// columns beyond it on either side. `use(tap, i, value)` takes the value for
// token i; inlined, tap and i are constants. A value is a number, or a vector
// of them.
#pragma once

#include "args.h"

// Which columns a tap visits must be known to the compiler.
#if defined(__CUDACC__)
#define MMSSM_UNROLL_STRIP _Pragma("unroll")
#else
#define MMSSM_UNROLL_STRIP _Pragma("GCC unroll 32")
#endif

namespace mmssm {

// Maps of images of 224 x 224 have 56, 28, 14 and 7 columns.
constexpr int kStripTokens = 7;

// One dilation's row above or below: taps 0, 1, 2 in columns -d, 0, d.
template <int kDilation, typename Load, typename Use>
MMSSM_INLINE void visit_taps(const Load& load, const Use& use) {
  MMSSM_UNROLL_STRIP
  for (int j = -kDilation; j < kStripTokens + kDilation; ++j) {
    const auto value = load(j);
    MMSSM_UNROLL_STRIP
    for (int tap = 0; tap < 3; ++tap) {
      const int i = j - (tap - 1) * kDilation;
      if (i >= 0 && i < kStripTokens) use(tap, i, value);
    }
  }
}

// The strip's own row: taps 9 to 15.
template <typename Load, typename Use>
MMSSM_INLINE void visit_middle_taps(const Load& load, const Use& use) {
  MMSSM_UNROLL_STRIP
  for (int j = -kReach; j < kStripTokens + kReach; ++j) {
    const auto value = load(j);
    MMSSM_UNROLL_STRIP
    for (int tap = 9; tap < 16; ++tap) {
      const int i = j - tap_column(tap);
      if (i >= 0 && i < kStripTokens) use(tap, i, value);
    }
  }
}

}  // namespace mmssm
