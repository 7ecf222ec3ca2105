// Rows of tokens as the taps of the state fusion read them (common/cpu_ops.h).
//
// A block of channels goes down the map row by row. The eleven rows that the
// taps of one row reach are copied into a ring of scratch rows, dense and with
// the columns beyond the border filled in: no tap then asks where it is, and
// each copied vector serves up to seven taps.
#pragma once

#include "../common/arena.h"
#include "cpu_kernels.h"
#include "strip.h"

namespace mmssm {
namespace MMSSM_SIMD {

constexpr int kL = kFusionLanes;
constexpr int kStrip = kStripTokens;
constexpr int kRingRows = 2 * kReach + 1;
// Rows through which a token of a row at the border may get gradient: 3 above,
// 3 below, and what is clipped to it from either side, 1 + 3 + 5.
constexpr int kMostRows = 6 + 2 * 9;

MMSSM_INLINE int64_t strips(const FusionSizes& s) {
  return (s.width + kStrip - 1) / kStrip;
}
MMSSM_INLINE int64_t row_elements(const FusionSizes& s) {
  return (strips(s) * kStrip + 2 * kReach) * kL;
}

// The channels of one token, of which a last block has fewer than kL.
template <typename T>
static MMSSM_MEMBER void copy_token(const T* from, int lanes, T* to) {
  if (lanes == kL) {
    for (int v = 0; v < kL; v += Pack<T>::kWidth)
      Pack<T>::load(from + v).store(to + v);
    return;
  }
  for (int v = 0; v < kL; ++v) to[v] = v < lanes ? from[v] : T(0);
}

template <typename T>
static MMSSM_MEMBER void store_token(const Pack<T>& value, int lanes, T* to) {
  constexpr int width = Pack<T>::kWidth;
  if (lanes >= width) return value.store(to);
  T all[width];
  value.store(all);
  for (int v = 0; v < lanes; ++v) to[v] = all[v];
}

// (25, C) -> (25, kL), or with every tap at its mirror image's place.
template <typename T>
static void copy_taps(const T* from, int64_t channels, int lanes, bool mirrored,
                      T* to) {
  for (int tap = 0; tap < kTaps; ++tap) {
    int other = tap;
    if (mirrored)
      for (other = 0; tap_row(other) != -tap_row(tap) ||
                      tap_column(other) != -tap_column(tap);)
        ++other;
    copy_token(from + other * channels, lanes, to + tap * kL);
  }
}

// The last rows of a map that were copied, by row number.
template <typename T>
struct Ring {
  T* memory;
  int64_t stride, next = 0;  // the first row that is not copied

  // Column 0's channels; columns -kReach to kReach beyond the last strip.
  T* row(int64_t number) const {
    return memory + number % kRingRows * stride + kReach * kL;
  }
};

// x's row, going on with its border's values.
template <typename T>
static void load_row(const FusionArgs<T>& p, const FusionWork& work, int lanes,
                     int64_t number, T* row) {
  const FusionSizes& s = p.size;
  const T* from = p.x + s.at(work.batch, number, 0) + work.block * kL;
  for (int64_t w = 0; w < s.width; ++w)
    copy_token(from + w * s.channels, lanes, row + w * kL);
  for (int64_t w = -kReach; w < 0; ++w) copy_token(row, kL, row + w * kL);
  const T* last = row + (s.width - 1) * kL;
  for (int64_t w = s.width; w < strips(s) * kStrip + kReach; ++w)
    copy_token(last, kL, row + w * kL);
}

// The gradient of the sum of taps, zero beyond the border.
template <typename T>
static void load_grad_row(const FusionArgs<T>& p, const FusionGrads<T>& g,
                          const FusionWork& work, int lanes, int64_t number,
                          T* row) {
  const FusionSizes& s = p.size;
  const T* from = g.out + s.at(work.batch, number, 0) + work.block * kL;
  const T* c = p.c ? p.c + (work.batch * s.height + number) * s.width : nullptr;
  for (int64_t w = 0; w < s.width; ++w) {
    T* to = row + w * kL;
    copy_token(from + w * s.channels, lanes, to);
    if (c)
      for (int v = 0; v < kL; ++v) to[v] = to[v] * c[w];
  }
  for (int64_t w = -kReach; w < 0; ++w)
    for (int v = 0; v < kL; ++v) row[w * kL + v] = T(0);
  for (int64_t w = s.width; w < strips(s) * kStrip + kReach; ++w)
    for (int v = 0; v < kL; ++v) row[w * kL + v] = T(0);
}

// A row of values, and the three taps of one dilation that it passes.
template <typename T>
struct TappedRow {
  const T* values;
  const T* taps;
  int number;  // of the dilation
};
template <typename T>
struct TappedRows {
  TappedRow<T> rows[kMostRows];
  int count = 0;
  const T* middle;       // the token's own row
  const T* middle_taps;  // its seven

