// What every kernel of the state fusion is given: the taps, sizes, pointers.
// Plain pointers only, so that a kernel depends on no tensor class.
#pragma once

#include "../common/scalar_math.h"

namespace mmssm {

// The 3 x 3 filters of dilation 1, 3 and 5 touch 25 tokens around a token, the
// one in the middle three times:
//
//   taps 0..8    rows -1, -3, -5; in each the columns -d, 0, d
//   taps 9..11   row 0, columns -1, -3, -5
//   tap  12      the token itself
//   taps 13..15  row 0, columns 1, 3, 5
//   taps 16..24  rows 1, 3, 5; in each the columns -d, 0, d
constexpr int kTaps = 25;
constexpr int kDilations = 3;
constexpr int kReach = 5;

MMSSM_INLINE int dilation(int i) { return 2 * i + 1; }
MMSSM_INLINE int tap_row(int tap) {
  if (tap < 9) return -dilation(tap / 3);
  return tap < 16 ? 0 : dilation((tap - 16) / 3);
}
MMSSM_INLINE int tap_column(int tap) {
  if (tap < 9) return (tap % 3 - 1) * dilation(tap / 3);
  if (tap < 12) return -dilation(tap - 9);
  if (tap < 16) return tap == 12 ? 0 : dilation(tap - 13);
  return ((tap - 16) % 3 - 1) * dilation((tap - 16) / 3);
}

// The nearest index of the map: beyond its border it goes on with the values
// at the border.
template <typename Index>
MMSSM_INLINE Index clip(Index index, Index size) {
  return index < 0 ? 0 : index < size ? index : size - 1;
}

struct FusionSizes {
  int64_t batch, height, width, channels;
  MMSSM_MEMBER int64_t length() const { return height * width; }
  // Where a token's channels begin in a map (B, H, W, C).
  MMSSM_MEMBER int64_t at(int64_t b, int64_t row, int64_t column) const {
    return ((b * height + row) * width + column) * channels;
  }
};

// y = sum of taps * x, or with a read-out c * that sum + d * u. Maps may be of
// fewer bits than the math, which is in T.
template <typename T, typename Token = T>
struct FusionArgs {
  FusionSizes size;
  const Token* x;  // (B, H, W, C)
  const T* taps;   // (25, C)
  // The read-out; all null without.
  const Token* c;  // (B, H, W)
  const T* d;      // (C)
  const Token* u;  // (B, H, W, C)
};

// Gradients; those of the read-out null without it. Maps are like the inputs'
// maps; all others are of the dtype of the math, and where threads would add to
// one place, each has a partial sum, P in number, so that every run adds in the
// same order.
template <typename T, typename Token = T>
struct FusionGrads {
  const Token* out;  // (B, H, W, C)
  Token* x;          // (B, H, W, C)
  T* taps;           // (P, 25, C)
  T* c;              // (channel blocks, B, H, W)
  T* d;              // (P, C)
  Token* u;          // (B, H, W, C)
};

}  // namespace mmssm
