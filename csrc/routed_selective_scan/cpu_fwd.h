// The routed scan's forward. It takes a chunk of a route's steps at a time, for
// a block of channels: it reads the chunk, computes its step sizes and runs the
// recurrence. Compiled once per instruction set (common/cpu_ops.h).
#pragma once

#include "../common/arena.h"
#include "../common/simd.h"
#include "args.h"
#include "cpu_kernels.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Steps whose projections are computed side by side: as many sums as the
// vector registers hold.
constexpr int kMaxRows = 8;

template <typename T>
struct Shape {
  static constexpr int kWidth = Pack<T>::kWidth;
  static constexpr int kPacks = kLanes / kWidth;  // per block
  // AVX-512 has 32 registers of 64 bytes, the others 16.
  static constexpr int kSums = MMSSM_VECTOR_BYTES == 64 ? 24 : 8;
  static constexpr int kMost =
      kSums / kPacks < kMaxRows ? kSums / kPacks : kMaxRows;
  static constexpr int kRows = kMost < 1 ? 1 : kMost;
};

template <typename T>
static void fill_zero(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = T(0);
}

template <typename T>
MMSSM_INLINE void copy_some(T* __restrict to, const T* from, int count) {
  for (int v = 0; v < kLanes; ++v) to[v] = v < count ? from[v] : T(0);
}

// Adds a row of a block; a narrower block's row ends early.
template <typename T>
MMSSM_INLINE void add_row(T* to, const T* __restrict from, int width) {
  if (width == kLanes) {
    for (int v = 0; v < kLanes; ++v) to[v] += from[v];
  } else {
    for (int v = 0; v < width; ++v) to[v] += from[v];
  }
}

// Columns: from (width, count) row-major to (count, kLanes), zero-padded.
template <typename T>
static void load_columns(T* __restrict to, const T* from, int64_t count,
                         int width) {
  if (width != kLanes) fill_zero(to, count * kLanes);
  for (int v = 0; v < width; ++v)
    for (int64_t n = 0; n < count; ++n)
      to[n * kLanes + v] = from[v * count + n];
}

template <typename T>
static void store_columns(T* to, const T* __restrict from, int64_t count,
                          int width) {
  for (int v = 0; v < width; ++v)
    for (int64_t n = 0; n < count; ++n)
      to[v * count + n] = from[n * kLanes + v];
}

// A block of up to kLanes neighboring channels within one group.
struct Block {
  int64_t group, first;
  int width;
  Block() = default;
  Block(const ScanSizes& s, int64_t index) {
    const int64_t per_group = blocks_per_group(s), size = s.channels / s.groups;
    group = index / per_group;
    const int64_t inside = (index % per_group) * kLanes;
    first = group * size + inside;
    width = size - inside < kLanes ? int(size - inside) : kLanes;
  }
};

// Tokens of one route as a block of channels sees them: rows of kLanes numbers,
// zeros for a zero token and beyond a narrow block.
template <typename T>
struct Rows {
  const T* row[kChunk];
  T* padded;

  explicit Rows(Arena<T>& arena) : padded(arena.take(kChunk * kLanes)) {}
  void set(int i, const T* from, int width, const T* zeros) {
    if (from != nullptr && width != kLanes) {
      copy_some(padded + i * kLanes, from, width);
      from = padded + i * kLanes;
    }
    row[i] = from == nullptr ? zeros : from;
  }
};

// A chunk of a route for the channel blocks of one piece of work, one of which
// is selected at a time: a token's row is used whole while it is near.
template <typename T>
struct Chunk {
  const ScanArgs<T>& p;
  const ScanWork& work;
  int64_t route = 0, batch = 0;
  int count = 0;                   // steps in the chunk
  int64_t token[kChunk];           // -1 is a zero token
  const T* dt[kChunk + kMaxRows];  // the token's row
  Block block;                     // the selected one, and what follows of it
  int64_t group;
  int64_t output_base, output_stride;  // of token 0, per token
  Rows<T> x;
  T *a, *weight, *bias, *skip;  // (N, lanes), (rank, lanes), (lanes)
  T *b, *c;                     // (N, kChunk)
  T *raw, *delta;               // (kChunk, lanes)
  T *constants, *zeros;

  static int64_t constants_size(const ScanSizes& s) {
    return kLanes * (s.d_state + s.dt_rank + 2);
  }
  static int64_t zeros_size(const ScanSizes& s) {
    return s.d_state + s.dt_rank + kLanes;
  }
  Chunk(const ScanArgs<T>& args, const ScanWork& what, Arena<T>& arena)
      : p(args), work(what), x(arena) {
    const ScanSizes& s = p.size;
    constants = arena.take(work.blocks() * constants_size(s));
    zeros = arena.take(zeros_size(s));
    b = arena.take(s.d_state * kChunk);
    c = arena.take(s.d_state * kChunk);
    raw = arena.take((kChunk + kMaxRows) * kLanes);
    delta = arena.take(kChunk * kLanes);
    if (!arena.counts_only()) fill_zero(zeros, zeros_size(s));
    output_stride =
        p.output == ScanOutput::kStates ? s.channels * s.d_state : s.channels;
  }

