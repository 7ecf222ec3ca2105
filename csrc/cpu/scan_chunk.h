// A chunk of a route's steps for a block of channels: read, and its step sizes
// computed. Included once per instruction set (scan_loops.h).
#pragma once

#include "../common/recurrence.h"
#include "scan_kernels.h"
#include "simd.h"

namespace mmssm {
namespace MMSSM_SIMD {

// Steps whose projections are computed side by side: as many sums as the
// vector registers hold.
constexpr int kMaxRows = 8;

template <typename T>
struct Shape {
  static constexpr int kWidth = Pack<T>::kWidth;
  static constexpr int kPacks = kLanes / kWidth;  // per block
  static constexpr int kRows = kPacks >= 8 ? 1 : 8 / kPacks;
};

template <typename T>
struct Arena {
  T* next;
  T* take(int64_t count) {
    T* start = next;
    next += count;
    return start;
  }
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
static void load_columns(T* to, const T* from, int64_t count, int width) {
  for (int64_t n = 0; n < count; ++n)
    for (int v = 0; v < kLanes; ++v)
      to[n * kLanes + v] = v < width ? from[v * count + n] : T(0);
}

template <typename T>
static void add_columns(T* to, const T* from, int64_t count, int width) {
  for (int64_t n = 0; n < count; ++n)
    for (int v = 0; v < width; ++v) to[v * count + n] += from[n * kLanes + v];
}

// A block of up to kLanes neighbouring channels within one group.
struct Block {
  int64_t group, first;
  int width;
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
  const T* row[kChunk + kMaxRows];
  T* padded;

  explicit Rows(Arena<T>& arena) : padded(arena.take(kChunk * kLanes)) {}
  void set(int i, const T* from, int width, const T* zeros) {
    if (from != nullptr && width != kLanes) {
      copy_some(padded + i * kLanes, from, width);
      from = padded + i * kLanes;
    }
    row[i] = from == nullptr ? zeros : from;
  }
  static int64_t size() { return kChunk * kLanes; }
};

// One route's constants for one block, and the chunk of it that is worked on.
template <typename T>
struct Chunk {
  const ScanArgs<T>& p;
  const Block block;
  const int64_t batch;
  int64_t route = 0;
  int count = 0;          // steps in the chunk
  int64_t token[kChunk];  // -1 is a zero token
  Rows<T> x;
  const T* dt[kChunk + kMaxRows];
  T *a, *weight, *bias, *skip, *zeros;  // (N, lanes), (rank, lanes), (lanes)
  T *b, *c;                             // (N, kChunk)
  T *raw, *delta;                       // (kChunk, lanes)

  static int64_t size(const ScanSizes& s) {
    return kLanes * (s.states + s.rank + 2) + longest_row(s) +
           2 * kChunk * s.states + Rows<T>::size() +
           (2 * kChunk + kMaxRows) * kLanes;
  }
  static int64_t longest_row(const ScanSizes& s) {
    return s.states + s.rank + kLanes;
  }

  Chunk(const ScanArgs<T>& args, int64_t b_index, int64_t block_index,
        Arena<T>& arena)
      : p(args), block(args.size, block_index), batch(b_index), x(arena) {
    const ScanSizes& s = p.size;
    a = arena.take(s.states * kLanes);
    weight = arena.take(s.rank * kLanes);
    bias = arena.take(kLanes);
    skip = arena.take(kLanes);
    zeros = arena.take(longest_row(s));
    b = arena.take(s.states * kChunk);
    c = arena.take(s.states * kChunk);
    raw = arena.take((kChunk + kMaxRows) * kLanes);
    delta = arena.take(kChunk * kLanes);
    fill_zero(zeros, longest_row(s));
  }

  void start(int64_t k) {
    const ScanSizes& s = p.size;
    const int64_t channel = k * s.channels + block.first;
    route = k;
    load_columns(a, p.a + channel * s.states, s.states, block.width);
    if (p.dt_weight)
      load_columns(weight, p.dt_weight + channel * s.rank, s.rank, block.width);
    copy_some(bias, p.dt_bias ? p.dt_bias + channel : zeros, block.width);
    copy_some(skip, p.d ? p.d + channel : zeros, block.width);
  }

  // Finds the tokens of the steps [number * kChunk, ...) and gathers B and C.
  void read(int64_t number) {
    const ScanSizes& s = p.size;
    const int64_t begin = number * kChunk;
    count = int(s.steps - begin < kChunk ? s.steps - begin : kChunk);
    const int32_t* tokens = p.route + route * s.steps + begin;
    for (int i = 0; i < count; ++i) {
      const int64_t l = token[i] = tokens[i];
      const T* from = (batch * s.tokens + l) * s.channels + block.first + p.x;
      x.set(i, l < 0 ? nullptr : from, block.width, zeros);
      dt[i] = l < 0 ? zeros : p.dt.at(batch, l, route);
      if (l >= 0 && !p.dt_weight) dt[i] += block.first;
      gather_states(b, p.b, i, l);
      if (p.c.data) gather_states(c, p.c, i, l);
    }
    for (int i = count; i < count + kMaxRows; ++i) dt[i] = zeros;
  }

  void gather_states(T* to, const TokenView<T>& view, int i, int64_t l) {
    const T* from = l < 0 ? zeros : view.at(batch, l, route, block.group);
    for (int64_t n = 0; n < p.size.states; ++n) to[n * kChunk + i] = from[n];
  }

  // raw: weight dt + bias, or dt + bias.
  void project() {
    if (!p.dt_weight) {
      for (int i = 0; i < count; ++i)
        for (int v = 0; v < kLanes; ++v)
          raw[i * kLanes + v] =
              bias[v] + (v < block.width && token[i] >= 0 ? dt[i][v] : T(0));
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
    for (int64_t r = 0; r < p.size.rank; ++r) {
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

}  // namespace MMSSM_SIMD
}  // namespace mmssm
