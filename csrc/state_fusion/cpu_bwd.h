// The state fusion's backward, and the table of its kernels. Compiled once per
// instruction set (common/cpu_ops.h).
#pragma once

#include "../common/simd.h"
#include "cpu_fwd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// What comes back to the first or the last column from tokens that read it in
// place of columns beyond it.
template <typename T>
static Pack<T> from_beyond(const TappedRows<T>& back, int64_t width, bool first,
                           int lane) {
  typedef Pack<T> V;
  V sum(T(0));
  const auto add = [&](const T* values, const T* tap, int d) {
    V part(T(0));
    for (int64_t w = 0; w < d && w < width; ++w)
      part = part + V::load(values + (first ? w : width - 1 - w) * kL + lane);
    sum = sum + V::load(tap + lane) * part;
  };
  for (int r = 0; r < back.count; ++r) {
    const TappedRow<T>& row = back.rows[r];
    add(row.values, row.taps + (first ? 2 * kL : 0), dilation(row.number));
  }
  for (int i = 0; i < kDilations; ++i)
    add(back.middle, back.middle_taps + (first ? 4 + i : i) * kL, dilation(i));
  return sum;
}

// x's gradient in one row.
template <typename T>
static void bwd_map(const FusionSizes& s, const FusionBlock<T>& block,
                    int64_t row, T* d_x) {
  typedef Pack<T> V;
  const auto back = rows_back(block.grads, row, s.height, block.mirrored);
  for (int v = 0; v < block.lanes; v += V::kWidth) {
    T* to = d_x + block.first + v;
    const int lanes = block.lanes - v;
    for (int64_t column = 0; column < s.width; column += kStrip) {
      V sums[kStrip];
      sum_strip(back, column * kL, v, sums);
      MMSSM_UNROLL_STRIP
      for (int i = 0; i < kStrip; ++i)
        if (column + i < s.width)
          store_token(sums[i], lanes, to + (column + i) * s.channels);
    }
    for (int side = 0; side < 2; ++side) {
      const bool first = side == 0;
      T* edge = to + (first ? 0 : s.width - 1) * s.channels;
      T value[V::kWidth] = {};
      for (int i = 0; i < V::kWidth && i < lanes; ++i) value[i] = edge[i];
      store_token(V::load(value) + from_beyond(back, s.width, first, v), lanes,
                  edge);
    }
  }
}

// The gradients of the taps of dilation d in the rows above and below: sums
// over a row of tokens. Even and odd tokens apart, for more sums at a time.
template <int kDilation, typename T>
static void add_tap_grads(const T* above, const T* below, const T* grads,
                          int64_t count, T* d_above, T* d_below) {
  typedef Pack<T> V;
  V sums[2][3][2];
  for (int t = 0; t < 3; ++t)
    for (int parity = 0; parity < 2; ++parity)
      sums[0][t][parity] = sums[1][t][parity] = V(T(0));
  for (int64_t at = 0; at < count * kStrip * kL; at += kStrip * kL) {
    V g[kStrip];
    MMSSM_UNROLL_STRIP
    for (int i = 0; i < kStrip; ++i) g[i] = V::load(grads + at + i * kL);
    visit_taps<kDilation>(
        [&](int j) MMSSM_LAMBDA { return V::load(above + at + j * kL); },
        [&](int t, int i, const V& x)
            MMSSM_LAMBDA { sums[0][t][i % 2] = sums[0][t][i % 2] + g[i] * x; });
    visit_taps<kDilation>(
        [&](int j) MMSSM_LAMBDA { return V::load(below + at + j * kL); },
        [&](int t, int i, const V& x)
            MMSSM_LAMBDA { sums[1][t][i % 2] = sums[1][t][i % 2] + g[i] * x; });
  }
  for (int t = 0; t < 3; ++t) {
    T *to_above = d_above + t * kL, *to_below = d_below + t * kL;
    (V::load(to_above) + (sums[0][t][0] + sums[0][t][1])).store(to_above);
    (V::load(to_below) + (sums[1][t][0] + sums[1][t][1])).store(to_below);
  }
}

template <typename T>
static void add_middle_tap_grads(const T* values, const T* grads, int64_t count,
                                 T* d_taps) {
  typedef Pack<T> V;
  V sums[7];
  for (int t = 0; t < 7; ++t) sums[t] = V::load(d_taps + t * kL);
  for (int64_t at = 0; at < count * kStrip * kL; at += kStrip * kL) {
    V g[kStrip];
    MMSSM_UNROLL_STRIP
    for (int i = 0; i < kStrip; ++i) g[i] = V::load(grads + at + i * kL);
    visit_middle_taps(
        [&](int j) MMSSM_LAMBDA { return V::load(values + at + j * kL); },
        [&](int t, int i, const V& x)
            MMSSM_LAMBDA { sums[t - 9] = sums[t - 9] + g[i] * x; });
  }
  for (int t = 0; t < 7; ++t) sums[t].store(d_taps + t * kL);
}

