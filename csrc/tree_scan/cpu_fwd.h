// The tree scan's forward. Compiled once per instruction set
// (common/cpu_ops.h).
#pragma once

#include "cpu_rows.h"

namespace mmssm {
namespace MMSSM_SIMD {

// From the sums of subtrees to the states, in place, and to the result, whose
// first channel of the block and first token is at `out`.
template <typename T>
static void descend(const TreeArgs<T>& p, const Block& block, const T* w,
                    T* rows, T* out) {
  typedef Pack<T> V;
  constexpr int packs = Shape<T>::kPacks, width = V::kWidth;
  V before[packs];  // the state of the step before
  for (int64_t t = 0; t < p.scan.size.seq_len; ++t) {
    const int64_t parent = p.parent[t];
    T* row = rows + t * kLanes;
    T* to = out + p.scan.route[t] * p.scan.size.channels;
    const bool near = parent == t - 1, whole = block.width == kLanes;
    for (int q = 0; q < packs; ++q) {
      const V below = V::load(row + q * width);
      if (t == 0) {
        before[q] = below;
      } else {
        const V state =
            near ? before[q] : V::load(rows + parent * kLanes + q * width);
        before[q] =
            tree_state(V::load(w + t * kLanes + q * width), below, state);
      }
      before[q].store(row + q * width);
      if (whole) before[q].store(to + q * width);
    }
    for (int v = 0; v < (whole ? 0 : block.width); ++v) to[v] = row[v];
  }
}

template <typename T>
static int64_t tree_fwd(const TreeArgs<T>& p, T* out, const ScanWork& work,
                        T* scratch) {
  const int64_t size = p.scan.size.seq_len * kLanes;
  Arena<T> arena(scratch);
  Chunk<T> chunk(p.scan, work, arena);
  T *w = arena.take(size), *rows = arena.take(size);
  if (arena.counts_only()) return arena.size();
  chunk.start(0);
  for (chunk.batch = work.first_batch; chunk.batch < work.last_batch;
       ++chunk.batch)
    for (int64_t i = work.first_block; i < work.last_block; ++i) {
      fill_tree(chunk, i, w, rows);
      climb(p.parent, p.scan.size.seq_len, w, rows);
      descend(p, chunk.block, w, rows, out + chunk.output_at(0));
    }
  return arena.size();
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
