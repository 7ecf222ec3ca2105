// Scratch memory in pieces, for one instruction set.
#pragma once

#include "simd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Hands out scratch memory, or only counts it: the same code lays the memory
// out and says how much it needs. A piece starts a cache line: a vector across
// two lines costs twice.
template <typename T>
struct Arena {
  static constexpr int64_t kLine = 64 / sizeof(T);
  T* start;  // null where it only counts
  int64_t used = 0;

  explicit Arena(T* scratch = nullptr)
      : start(scratch
                  ? scratch + (kLine - int64_t(uintptr_t(scratch) / sizeof(T)) %
                                           kLine) %
                                  kLine
                  : nullptr) {}
  // Null where it only counts.
  T* take(int64_t count) {
    T* piece = start ? start + used : nullptr;
    used += (count + kLine - 1) / kLine * kLine;
    return piece;
  }
  bool counts_only() const { return start == nullptr; }
  // Elements that hold all pieces, wherever they begin.
  int64_t size() const { return used + kLine; }
};

}  // namespace MMSSM_SIMD
}  // namespace mmssm
