// Sums of the lanes of many vectors at once, for one instruction set.
#pragma once

#include "simd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Sums over the lanes of kWidth rows at once, in row order.
template <typename T, int kRows>
struct RowSums {
  static MMSSM_MEMBER Pack<T> of(const Pack<T>* rows) {
    Pack<T> half[kRows / 2];
    for (int i = 0; i < kRows / 2; ++i)
      half[i] = add_neighbours(rows[2 * i], rows[2 * i + 1]);
    return RowSums<T, kRows / 2>::of(half);
  }
};
template <typename T>
struct RowSums<T, 1> {
  static MMSSM_MEMBER Pack<T> of(const Pack<T>* rows) { return rows[0]; }
};

template <typename T>
static MMSSM_MEMBER Pack<T> sum_rows(const T* rows) {
  typedef Pack<T> V;
  V group[V::kWidth];
  for (int i = 0; i < V::kWidth; ++i) group[i] = V::load(rows + i * V::kWidth);
  return RowSums<T, V::kWidth>::of(group);
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