// The taps' gradients from one row of tokens.
template <typename T>
static void bwd_taps(const FusionSizes& s, const FusionBlock<T>& block,
                     const TappedRows<T>& around, int64_t row) {
  const int64_t count = strips(s);
  for (int v = 0; v < block.lanes; v += Pack<T>::kWidth) {
    const T* grads = block.grads.row(row) + v;
    const auto add = [&](auto* add_one, int i) {
      add_one(around.rows[2 * i].values + v, around.rows[2 * i + 1].values + v,
              grads, count, block.d_taps + 3 * i * kL + v,
              block.d_taps + (16 + 3 * i) * kL + v);
    };
    add(&add_tap_grads<1, T>, 0);
    add(&add_tap_grads<3, T>, 1);
    add(&add_tap_grads<5, T>, 2);
    add_middle_tap_grads(around.middle + v, grads, count,
                         block.d_taps + 9 * kL + v);
  }
}

// The gradients of the read-out in one row: of c, d and u. The sums of taps
// are not kept from forward: they are as large as the map.
template <typename T>
static void bwd_readout(const FusionArgs<T>& p, const FusionGrads<T>& g,
                        const FusionWork& work, const FusionBlock<T>& block,
                        const TappedRows<T>& around, int64_t row) {
  typedef Pack<T> V;
  const FusionSizes& s = p.size;
  const int64_t token = s.at(work.batch, row, 0) + block.first;
  copy_tokens(g.out + token, s, block.lanes, block.grad_y);
  copy_tokens(p.u + token, s, block.lanes, block.u);
  for (int v = 0; v < block.lanes; v += V::kWidth) {
    V d_skip = V::load(block.d_skip + v);
    for (int64_t column = 0; column < s.width; column += kStrip) {
      V sums[kStrip];
      sum_strip(around, column * kL, v, sums);
      MMSSM_UNROLL_STRIP
      for (int i = 0; i < kStrip; ++i) {
        const int64_t w = column + i;
        if (w >= s.width) continue;
        const V y = V::load(block.grad_y + w * kL + v);
        store_token(y * V::load(block.skip + v), block.lanes - v,
                    g.u + token + w * s.channels + v);
        d_skip = d_skip + y * V::load(block.u + w * kL + v);
        T* product = block.products + w * V::kWidth;
        const V before = v == 0 ? V(T(0)) : V::load(product);
        (before + y * sums[i]).store(product);
      }
    }
    d_skip.store(block.d_skip + v);
  }
  // (channel blocks, B, H, W)
  T* d_c =
      g.c + ((work.block * s.batch + work.batch) * s.height + row) * s.width;
  for (int64_t w = 0; w < s.width; w += V::kWidth) {
    T sums[V::kWidth];
    sum_rows(block.products + w * V::kWidth).store(sums);
    for (int64_t i = 0; i < V::kWidth && w + i < s.width; ++i)
      d_c[w + i] = sums[i];
  }
}

template <typename T>
static int64_t fusion_bwd(const FusionArgs<T>& p, const FusionGrads<T>& g,
                          const FusionWork& work, T* scratch) {
  const FusionSizes& s = p.size;
  Arena<T> arena(scratch);
  FusionBlock<T> block(p, work, arena);
  if (arena.counts_only()) return arena.size();
  copy_taps(p.taps + block.first, s.channels, block.lanes, true,
            block.mirrored);
  for (int i = 0; i < kTaps * kL; ++i) block.d_taps[i] = T(0);
  for (int i = 0; i < kL; ++i) block.d_skip[i] = T(0);
  Ring<T>&x = block.x, &grads = block.grads;
  for (int64_t row = work.first_row; row < work.last_row; ++row) {
    for (; x.next <= clip(row + kReach, s.height); ++x.next, ++grads.next) {
      load_row(p, work, block.lanes, x.next, x.row(x.next));
      load_grad_row(p, g, work, block.lanes, grads.next, grads.row(grads.next));
    }
    const auto around = rows_around(x, row, s.height, block.taps);
    bwd_taps(s, block, around, row);
    bwd_map(s, block, row, g.x + s.at(work.batch, row, 0));
    if (p.c) bwd_readout(p, g, work, block, around, row);
  }
  for (int v = 0; v < block.lanes; ++v) {
    const int64_t channel = block.first + v;
    for (int tap = 0; tap < kTaps; ++tap)
      g.taps[tap * s.channels + channel] += block.d_taps[tap * kL + v];
    if (p.d) g.d[channel] += block.d_skip[v];
  }
  return arena.size();
}

template <typename T>
FusionKernels<T> fusion_kernels() {
  return {fusion_fwd<T>, fusion_bwd<T>};
}
template FusionKernels<float> fusion_kernels<float>();
template FusionKernels<double> fusion_kernels<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
