// The routed scan's backward, and the table of its kernels. Compiled once per
// instruction set (common/cpu_ops.h).
//
// Chunks are taken from the last to the first. Each starts again from its
// checkpoint, one state at a time, and is then run backwards; everything but
// the two runs is a long loop over the chunk.
#pragma once

#include "../common/simd.h"
#include "cpu_fwd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// sums[i] = sum of row i of `rows` (kChunk, kWidth); rows from `count` on are
// anything.
template <typename T>
static void sum_rows(T* sums, const T* rows, int count) {
  typedef Pack<T> V;
  for (int i = 0; i < count; i += V::kWidth) {
    sum_rows(rows + i * V::kWidth).store(sums + i);
  }
}

// What backward keeps of a chunk and adds up over a route.
template <typename T>
struct Tape {
  Rows<T> grad_y;            // dLoss/dy, row by row
  T *slope, *d_u, *d_delta;  // (kChunk, lanes)
  T *decays, *states;        // (kChunk, kWidth), one state's
  T *parts_b, *parts_c;      // (kChunk, kWidth), sums over packs
  T *sums_b, *sums_c;        // (N, kChunk)
  T* d_dt;                   // (kMaxRows, padded rank)
  T* sums;                   // what follows, of all blocks
  // Of the selected block:
  T *grad_h, *d_a;     // (N, lanes)
  T* d_weight;         // (rank, lanes)
  T *d_bias, *d_skip;  // (lanes)
  T* weight_rows;      // (lanes, padded rank)
  int64_t padded_rank, sums_size;

  static int64_t pad(int64_t dt_rank) {
    return (dt_rank + Pack<T>::kWidth - 1) / Pack<T>::kWidth * Pack<T>::kWidth;
  }
  static int64_t size_of_sums(const ScanSizes& s) {
    return (2 * s.d_state + s.dt_rank + 2 + pad(s.dt_rank)) * kLanes;
  }
  Tape(const ScanSizes& s, int64_t blocks, Arena<T>& arena)
      : grad_y(arena), padded_rank(pad(s.dt_rank)), sums_size(size_of_sums(s)) {
    slope = arena.take(kChunk * kLanes);
    d_u = arena.take(kChunk * kLanes);
    d_delta = arena.take((kChunk + kMaxRows) * kLanes);
    decays = arena.take(kChunk * Pack<T>::kWidth);
    states = arena.take(kChunk * Pack<T>::kWidth);
    parts_b = arena.take(kChunk * Pack<T>::kWidth);
    parts_c = arena.take(kChunk * Pack<T>::kWidth);
    sums_b = arena.take(s.d_state * kChunk);
    sums_c = arena.take(s.d_state * kChunk);
    d_dt = arena.take(kMaxRows * padded_rank);
    sums = arena.take(blocks * sums_size);
  }

  void point_at(const Chunk<T>& chunk, int64_t index) {
    const ScanSizes& s = chunk.p.size;
    grad_h = chunk.of_block(sums, sums_size, index);
    d_a = grad_h + s.d_state * kLanes;
    d_weight = d_a + s.d_state * kLanes;
    d_bias = d_weight + s.dt_rank * kLanes;
    d_skip = d_bias + kLanes;
    weight_rows = d_skip + kLanes;
  }

  void start(Chunk<T>& chunk) {
    const ScanSizes& s = chunk.p.size;
    for (int64_t i = chunk.work.first_block; i < chunk.work.last_block; ++i) {
      chunk.point_at(i);
      point_at(chunk, i);
      fill_zero(grad_h, weight_rows - grad_h);
      if (!s.dt_rank) continue;
      const int64_t row = chunk.route * s.channels + chunk.block.first;
      const T* from = chunk.p.dt_weight + row * s.dt_rank;
      fill_zero(weight_rows, kLanes * padded_rank);
      for (int v = 0; v < chunk.block.width; ++v)
        memcpy(weight_rows + v * padded_rank, from + v * s.dt_rank,
               s.dt_rank * sizeof(T));
    }
  }
};

// Step sizes and their slopes; the skip term's part of every gradient.
template <typename T>
static void open_chunk(Chunk<T>& chunk, const ScanGrads<T>& g, Tape<T>& tape) {
  typedef Pack<T> V;
  chunk.project();
  for (int at = 0; at < chunk.count * kLanes; at += V::kWidth) {
    const V raw = V::load(chunk.raw + at);
    V slope(1), delta = raw;
    if (chunk.p.softplus) delta = softplus_and_slope(raw, slope);
    delta.store(chunk.delta + at);
    slope.store(tape.slope + at);
    V(0).store(tape.d_delta + at);
  }
  const bool to_states = chunk.p.output == ScanOutput::kStates;
  for (int i = 0; i < chunk.count; ++i) {
    const int64_t l = chunk.token[i];
    const T* from = l < 0 ? nullptr : g.out + chunk.output_at(l);
    tape.grad_y.set(i, to_states ? nullptr : from, chunk.block.width,
                    chunk.zeros);
  }
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    const V skip = V::load(chunk.skip + lane);
    V d_skip = V::load(tape.d_skip + lane);
    for (int i = 0; i < chunk.count; ++i) {
      const V gy = V::load(tape.grad_y.row[i] + lane);
      (skip * gy).store(tape.d_u + i * kLanes + lane);
      d_skip = d_skip + gy * V::load(chunk.x.row[i] + lane);
    }
    d_skip.store(tape.d_skip + lane);
  }
}