  // Where a piece of scratch with `size` numbers a block has the selected one.
  T* of_block(T* scratch, int64_t size, int64_t index) const {
    return scratch + (index - work.first_block) * size;
  }

  void start(int64_t k) {
    const ScanSizes& s = p.size;
    route = k;
    for (int64_t i = work.first_block; i < work.last_block; ++i) {
      point_at(i);
      const int64_t channel = k * s.channels + block.first;
      const int width = block.width;
      load_columns(a, p.a + channel * s.d_state, s.d_state, width);
      if (p.dt_weight)
        load_columns(weight, p.dt_weight + channel * s.dt_rank, s.dt_rank,
                     width);
      copy_some(bias, p.dt_bias ? p.dt_bias + channel : zeros, width);
      copy_some(skip, p.d ? p.d + channel : zeros, width);
    }
  }

  void point_at(int64_t index) {
    block = Block(p.size, index);
    a = of_block(constants, constants_size(p.size), index);
    weight = a + p.size.d_state * kLanes;
    bias = weight + p.size.dt_rank * kLanes;
    skip = bias + kLanes;
  }

  // Finds the tokens of the steps [number * kChunk, ...).
  void read(int64_t number) {
    const ScanSizes& s = p.size;
    const int64_t begin = number * kChunk;
    count = int(s.seq_len - begin < kChunk ? s.seq_len - begin : kChunk);
    const int32_t* tokens = p.route + route * s.seq_len + begin;
    const T* base = p.dt.at(batch, 0, route);
    for (int i = 0; i < count; ++i) {
      token[i] = tokens[i];
      dt[i] = tokens[i] < 0 ? zeros : base + tokens[i] * p.dt.token;
    }
    for (int i = count; i < count + kMaxRows; ++i) dt[i] = zeros;
    group = -1;
  }

  void select(int64_t index) {
    const ScanSizes& s = p.size;
    point_at(index);
    output_base = output_offset(p, batch, route, 0, block.first);
    const T* base = p.x + batch * s.length * s.channels + block.first;
    for (int i = 0; i < count; ++i)
      x.set(i, token[i] < 0 ? nullptr : base + token[i] * s.channels,
            block.width, zeros);
    if (group == block.group) return;
    group = block.group;
    gather(b, p.b);
    if (p.output != ScanOutput::kStates) gather(c, p.c);
  }

  void gather(T* to, const TokenView<T>& view) {
    const T* base = view.at(batch, 0, route, group);
    for (int i = 0; i < count; ++i) {
      const T* from = token[i] < 0 ? zeros : base + token[i] * view.token;
      for (int64_t n = 0; n < p.size.d_state; ++n) to[n * kChunk + i] = from[n];
    }
  }

  // Where a map shaped like the output has token l.
  MMSSM_MEMBER int64_t output_at(int64_t l) const {
    return output_base + l * output_stride;
  }

  // raw: weight dt + bias, or dt + bias.
  void project() {
    if (!p.dt_weight) {
      for (int i = 0; i < count; ++i)
        for (int v = 0; v < kLanes; ++v)
          raw[i * kLanes + v] = bias[v] + (v < block.width && token[i] >= 0
                                               ? dt[i][block.first + v]
                                               : T(0));
      return;
    }
    constexpr int rows = Shape<T>::kRows;
    for (int i = 0; i < count; i += rows) project_rows<rows>(i);
  }

  template <int kCount>
  MMSSM_MEMBER void project_rows(int i) {
    typedef Pack<T> V;
    constexpr int packs = Shape<T>::kPacks, width = Shape<T>::kWidth;
    V sum[kCount][packs];
    for (int j = 0; j < kCount; ++j)
      for (int q = 0; q < packs; ++q) sum[j][q] = V::load(bias + q * width);
    for (int64_t r = 0; r < p.size.dt_rank; ++r) {
      V w[packs];
      for (int q = 0; q < packs; ++q)
        w[q] = V::load(weight + r * kLanes + q * width);
      for (int j = 0; j < kCount; ++j) {
        const V scale(dt[i + j][r]);
        for (int q = 0; q < packs; ++q) sum[j][q] = sum[j][q] + scale * w[q];
      }
    }
    for (int j = 0; j < kCount; ++j)
      for (int q = 0; q < packs; ++q)
        sum[j][q].store(raw + (i + j) * kLanes + q * width);
  }

