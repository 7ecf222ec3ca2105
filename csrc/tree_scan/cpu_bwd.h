// The tree scan's backward, and the table of its kernels. Compiled once per
// instruction set (common/cpu_ops.h).
//
// The scan is its own transpose: its gradients go through the same two passes,
// beside the values, which are computed again. Then each step's gradients are
// local, and what remains is the routed scan's.
#pragma once

#include "../routed_selective_scan/cpu_bwd.h"
#include "cpu_fwd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// The gradients of the states, in the order of the steps.
template <typename T>
static void load_tree_grads(const Chunk<T>& chunk, const T* from, T* rows) {
  const ScanSizes& s = chunk.p.size;
  for (int64_t t = 0; t < s.seq_len; ++t)
    copy_some(rows + t * kLanes, from + chunk.p.route[t] * s.channels,
              chunk.block.width);
}

// From the sums of subtrees, of values and of gradients, to the gradients of
// values and, in place of the transitions, those of their exponents.
template <typename T>
static void descend_both(const int32_t* parents, int64_t seq_len, T* w, T* rows,
                         T* grads) {
  typedef Pack<T> V;
  fill_zero(w, kLanes);  // the root has no edge
  for (int64_t t = 1; t < seq_len; ++t) {
    const int64_t at = t * kLanes, parent = parents[t] * int64_t(kLanes);
    for (int lane = 0; lane < kLanes; lane += V::kWidth) {
      V state = V::load(rows + at + lane), grad = V::load(grads + at + lane);
      tree_state_bwd(V::load(w + at + lane), state,
                     V::load(rows + parent + lane), grad,
                     V::load(grads + parent + lane))
          .store(w + at + lane);
      state.store(rows + at + lane);
      grad.store(grads + at + lane);
    }
  }
}

// The gradients of the chunk's steps, of which `through` and `grads` have the
// rows. B's are left in tape.sums_b.
template <typename T>
static void chunk_bwd(const Chunk<T>& chunk, Tape<T>& tape, const T* through,
                      const T* grads) {
  typedef Pack<T> V;
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    const V a = V::load(chunk.a + lane);
    V d_a = V::load(tape.d_a + lane);
    for (int i = 0; i < chunk.count; ++i) {
      const int at = i * kLanes + lane;
      const V delta = V::load(chunk.delta + at);
      V d_u = V::load(tape.d_u + at), d_delta = V::load(tape.d_delta + at), d_b;
      decay_bwd(V::load(through + at), delta, a, d_a, d_delta);
      value_bwd(V::load(grads + at), delta, V(chunk.b[i]),
                V::load(chunk.x.row[i] + lane), d_b, d_u, d_delta);
      d_u.store(tape.d_u + at);
      d_delta.store(tape.d_delta + at);
      if (lane) d_b = d_b + V::load(tape.parts_b + i * V::kWidth);
      d_b.store(tape.parts_b + i * V::kWidth);
    }
    d_a.store(tape.d_a + lane);
  }
  sum_rows(tape.sums_b, tape.parts_b, chunk.count);
}

// One block of channels of one batch item.
template <typename T>
static void bwd_block(const TreeArgs<T>& p, Chunk<T>& chunk,
                      const ScanGrads<T>& g, Tape<T>& tape, int64_t block,
                      int64_t part, T* w, T* rows, T* grads) {
  const ScanSizes& s = p.scan.size;
  fill_tree(chunk, block, w, rows);
  load_tree_grads(chunk, g.out + chunk.output_at(0), grads);
  climb(p.parent, s.seq_len, w, rows);
  climb(p.parent, s.seq_len, w, grads);
  descend_both(p.parent, s.seq_len, w, rows, grads);
  T* d_b = g.b + (part * s.batch + chunk.batch) * s.length;
  tape.point_at(chunk, block);
  for (int64_t j = 0; j < checkpoint_count(s); ++j) {
    chunk.read(j);
    chunk.select(block);
    open_chunk(chunk, g, tape);
    const int64_t first = j * kChunk * kLanes;
    chunk_bwd(chunk, tape, w + first, grads + first);
    for (int i = 0; i < chunk.count; ++i) d_b[chunk.token[i]] += tape.sums_b[i];
    close_chunk(chunk, g, tape, part);
  }
}

template <typename T>
static int64_t tree_bwd(const TreeArgs<T>& p, const ScanGrads<T>& g,
                        const ScanWork& work, int64_t batch_part, int64_t part,
                        T* scratch) {
  const int64_t size = p.scan.size.seq_len * kLanes;
  Arena<T> arena(scratch);
  Chunk<T> chunk(p.scan, work, arena);
  Tape<T> tape(p.scan.size, work.blocks(), arena);
  T *w = arena.take(size), *rows = arena.take(size), *grads = arena.take(size);
  if (arena.counts_only()) return arena.size();
  chunk.start(0);
  tape.start(chunk);
  for (chunk.batch = work.first_batch; chunk.batch < work.last_batch;
       ++chunk.batch)
    for (int64_t i = work.first_block; i < work.last_block; ++i)
      bwd_block(p, chunk, g, tape, i, part, w, rows, grads);
  for (int64_t i = work.first_block; i < work.last_block; ++i) {
    chunk.point_at(i);
    tape.point_at(chunk, i);
    write_route_sums(chunk, g, tape, batch_part);
  }
  return arena.size();
}

template <typename T>
TreeKernels<T> tree_kernels() {
  return {tree_fwd<T>, tree_bwd<T>};
}
template TreeKernels<float> tree_kernels<float>();
template TreeKernels<double> tree_kernels<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