// A pack of lanes of state n: its decays and states, from the checkpoint on.
template <typename T>
MMSSM_INLINE Pack<T> replay(const Chunk<T>& chunk, Tape<T>& tape, int64_t n,
                            int lane, int64_t number) {
  typedef Pack<T> V;
  const V a = V::load(chunk.a + n * kLanes + lane);
  T first[V::kWidth];
  const T* saved = chunk.p.checkpoints +
                   checkpoint_offset(chunk.p.size, chunk.batch, chunk.route,
                                     number, n, chunk.block.first + lane);
  for (int v = 0; v < V::kWidth; ++v)
    first[v] = lane + v < chunk.block.width ? saved[v] : T(0);
  V state = V::load(first);
  for (int i = 0; i < chunk.count; ++i) {
    const V delta = V::load(chunk.delta + i * kLanes + lane);
    const V u = V::load(chunk.x.row[i] + lane);
    const V w = decay(delta, a);
    state = advance(w, state, delta, V(chunk.b[n * kChunk + i]), u);
    w.store(tape.decays + i * V::kWidth);
    state.store(tape.states + i * V::kWidth);
  }
  return V::load(first);
}

// The same lanes backwards. Sums over channels are left in parts_b and parts_c.
template <typename T, bool kToStates>
MMSSM_INLINE void rewind(const Chunk<T>& chunk, const ScanGrads<T>& g,
                         Tape<T>& tape, int64_t n, int lane, Pack<T> first) {
  typedef Pack<T> V;
  const ScanSizes& s = chunk.p.size;
  const V a = V::load(chunk.a + n * kLanes + lane);
  const T *b = chunk.b + n * kChunk, *c = chunk.c + n * kChunk;
  V grad = V::load(tape.grad_h + n * kLanes + lane);
  V d_a = V::load(tape.d_a + n * kLanes + lane);
  for (int i = chunk.count - 1; i >= 0; --i) {
    const int at = i * kLanes + lane, near = i * V::kWidth;
    V part_c(0), part_b;
    if (kToStates) {
      T row[V::kWidth];
      const int64_t l = chunk.token[i];
      const T* from = g.out + chunk.output_at(l) + lane * s.d_state;
      for (int v = 0; v < V::kWidth; ++v)
        row[v] = l >= 0 && lane + v < chunk.block.width
                     ? from[v * s.d_state + n]
                     : T(0);
      grad = grad + V::load(row);
    } else {
      const V gy = V::load(tape.grad_y.row[i] + lane);
      grad = grad + V(c[i]) * gy;
      part_c = gy * V::load(tape.states + near);
    }
    const V before = i ? V::load(tape.states + near - V::kWidth) : first;
    V d_u = V::load(tape.d_u + at), d_delta = V::load(tape.d_delta + at);
    step_bwd(grad, V::load(tape.decays + near), before,
             V::load(chunk.delta + at), a, V(b[i]),
             V::load(chunk.x.row[i] + lane), d_a, part_b, d_u, d_delta);
    d_u.store(tape.d_u + at);
    d_delta.store(tape.d_delta + at);
    if (lane) {
      part_b = part_b + V::load(tape.parts_b + near);
      part_c = part_c + V::load(tape.parts_c + near);
    }
    part_b.store(tape.parts_b + near);
    part_c.store(tape.parts_c + near);
  }
  grad.store(tape.grad_h + n * kLanes + lane);
  d_a.store(tape.d_a + n * kLanes + lane);
}

