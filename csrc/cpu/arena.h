// Scratch memory in pieces, for one instruction set.
#pragma once

#include "simd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Hands out scratch memory. What it hands out starts a cache line: a vector
// across two lines costs twice.
template <typename T>
struct Arena {
  static constexpr int64_t kLine = 64 / sizeof(T);
  T* next;
  explicit Arena(T* scratch)
      : next(scratch +
             (kLine - int64_t(uintptr_t(scratch) / sizeof(T)) % kLine) %
                 kLine) {}
  T* take(int64_t count) {
    T* start = next;
    next += (count + kLine - 1) / kLine * kLine;
    return start;
  }
  // What rounding up may cost: a line for the start and for each piece.
  static int64_t slack(int pieces) { return (pieces + 1) * kLine; }
};

}  // namespace MMSSM_SIMD
}  // namespace mmssm
