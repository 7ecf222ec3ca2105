// The routed scan on a CPU: sequential in time, vectorised over channels.
//
// Included once per instruction set, inside a file that has set the compiler's
// target and MMSSM_SIMD, the namespace. Nothing here may instantiate a standard
// template: its code would be shared with, and break, lesser processors.
#include "../common/recurrence.h"
#include "scan_kernels.h"

namespace mmssm {
namespace MMSSM_SIMD {

#define MMSSM_LANES(v) for (int v = 0; v < kLanes; ++v)

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

template <typename T>
MMSSM_INLINE void load(T* __restrict to, const T* from, int width) {
  if (width == kLanes) {
    MMSSM_LANES(v) to[v] = from[v];
  } else {
    MMSSM_LANES(v) to[v] = v < width ? from[v] : T(0);
  }
}

template <typename T>
MMSSM_INLINE void store_add(T* to, const T* __restrict from, int width) {
  if (width == kLanes) {
    MMSSM_LANES(v) to[v] += from[v];
  } else {
    for (int v = 0; v < width; ++v) to[v] += from[v];
  }
}

template <typename T>
MMSSM_INLINE T sum_lanes(const T* values) {
  T part[8] = {0};
  for (int v = 0; v < kLanes; v += 8)
    for (int j = 0; j < 8; ++j) part[j] += values[v + j];
  return ((part[0] + part[4]) + (part[1] + part[5])) +
         ((part[2] + part[6]) + (part[3] + part[7]));
}

// Copies columns: from (width, count) row-major to (count, kLanes),
// zero-padded.
template <typename T>
static void load_columns(T* to, const T* from, int64_t count, int width) {
  for (int64_t n = 0; n < count; ++n)
    MMSSM_LANES(v) to[n * kLanes + v] = v < width ? from[v * count + n] : T(0);
}

template <typename T>
static void store_columns(T* to, const T* from, int64_t count, int width) {
  for (int64_t n = 0; n < count; ++n)
    for (int v = 0; v < width; ++v) to[v * count + n] = from[n * kLanes + v];
}

// One route's constants for one block, and how to read its tokens.
template <typename T>
struct Lane {
  const ScanArgs<T>& p;
  const Block& block;
  int64_t batch, route;
  T *a, *weight, *bias, *skip, *zeros;

  Lane(const ScanArgs<T>& args, const Block& blk, int64_t b, Arena<T>& arena)
      : p(args), block(blk), batch(b), route(0) {
    const ScanSizes& s = p.size;
    a = arena.take(s.states * kLanes);
    weight = arena.take(s.rank * kLanes);
    bias = arena.take(kLanes);
    skip = arena.take(kLanes);
    const int64_t longest = s.states + s.rank + kLanes;
    zeros = arena.take(longest);
    fill_zero(zeros, longest);
  }

  void start(int64_t k) {
    const ScanSizes& s = p.size;
    const int64_t channel = k * s.channels + block.first;
    route = k;
    load_columns(a, p.a + channel * s.states, s.states, block.width);
    if (p.dt_weight)
      load_columns(weight, p.dt_weight + channel * s.rank, s.rank, block.width);
    fill_zero(bias, kLanes);
    fill_zero(skip, kLanes);
    if (p.dt_bias) load(bias, p.dt_bias + channel, block.width);
    if (p.d) load(skip, p.d + channel, block.width);
  }

  // The token at step t; -1 is a zero token.
  int64_t token(int64_t t) const { return p.route[route * p.size.steps + t]; }
  const T* b_at(int64_t l) const {
    return l < 0 ? zeros : p.b.at(batch, l, route, block.group);
  }
  const T* c_at(int64_t l) const {
    return l < 0 ? zeros : p.c.at(batch, l, route, block.group);
  }
  const T* dt_at(int64_t l) const {
    if (l < 0) return zeros;
    return p.dt.at(batch, l, route) + (p.dt_weight ? 0 : block.first);
  }

  MMSSM_MEMBER void read_input(T* __restrict u, int64_t l) const {
    const int64_t at = (batch * p.size.tokens + l) * p.size.channels;
    load(u, l < 0 ? zeros : p.x + at + block.first, block.width);
  }

