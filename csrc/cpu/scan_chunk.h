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
  // AVX-512 has 32 registers of 64 bytes, the others 16.
  static constexpr int kSums = MMSSM_VECTOR_BYTES == 64 ? 16 : 8;
  static constexpr int kRows = kPacks >= kSums ? 1 : kSums / kPacks;
};

// Hands out scratch memory. What it hands out starts a cache line: a vector
// across two lines costs twice.
template <typename T>
struct Arena {
  static constexpr int64_t kLine = 64 / sizeof(T);
  T* next;
  explicit Arena(T* scratch)
      : next(scratch +
             (kLine - int64_t(uintptr_t(scratch) / sizeof(T)) % kLine) %
                 kLine) {}
  T* take(int64_t count) {
    T* start = next;
    next += (count + kLine - 1) / kLine * kLine;
    return start;
  }
  // What rounding up may cost: a line for the start and for each piece.
  static int64_t slack(int pieces) { return (pieces + 1) * kLine; }
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
static void add_columns(T* __restrict to, const T* from, int64_t count,
                        int width) {
  for (int v = 0; v < width; ++v)
    for (int64_t n = 0; n < count; ++n)
      to[v * count + n] += from[n * kLanes + v];
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
  const T *x_base, *dt_base, *b_base, *c_base;  // of token 0
  int64_t output_base, output_stride;           // per token
  const T* dt[kChunk + kMaxRows];
  T *a, *weight, *bias, *skip, *zeros;  // (N, lanes), (rank, lanes), (lanes)
  T *b, *c;                             // (N, kChunk)
  T *raw, *delta;                       // (kChunk, lanes)

  static int64_t size(const ScanSizes& s) {
    return kLanes * (s.states + s.rank + 2) + longest_row(s) +
           2 * kChunk * s.states + Rows<T>::size() +
           (2 * kChunk + kMaxRows) * kLanes + Arena<T>::slack(10);
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
    x_base = p.x + batch * s.tokens * s.channels + block.first;
    dt_base = p.dt.at(batch, 0, k) + (p.dt_weight ? 0 : block.first);
    b_base = p.b.at(batch, 0, k, block.group);
    c_base = p.c.data ? p.c.at(batch, 0, k, block.group) : nullptr;
    output_base = output_offset(p, batch, k, 0, block.first);
    output_stride =
        p.output == ScanOutput::kStates ? s.channels * s.states : s.channels;
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
      x.set(i, l < 0 ? nullptr : x_base + l * s.channels, block.width, zeros);
      dt[i] = l < 0 ? zeros : dt_base + l * p.dt.token;
      gather_states(b, l < 0 ? zeros : b_base + l * p.b.token, i);
      if (c_base) gather_states(c, l < 0 ? zeros : c_base + l * p.c.token, i);
    }
    for (int i = count; i < count + kMaxRows; ++i) dt[i] = zeros;
  }

  // Routes jump, so the processor cannot guess what the next chunk reads.
  void prefetch(int64_t number, const T* map) const {
    const ScanSizes& s = p.size;
    const int64_t begin = number * kChunk;
    if (begin < 0 || begin >= s.steps) return;
    const int64_t end = begin + kChunk < s.steps ? begin + kChunk : s.steps;
    for (int64_t t = begin; t < end; ++t) {
      const int64_t l = p.route[route * s.steps + t];
      if (l < 0) continue;
      prefetch_row(x_base + l * s.channels, block.width);
      prefetch_row(map + output_at(l), block.width);
      prefetch_row(dt_base + l * p.dt.token, 1);
    }
  }

  MMSSM_MEMBER void gather_states(T* to, const T* from, int i) {
    for (int64_t n = 0; n < p.size.states; ++n) to[n * kChunk + i] = from[n];
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
