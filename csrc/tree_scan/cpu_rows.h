// A tree's transitions and values for a block of channels, and the pass from
// the leaves to the root (common/cpu_ops.h).
//
// They are rows of scratch memory in the order of the steps, in which a chain
// of tokens without branches lies together: what goes along it stays in
// registers, and memory is only met where branches do.
#pragma once

#include "../routed_selective_scan/cpu_fwd.h"
#include "cpu_kernels.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Transitions and values of the chunk's steps, from `step` on.
template <typename T>
static void fill_tree_rows(Chunk<T>& chunk, int64_t step, T* w, T* values) {
  typedef Pack<T> V;
  chunk.project();
  chunk.steps_from_raw();
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    const V a = V::load(chunk.a + lane);
    for (int i = 0; i < chunk.count; ++i) {
      const int64_t at = (step + i) * kLanes + lane;
      const V delta = V::load(chunk.delta + i * kLanes + lane);
      const V u = V::load(chunk.x.row[i] + lane);
      decay(delta, a).store(w + at);
      tree_value(delta, V(chunk.b[i]), u).store(values + at);
    }
  }
}

// All of the tree's, for one block of channels.
template <typename T>
static void fill_tree(Chunk<T>& chunk, int64_t block, T* w, T* values) {
  for (int64_t j = 0; j < checkpoint_count(chunk.p.size); ++j) {
    chunk.read(j);
    chunk.select(block);
    fill_tree_rows(chunk, j * kChunk, w, values);
  }
}

// From values to the sums of subtrees, in place.
template <typename T>
static void climb(const int32_t* parent, int64_t seq_len, const T* w, T* rows) {
  typedef Pack<T> V;
  constexpr int packs = Shape<T>::kPacks, width = V::kWidth;
  V carry[packs];  // what comes from the step after
  for (int q = 0; q < packs; ++q) carry[q] = V(0);
  for (int64_t t = seq_len - 1; t > 0; --t) {
    const int64_t at = t * kLanes, to = parent[t] * int64_t(kLanes);
    for (int q = 0; q < packs; ++q) {
      const V sum = V::load(rows + at + q * width) + carry[q];
      sum.store(rows + at + q * width);
      carry[q] = V::load(w + at + q * width) * sum;
    }
    if (parent[t] == t - 1) continue;
    for (int q = 0; q < packs; ++q) {
      (V::load(rows + to + q * width) + carry[q]).store(rows + to + q * width);
      carry[q] = V(0);
    }
  }
  for (int q = 0; q < packs; ++q)
    (V::load(rows + q * width) + carry[q]).store(rows + q * width);
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