  // Step sizes before softplus: weight dt + bias, or dt + bias.
  MMSSM_MEMBER void read_raw_step(T* __restrict raw, int64_t l) const {
    const T* dt = dt_at(l);
    if (p.dt_weight) {
      T sum[kLanes];
      MMSSM_LANES(v) sum[v] = bias[v];
      for (int64_t r = 0; r < p.size.rank; ++r) {
        const T scale = dt[r];
        const T* w = weight + r * kLanes;
        MMSSM_LANES(v) sum[v] += scale * w[v];
      }
      MMSSM_LANES(v) raw[v] = sum[v];
    } else {
      load(raw, dt, block.width);
      MMSSM_LANES(v) raw[v] += bias[v];
    }
  }
};

template <typename T>
MMSSM_INLINE void to_delta(T* delta, const T* raw, bool apply_softplus) {
  if (apply_softplus) {
    MMSSM_LANES(v) delta[v] = softplus(raw[v]);
  } else {
    MMSSM_LANES(v) delta[v] = raw[v];
  }
}

// N is the number of states when it is known at compile time, else 0.
template <typename T, int N>
static void forward_block(const ScanArgs<T>& p, T* out, const ScanWork& work,
                          T* scratch) {
  const ScanSizes& s = p.size;
  const int64_t states = N ? N : s.states;
  Arena<T> arena{scratch};
  const Block block(s, work.block);
  Lane<T> lane(p, block, work.batch, arena);
  T* __restrict h = arena.take(states * kLanes);
  T u[kLanes], delta[kLanes], y[kLanes];
  for (int64_t k = work.first_route; k < work.last_route; ++k) {
    lane.start(k);
    fill_zero(h, states * kLanes);
    for (int64_t t = 0; t < s.steps; ++t) {
      const int64_t l = lane.token(t);
      const T* b = lane.b_at(l);
      lane.read_input(u, l);
      lane.read_raw_step(delta, l);
      to_delta(delta, delta, p.softplus);
      for (int64_t n = 0; n < states; ++n) {
        T* __restrict hn = h + n * kLanes;
        const T* an = lane.a + n * kLanes;
        const T bn = b[n];
        MMSSM_LANES(v)
        hn[v] = advance(decay(delta[v], an[v]), hn[v], delta[v], bn, u[v]);
      }
      if (l < 0) continue;
      T* to = out + output_offset(p, work.batch, k, l, block.first);
      if (p.output == ScanOutput::kStates) {
        for (int64_t n = 0; n < states; ++n)
          for (int v = 0; v < block.width; ++v)
            to[v * states + n] += h[n * kLanes + v];
        continue;
      }
      const T* c = lane.c_at(l);
      MMSSM_LANES(v) y[v] = lane.skip[v] * u[v];
      for (int64_t n = 0; n < states; ++n) {
        const T cn = c[n];
        MMSSM_LANES(v) y[v] += cn * h[n * kLanes + v];
      }
      store_add(to, y, block.width);
    }
  }
}

// What backward recomputes of one chunk and what it adds up over a route.
template <typename T>
struct Tape {
  T *u, *raw, *delta, *decays, *states;  // per step of the chunk
  T* first;                              // the state at each chunk's start
  T *grad_h, *d_a, *d_weight, *d_bias, *d_skip;

