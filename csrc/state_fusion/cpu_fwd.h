// The state fusion's forward. Compiled once per instruction set
// (common/cpu_ops.h).
#pragma once

#include "cpu_rows.h"

namespace mmssm {
namespace MMSSM_SIMD {

template <typename T>
static int64_t fusion_fwd(const FusionArgs<T>& p, T* out,
                          const FusionWork& work, T* scratch) {
  typedef Pack<T> V;
  const FusionSizes& s = p.size;
  Arena<T> arena(scratch);
  FusionBlock<T> block(p, work, arena);
  if (arena.counts_only()) return arena.size();
  Ring<T>& x = block.x;
  for (int64_t row = work.first_row; row < work.last_row; ++row) {
    for (; x.next <= clip(row + kReach, s.height); ++x.next)
      load_row(p, work, block.lanes, x.next, x.row(x.next));
    const int64_t token = s.at(work.batch, row, 0);
    const T* c = p.c ? p.c + token / s.channels : nullptr;
    if (c) copy_tokens(p.u + token + block.first, s, block.lanes, block.u);
    const auto around = rows_around(x, row, s.height, block.taps);
    for (int64_t column = 0; column < s.width; column += kStrip)
      for (int v = 0; v < block.lanes; v += V::kWidth) {
        V sums[kStrip];
        sum_strip(around, column * kL, v, sums);
        MMSSM_UNROLL_STRIP
        for (int i = 0; i < kStrip; ++i) {
          const int64_t w = column + i;
          if (w >= s.width) continue;
          if (c)
            sums[i] = V(c[w]) * sums[i] +
                      V::load(block.skip + v) * V::load(block.u + w * kL + v);
          store_token(sums[i], block.lanes - v,
                      out + token + w * s.channels + block.first + v);
        }
      }
  }
  return arena.size();
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