  MMSSM_MEMBER void add(const T* values, const T* taps, int number) {
    rows[count++] = {values, taps, number};
  }
};

// The rows whose values the tokens of `row` sum.
template <typename T>
static TappedRows<T> rows_around(const Ring<T>& x, int64_t row, int64_t height,
                                 const T* taps) {
  TappedRows<T> around;
  for (int i = 0; i < kDilations; ++i) {
    const int d = dilation(i);
    around.add(x.row(clip(row - d, height)), taps + 3 * i * kL, i);
    around.add(x.row(clip(row + d, height)), taps + (16 + 3 * i) * kL, i);
  }
  around.middle = x.row(row);
  around.middle_taps = taps + 9 * kL;
  return around;
}

// The rows of gradients that come back to `row`, through mirrored taps: a row
// at the border was also read in place of those beyond it.
template <typename T>
static TappedRows<T> rows_back(const Ring<T>& grads, int64_t row,
                               int64_t height, const T* mirrored) {
  TappedRows<T> around;
  for (int i = 0; i < kDilations; ++i) {
    const int d = dilation(i);
    const T *above = mirrored + 3 * i * kL,
            *below = mirrored + (16 + 3 * i) * kL;
    if (row - d >= 0) around.add(grads.row(row - d), above, i);
    if (row + d < height) around.add(grads.row(row + d), below, i);
    for (int64_t r = 0; row == 0 && r < d && r < height; ++r)
      around.add(grads.row(r), below, i);
    for (int64_t r = clip(height - d, height); row == height - 1 && r < height;
         ++r)
      around.add(grads.row(r), above, i);
  }
  around.middle = grads.row(row);
  around.middle_taps = mirrored + 9 * kL;
  return around;
}

// sums[i] += the three taps of a strip's token i.
template <int kDilation, typename T>
static MMSSM_MEMBER void add_taps(const T* values, const T* taps,
                                  Pack<T>* sums) {
  typedef Pack<T> V;
  const V tap[3] = {V::load(taps), V::load(taps + kL), V::load(taps + 2 * kL)};
  visit_taps<kDilation>([&](int j)
                            MMSSM_LAMBDA { return V::load(values + j * kL); },
                        [&](int t, int i, const V& x)
                            MMSSM_LAMBDA { sums[i] = sums[i] + tap[t] * x; });
}

template <typename T>
static MMSSM_MEMBER void add_middle_taps(const T* values, const T* taps,
                                         Pack<T>* sums) {
  typedef Pack<T> V;
  V tap[7];
  for (int t = 0; t < 7; ++t) tap[t] = V::load(taps + t * kL);
  visit_middle_taps([&](int j)
                        MMSSM_LAMBDA { return V::load(values + j * kL); },
                    [&](int t, int i, const V& x)
                        MMSSM_LAMBDA { sums[i] = sums[i] + tap[t - 9] * x; });
}

// The sums of all taps for a strip that begins `at` elements into the rows, in
// the vector that begins with channel `lane`.
template <typename T>
static MMSSM_MEMBER void sum_strip(const TappedRows<T>& around, int64_t at,
                                   int lane, Pack<T>* sums) {
  at += lane;
  MMSSM_UNROLL_STRIP
  for (int i = 0; i < kStrip; ++i) sums[i] = Pack<T>(T(0));
  for (int r = 0; r < around.count; ++r) {
    const TappedRow<T>& row = around.rows[r];
    if (row.number == 0)
      add_taps<1>(row.values + at, row.taps + lane, sums);
    else if (row.number == 1)
      add_taps<3>(row.values + at, row.taps + lane, sums);
    else
      add_taps<5>(row.values + at, row.taps + lane, sums);
  }
  add_middle_taps(around.middle + at, around.middle_taps + lane, sums);
}

// The block's taps and rows of tokens beside the rings.
template <typename T>
struct FusionBlock {
  int64_t first;  // channel
  int lanes;      // channels
  Ring<T> x, grads;
  T *taps, *mirrored;  // (25, kL)
  T* d_taps;           // (25, kL)
  T *skip, *d_skip;    // (kL)
  T *u, *grad_y;       // (width, kL)
  T* products;         // (columns of all strips, kWidth)

  static int64_t products_size(const FusionSizes& s) {
    constexpr int64_t width = Pack<T>::kWidth;
    return (strips(s) * kStrip + width - 1) / width * width * width;
  }
  FusionBlock(const FusionArgs<T>& p, const FusionWork& work, Arena<T>& arena) {
    const FusionSizes& s = p.size;
    first = work.block * kL;
    lanes = s.channels - first < kL ? int(s.channels - first) : kL;
    const int64_t above = clip(work.first_row - kReach, s.height);
    const int64_t stride = row_elements(s);
    x = {arena.take(kRingRows * stride), stride, above};
    grads = {arena.take(kRingRows * stride), stride, above};
    taps = arena.take(kTaps * kL);
    mirrored = arena.take(kTaps * kL);
    d_taps = arena.take(kTaps * kL);
    skip = arena.take(kL);
    d_skip = arena.take(kL);
    u = arena.take(s.width * kL);
    grad_y = arena.take(s.width * kL);
    products = arena.take(products_size(s));
    if (arena.counts_only()) return;
    copy_taps(p.taps + first, s.channels, lanes, false, taps);
    if (p.d) copy_token(p.d + first, lanes, skip);
  }
};

// A row's tokens, dense.
template <typename T>
static void copy_tokens(const T* from, const FusionSizes& s, int lanes, T* to) {
  for (int64_t w = 0; w < s.width; ++w)
    copy_token(from + w * s.channels, lanes, to + w * kL);
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