  Tape(const ScanSizes& s, int64_t states_count, Arena<T>& arena) {
    const int64_t row = states_count * kLanes;
    u = arena.take(kChunk * kLanes);
    raw = arena.take(kChunk * kLanes);
    delta = arena.take(kChunk * kLanes);
    decays = arena.take(kChunk * row);
    states = arena.take((kChunk + 1) * row);
    first = arena.take((s.steps + kChunk - 1) / kChunk * row);
    grad_h = arena.take(row);
    d_a = arena.take(row);
    d_weight = arena.take(s.rank * kLanes);
    d_bias = arena.take(kLanes);
    d_skip = arena.take(kLanes);
  }
};

// Runs steps [begin, end) from the state at `begin`, keeping everything.
template <typename T, int N>
static void record_chunk(const Lane<T>& lane, Tape<T>& tape, int64_t begin,
                         int64_t end) {
  const int64_t states = N ? N : lane.p.size.states, row = states * kLanes;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = t - begin, l = lane.token(t);
    const T* b = lane.b_at(l);
    T* __restrict u = tape.u + i * kLanes;
    T* __restrict raw = tape.raw + i * kLanes;
    T* __restrict delta = tape.delta + i * kLanes;
    lane.read_input(u, l);
    lane.read_raw_step(raw, l);
    to_delta(delta, raw, lane.p.softplus);
    for (int64_t n = 0; n < states; ++n) {
      const T* an = lane.a + n * kLanes;
      const T* before = tape.states + i * row + n * kLanes;
      T* __restrict after = tape.states + (i + 1) * row + n * kLanes;
      T* __restrict w = tape.decays + i * row + n * kLanes;
      const T bn = b[n];
      MMSSM_LANES(v) {
        w[v] = decay(delta[v], an[v]);
        after[v] = advance(w[v], before[v], delta[v], bn, u[v]);
      }
    }
  }
}

// Gradient of the step sizes of one token: into dt, its weight and its bias.
template <typename T>
MMSSM_INLINE void spread_step_grad(const Lane<T>& lane, const ScanGrads<T>& g,
                                   Tape<T>& tape, const T* d_raw, int64_t l,
                                   int64_t part) {
  const ScanSizes& s = lane.p.size;
  MMSSM_LANES(v) tape.d_bias[v] += d_raw[v];
  if (l < 0) return;
  const int64_t at = (lane.batch * s.tokens + l) * s.routes + lane.route;
  if (!lane.p.dt_weight) {
    store_add(g.dt + at * s.channels + lane.block.first, d_raw,
              lane.block.width);
    return;
  }
  T* d_dt = g.dt + (part * s.batch * s.tokens * s.routes + at) * s.rank;
  const T* dt = lane.dt_at(l);
  for (int64_t r = 0; r < s.rank; ++r) {
    const T* w = lane.weight + r * kLanes;
    T* d_weight = tape.d_weight + r * kLanes;
    const T scale = dt[r];
    T product[kLanes];
    MMSSM_LANES(v) {
      d_weight[v] += scale * d_raw[v];
      product[v] = w[v] * d_raw[v];
    }
    d_dt[r] += sum_lanes(product);
  }
}

template <typename T, int N>
static void unwind_step(const Lane<T>& lane, const ScanGrads<T>& g,
                        Tape<T>& tape, int64_t i, int64_t l, int64_t part) {
  const ScanArgs<T>& p = lane.p;
  const ScanSizes& s = p.size;
  const Block& block = lane.block;
  const int64_t states = N ? N : s.states, row = states * kLanes;
  const bool to_states = p.output == ScanOutput::kStates;
  const T* u = tape.u + i * kLanes;
  const T* delta = tape.delta + i * kLanes;
  const T *b = lane.b_at(l), *c = to_states ? nullptr : lane.c_at(l);
  const int64_t tokens_at =
      ((part * s.batch + lane.batch) * s.tokens + l) * s.routes + lane.route;
  const int64_t states_at = (tokens_at * s.groups + block.group) * states;
  const T* from =
      l < 0 ? nullptr
            : g.out + output_offset(p, lane.batch, lane.route, l, block.first);
  T gy[kLanes], d_u[kLanes], d_delta[kLanes], product[kLanes];
  MMSSM_LANES(v) gy[v] = d_delta[v] = T(0);
  if (from && !to_states) load(gy, from, block.width);
  MMSSM_LANES(v) {
    d_u[v] = gy[v] * lane.skip[v];
    tape.d_skip[v] += gy[v] * u[v];
  }
  for (int64_t n = 0; n < states; ++n) {
    T* __restrict grad = tape.grad_h + n * kLanes;
    T* __restrict d_a = tape.d_a + n * kLanes;
    const T* before = tape.states + i * row + n * kLanes;
    const T* after = before + row;
    const T* w = tape.decays + i * row + n * kLanes;
    const T* an = lane.a + n * kLanes;
    const T bn = b[n];
    if (to_states) {
      if (from)
        for (int v = 0; v < block.width; ++v) grad[v] += from[v * states + n];
    } else {
      const T cn = c[n];
      MMSSM_LANES(v) {
        grad[v] += cn * gy[v];
        product[v] = gy[v] * after[v];
      }
      if (l >= 0) g.c[states_at + n] += sum_lanes(product);
    }
    MMSSM_LANES(v)
    retreat(grad[v], w[v], before[v], delta[v], an[v], bn, u[v], d_a[v],
            product[v], d_u[v], d_delta[v]);
    if (l >= 0) g.b[states_at + n] += sum_lanes(product);
  }
  if (p.softplus) {
    const T* raw = tape.raw + i * kLanes;
    MMSSM_LANES(v) d_delta[v] *= softplus_slope(raw[v]);
  }
  spread_step_grad(lane, g, tape, d_delta, l, part);
  if (l >= 0)
    store_add(g.x + (lane.batch * s.tokens + l) * s.channels + block.first, d_u,
              block.width);
}

template <typename T, int N>
static void backward_block(const ScanArgs<T>& p, const ScanGrads<T>& g,
                           int64_t batch, int64_t index, int64_t part,
                           T* scratch) {
  const ScanSizes& s = p.size;
  const int64_t states = N ? N : s.states, row = states * kLanes;
  Arena<T> arena{scratch};
  const Block block(s, index);
  Lane<T> lane(p, block, batch, arena);
  Tape<T> tape(s, states, arena);
  const int64_t chunks = (s.steps + kChunk - 1) / kChunk;
  for (int64_t k = 0; k < s.routes; ++k) {
    lane.start(k);
    fill_zero(tape.states, row);
    for (int64_t j = 0; j < chunks; ++j) {
      const int64_t begin = j * kChunk;
      const int64_t end = begin + kChunk < s.steps ? begin + kChunk : s.steps;
      for (int64_t v = 0; v < row; ++v)
        tape.first[j * row + v] = tape.states[v];
      if (j + 1 == chunks) break;  // recorded below, in the first turn
      record_chunk<T, N>(lane, tape, begin, end);
      const T* last = tape.states + (end - begin) * row;
      for (int64_t v = 0; v < row; ++v) tape.states[v] = last[v];
    }
    fill_zero(tape.grad_h, row);
    fill_zero(tape.d_a, row);
    fill_zero(tape.d_weight, s.rank * kLanes);
    fill_zero(tape.d_bias, kLanes);
    fill_zero(tape.d_skip, kLanes);
    for (int64_t j = chunks - 1; j >= 0; --j) {
      const int64_t begin = j * kChunk;
      const int64_t end = begin + kChunk < s.steps ? begin + kChunk : s.steps;
      for (int64_t v = 0; v < row; ++v)
        tape.states[v] = tape.first[j * row + v];
      record_chunk<T, N>(lane, tape, begin, end);
      for (int64_t t = end - 1; t >= begin; --t)
        unwind_step<T, N>(lane, g, tape, t - begin, lane.token(t), part);
    }
    const int64_t channel = (batch * s.routes + k) * s.channels + block.first;
    store_columns(g.a + channel * states, tape.d_a, states, block.width);
    if (p.dt_weight)
      store_columns(g.dt_weight + channel * s.rank, tape.d_weight, s.rank,
                    block.width);
    if (p.dt_bias)
      store_columns(g.dt_bias + channel, tape.d_bias, 1, block.width);
    if (p.d) store_columns(g.d + channel, tape.d_skip, 1, block.width);
  }
}

template <typename T>
static void forward(const ScanArgs<T>& p, T* out, const ScanWork& work,
                    T* scratch) {
  const auto run = p.size.states == 1    ? forward_block<T, 1>
                   : p.size.states == 16 ? forward_block<T, 16>
                                         : forward_block<T, 0>;
  run(p, out, work, scratch);
}

template <typename T>
static void backward(const ScanArgs<T>& p, const ScanGrads<T>& g, int64_t batch,
                     int64_t block, int64_t part, T* scratch) {
  const auto run = p.size.states == 1    ? backward_block<T, 1>
                   : p.size.states == 16 ? backward_block<T, 16>
                                         : backward_block<T, 0>;
  run(p, g, batch, block, part, scratch);
}

template <typename T>
ScanKernels<T> kernels() {
  return {forward<T>, backward<T>};
}
template ScanKernels<float> kernels<float>();
template ScanKernels<double> kernels<double>();

}  // namespace MMSSM_SIMD
}  // namespace mmssm
