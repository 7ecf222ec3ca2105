// The routed scan's forward. Compiled once per instruction set
// (common/cpu_ops.h).
#pragma once

#include "cpu_chunk.h"

namespace mmssm {
namespace MMSSM_SIMD {

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
  const int64_t states = chunk.p.size.d_state;
  for (int i = 0; i < chunk.count; ++i) {
    const int64_t l = chunk.token[i];
    if (l < 0) continue;
    T* to = out + chunk.output_at(l);
    for (int v = 0; v < chunk.block.width; ++v)
      to[v * states + n] += kept[i * kLanes + v];
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
  const int64_t states = chunk.p.size.d_state;
  if (chunk.p.output == ScanOutput::kStates) {
    for (int64_t n = 0; n < states; ++n) {
      run_state<T, true>(chunk, n, h, nullptr, y);
      write_state(chunk, n, out, y);
    }
    return;
  }
  run_state<T, true>(chunk, 0, h, y, nullptr);
  for (int64_t n = 1; n < states; ++n)
    run_state<T, false>(chunk, n, h, y, nullptr);
  write_sums(chunk, out, y);
}

// Scratch memory of one call.
template <typename T>
struct FwdMemory {
  Chunk<T> chunk;
  int64_t row;    // of states: (N, lanes)
  T *states, *y;  // (blocks, row), (kChunk, lanes)

  FwdMemory(const ScanArgs<T>& p, const ScanWork& work, Arena<T>& arena)
      : chunk(p, work, arena), row(p.size.d_state * kLanes) {
    states = arena.take(work.blocks() * row);
    y = arena.take(kChunk * kLanes);
  }
};

template <typename T>
static int64_t scan_fwd_scratch(const ScanArgs<T>& p, const ScanWork& work) {
  Arena<T> arena;
  const FwdMemory<T> memory(p, work, arena);
  return arena.size();
}

template <typename T>
static void scan_fwd(const ScanArgs<T>& p, T* out, const ScanWork& work,
                     T* scratch) {
  Arena<T> arena(scratch);
  FwdMemory<T> memory(p, work, arena);
  Chunk<T>& chunk = memory.chunk;
  for (int64_t k = work.first_route; k < work.last_route; ++k) {
    chunk.start(k);
    for (chunk.batch = work.first_batch; chunk.batch < work.last_batch;
         ++chunk.batch) {
      fill_zero(memory.states, work.blocks() * memory.row);
      for (int64_t j = 0; j < checkpoint_count(p.size); ++j) {
        chunk.read(j);
        for (int64_t i = work.first_block; i < work.last_block; ++i) {
          T* h = chunk.of_block(memory.states, memory.row, i);
          chunk.select(i);
          if (p.checkpoints) save_checkpoint(chunk, j, h);
          fwd_chunk(chunk, out, h, memory.y);
        }
      }
    }
  }
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