  void steps_from_raw() {
    typedef Pack<T> V;
    for (int at = 0; at < count * kLanes; at += V::kWidth) {
      const V value = V::load(raw + at);
      (p.softplus ? softplus(value) : value).store(delta + at);
    }
  }
};

// Runs state n through a chunk. y (kChunk, lanes) gains C h; `kept`, if given,
// (kChunk, lanes), gets h itself.
template <typename T, bool kFirst>
MMSSM_INLINE void run_state(const Chunk<T>& chunk, int64_t n, T* h, T* y,
                            T* kept) {
  typedef Pack<T> V;
  const T *b = chunk.b + n * kChunk, *c = chunk.c + n * kChunk;
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    const V a = V::load(chunk.a + n * kLanes + lane);
    V state = V::load(h + n * kLanes + lane);
    for (int i = 0; i < chunk.count; ++i) {
      const int at = i * kLanes + lane;
      const V delta = V::load(chunk.delta + at);
      const V u = V::load(chunk.x.row[i] + lane);
      state = advance(decay(delta, a), state, delta, V(b[i]), u);
      if (kept) {
        state.store(kept + at);
        continue;
      }
      const V term = V(c[i]) * state;
      (kFirst ? term : V::load(y + at) + term).store(y + at);
    }
    state.store(h + n * kLanes + lane);
  }
}

template <typename T>
static void write_sums(const Chunk<T>& chunk, T* out, T* y) {
  typedef Pack<T> V;
  for (int i = 0; i < chunk.count; ++i) {
    const int64_t l = chunk.token[i];
    if (l < 0) continue;
    T *to = out + chunk.output_at(l), *row = y + i * kLanes;
    const bool whole = chunk.block.width == kLanes;
    for (int lane = 0; lane < kLanes; lane += V::kWidth) {
      V sum = V::load(row + lane) +
              V::load(chunk.skip + lane) * V::load(chunk.x.row[i] + lane);
      if (whole) sum = sum + V::load(to + lane);
      sum.store((whole ? to : row) + lane);
    }
    if (!whole) add_row(to, row, chunk.block.width);
  }
}

template <typename T>
static void write_state(const Chunk<T>& chunk, int64_t n, T* out,
                        const T* kept) {
  const int64_t d_state = chunk.p.size.d_state;
  for (int i = 0; i < chunk.count; ++i) {
    const int64_t l = chunk.token[i];
    if (l < 0) continue;
    T* to = out + chunk.output_at(l);
    for (int v = 0; v < chunk.block.width; ++v)
      to[v * d_state + n] += kept[i * kLanes + v];
  }
}

template <typename T>
static void save_checkpoint(const Chunk<T>& chunk, int64_t number, const T* h) {
  const ScanSizes& s = chunk.p.size;
  for (int64_t n = 0; n < s.d_state; ++n) {
    T* to =
        chunk.p.checkpoints + checkpoint_offset(s, chunk.batch, chunk.route,
                                                number, n, chunk.block.first);
    for (int v = 0; v < chunk.block.width; ++v) to[v] = h[n * kLanes + v];
  }
}

template <typename T>
static void fwd_chunk(Chunk<T>& chunk, T* out, T* h, T* y) {
  chunk.project();
  chunk.steps_from_raw();
  const int64_t d_state = chunk.p.size.d_state;
  if (chunk.p.output == ScanOutput::kStates) {
    for (int64_t n = 0; n < d_state; ++n) {
      run_state<T, true>(chunk, n, h, nullptr, y);
      write_state(chunk, n, out, y);
    }
    return;
  }
  run_state<T, true>(chunk, 0, h, y, nullptr);
  for (int64_t n = 1; n < d_state; ++n)
    run_state<T, false>(chunk, n, h, y, nullptr);
  write_sums(chunk, out, y);
}

template <typename T>
static int64_t scan_fwd(const ScanArgs<T>& p, T* out, const ScanWork& work,
                        T* scratch) {
  const int64_t row = p.size.d_state * kLanes;
  Arena<T> arena(scratch);
  Chunk<T> chunk(p, work, arena);
  T *states = arena.take(work.blocks() * row), *y = arena.take(kChunk * kLanes);
  if (arena.counts_only()) return arena.size();
  for (int64_t k = work.first_route; k < work.last_route; ++k) {
    chunk.start(k);
    for (chunk.batch = work.first_batch; chunk.batch < work.last_batch;
         ++chunk.batch) {
      fill_zero(states, work.blocks() * row);
      for (int64_t j = 0; j < checkpoint_count(p.size); ++j) {
        chunk.read(j);
        for (int64_t i = work.first_block; i < work.last_block; ++i) {
          T* h = chunk.of_block(states, row, i);
          chunk.select(i);
          if (p.checkpoints) save_checkpoint(chunk, j, h);
          fwd_chunk(chunk, out, h, y);
        }
      }
    }
  }
  return arena.size();
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