template <typename T>
static void bwd_states(const Chunk<T>& chunk, const ScanGrads<T>& g,
                       Tape<T>& tape, int64_t number, int64_t part) {
  const ScanSizes& s = chunk.p.size;
  const bool to_states = chunk.p.output == ScanOutput::kStates;
  for (int64_t n = 0; n < s.d_state; ++n) {
    for (int lane = 0; lane < kLanes; lane += Pack<T>::kWidth) {
      const Pack<T> first = replay(chunk, tape, n, lane, number);
      if (to_states)
        rewind<T, true>(chunk, g, tape, n, lane, first);
      else
        rewind<T, false>(chunk, g, tape, n, lane, first);
    }
    sum_rows(tape.sums_b + n * kChunk, tape.parts_b, chunk.count);
    if (!to_states)
      sum_rows(tape.sums_c + n * kChunk, tape.parts_c, chunk.count);
  }
  const int64_t item = (part * s.batch + chunk.batch) * s.length;
  for (int i = 0; i < chunk.count; ++i) {
    if (chunk.token[i] < 0) continue;
    const int64_t token = (item + chunk.token[i]) * s.routes + chunk.route;
    const int64_t at = (token * s.groups + chunk.block.group) * s.d_state;
    for (int64_t n = 0; n < s.d_state; ++n)
      g.b[at + n] += tape.sums_b[n * kChunk + i];
    for (int64_t n = 0; n < (to_states ? 0 : s.d_state); ++n)
      g.c[at + n] += tape.sums_c[n * kChunk + i];
  }
}

// d_delta becomes the gradient before softplus; the bias gains it.
template <typename T>
static void pass_softplus(const Chunk<T>& chunk, Tape<T>& tape) {
  typedef Pack<T> V;
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    V d_bias = V::load(tape.d_bias + lane);
    for (int i = 0; i < chunk.count; ++i) {
      const int at = i * kLanes + lane;
      const V d_raw = V::load(tape.d_delta + at) * V::load(tape.slope + at);
      d_raw.store(tape.d_delta + at);
      d_bias = d_bias + d_raw;
    }
    d_bias.store(tape.d_bias + lane);
  }
}

// d_weight[r] += sum over steps of dt[r] d_raw, kCount rows r at a time.
template <typename T, int kCount>
MMSSM_INLINE void add_weight_grad(const Chunk<T>& chunk, Tape<T>& tape,
                                  int64_t r) {
  typedef Pack<T> V;
  constexpr int packs = Shape<T>::kPacks, width = Shape<T>::kWidth;
  V sum[kCount][packs];
  for (int j = 0; j < kCount; ++j)
    for (int q = 0; q < packs; ++q)
      sum[j][q] = V::load(tape.d_weight + (r + j) * kLanes + q * width);
  for (int i = 0; i < chunk.count; ++i) {
    V d_raw[packs];
    for (int q = 0; q < packs; ++q)
      d_raw[q] = V::load(tape.d_delta + i * kLanes + q * width);
    for (int j = 0; j < kCount; ++j) {
      const V scale(chunk.dt[i][r + j]);
      for (int q = 0; q < packs; ++q) sum[j][q] = sum[j][q] + scale * d_raw[q];
    }
  }
  for (int j = 0; j < kCount; ++j)
    for (int q = 0; q < packs; ++q)
      sum[j][q].store(tape.d_weight + (r + j) * kLanes + q * width);
}

// All rows from r on: as many at a time as the registers hold, then fewer.
template <typename T, int kCount>
static void add_weight_grads(const Chunk<T>& chunk, Tape<T>& tape, int64_t r) {
  const int64_t dt_rank = chunk.p.size.dt_rank;
  for (; r + kCount <= dt_rank; r += kCount)
    add_weight_grad<T, kCount>(chunk, tape, r);
  if (kCount > 1 && r < dt_rank)
    add_weight_grads<T, (kCount > 1 ? kCount / 2 : 1)>(chunk, tape, r);
}

// d_raw weight for kMaxRows steps from i on and kCount vectors over the rank.
template <typename T, int kCount>
MMSSM_INLINE void multiply_rows(Tape<T>& tape, int i, int64_t r) {
  typedef Pack<T> V;
  V sum[kMaxRows][kCount];
  for (int j = 0; j < kMaxRows; ++j)
    for (int q = 0; q < kCount; ++q) sum[j][q] = V(0);
  for (int v = 0; v < kLanes; ++v) {
    const T* d_raw = tape.d_delta + i * kLanes + v;
    V w[kCount];
    for (int q = 0; q < kCount; ++q)
      w[q] =
          V::load(tape.weight_rows + v * tape.padded_rank + r + q * V::kWidth);
    for (int j = 0; j < kMaxRows; ++j) {
      const V scale(d_raw[j * kLanes]);
      for (int q = 0; q < kCount; ++q) sum[j][q] = sum[j][q] + scale * w[q];
    }
  }
  for (int j = 0; j < kMaxRows; ++j)
    for (int q = 0; q < kCount; ++q)
      sum[j][q].store(tape.d_dt + j * tape.padded_rank + r + q * V::kWidth);
}

template <typename T, int kCount>
static void multiply_all_rows(Tape<T>& tape, int i, int64_t r) {
  constexpr int width = kCount * Pack<T>::kWidth;
  for (; r + width <= tape.padded_rank; r += width)
    multiply_rows<T, kCount>(tape, i, r);
  if (kCount > 1 && r < tape.padded_rank)
    multiply_all_rows<T, (kCount > 1 ? kCount - 1 : 1)>(tape, i, r);
}

// d_dt = d_raw weight.
template <typename T>
static void add_rank_grads(const Chunk<T>& chunk, Tape<T>& tape, T* d_dt,
                           int64_t stride) {
  const int64_t dt_rank = chunk.p.size.dt_rank;
  for (int i = 0; i < chunk.count; i += kMaxRows) {
    multiply_all_rows<T, Shape<T>::kSums / kMaxRows>(tape, i, 0);
    for (int j = 0; j < kMaxRows && i + j < chunk.count; ++j) {
      if (chunk.token[i + j] < 0) continue;
      T* __restrict to = d_dt + chunk.token[i + j] * stride;
      const T* from = tape.d_dt + j * tape.padded_rank;
      for (int64_t r = 0; r < dt_rank; ++r) to[r] += from[r];
    }
  }
}

template <typename T>
static void close_chunk(const Chunk<T>& chunk, const ScanGrads<T>& g,
                        Tape<T>& tape, int64_t part) {
  const ScanSizes& s = chunk.p.size;
  pass_softplus(chunk, tape);
  const int64_t row = chunk.p.dt_weight ? s.dt_rank : s.channels;
  const int64_t item =
      chunk.p.dt_weight ? part * s.batch + chunk.batch : chunk.batch;
  T* d_dt = g.dt + (item * s.length * s.routes + chunk.route) * row;
  if (chunk.p.dt_weight) {
    add_weight_grads<T, Shape<T>::kRows>(chunk, tape, 0);
    add_rank_grads(chunk, tape, d_dt, s.routes * row);
  }
  T* d_x = g.x + chunk.batch * s.length * s.channels + chunk.block.first;
  for (int i = 0; i < chunk.count; ++i) {
    const int64_t l = chunk.token[i];
    if (l < 0) continue;
    add_row(d_x + l * s.channels, tape.d_u + i * kLanes, chunk.block.width);
    if (!chunk.p.dt_weight)
      add_row(d_dt + l * s.routes * row + chunk.block.first,
              tape.d_delta + i * kLanes, chunk.block.width);
  }
}

// The sums over a route and a part of the batch.
template <typename T>
static void write_route_sums(const Chunk<T>& chunk, const ScanGrads<T>& g,
                             const Tape<T>& tape, int64_t batch_part) {
  const ScanSizes& s = chunk.p.size;
  const int64_t at =
      (batch_part * s.routes + chunk.route) * s.channels + chunk.block.first;
  const auto store = [&](T* to, const T* from, int64_t count) {
    if (to) store_columns(to + at * count, from, count, chunk.block.width);
  };
  store(g.a, tape.d_a, s.d_state);
  store(g.dt_weight, tape.d_weight, s.dt_rank);
  store(g.dt_bias, tape.d_bias, 1);
  store(g.d, tape.d_skip, 1);
}

template <typename T>
static void bwd_route(Chunk<T>& chunk, const ScanGrads<T>& g, Tape<T>& tape,
                      int64_t part) {
  const ScanWork& work = chunk.work;
  for (int64_t j = checkpoint_count(chunk.p.size) - 1; j >= 0; --j) {
    chunk.read(j);
    for (int64_t i = work.first_block; i < work.last_block; ++i) {
      chunk.select(i);
      tape.point_at(chunk, i);
      open_chunk(chunk, g, tape);
      bwd_states(chunk, g, tape, j, part);
      close_chunk(chunk, g, tape, part);
    }
  }
}

template <typename T>
static int64_t scan_bwd(const ScanArgs<T>& p, const ScanGrads<T>& g,
                        const ScanWork& work, int64_t batch_part, int64_t part,
                        T* scratch) {
  Arena<T> arena(scratch);
  Chunk<T> chunk(p, work, arena);
  Tape<T> tape(p.size, work.blocks(), arena);
  if (arena.counts_only()) return arena.size();
  for (int64_t k = work.first_route; k < work.last_route; ++k) {
    chunk.start(k);
    tape.start(chunk);
    for (chunk.batch = work.first_batch; chunk.batch < work.last_batch;
         ++chunk.batch) {
      for (int64_t i = work.first_block; i < work.last_block; ++i) {
        tape.point_at(chunk, i);
        fill_zero(tape.grad_h, p.size.d_state * kLanes);
      }
      bwd_route(chunk, g, tape, part);
    }
    for (int64_t i = work.first_block; i < work.last_block; ++i) {
      chunk.point_at(i);
      tape.point_at(chunk, i);
      write_route_sums(chunk, g, tape, batch_part);
    }
  }
  return arena.size();
}

template <typename T>
ScanKernels<T> scan_kernels() {
  return {scan_fwd<T>, scan_bwd<T>};
}
template ScanKernels<float> scan_kernels<float>();
template ScanKernels<double> scan_kernels<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
