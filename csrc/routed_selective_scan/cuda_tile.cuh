// What the routed scan's CUDA kernels share: a block's place in the work, its
// shared memory, and a tile of steps as its threads read it.
//
// One thread has one channel, so that neighboring threads read neighboring
// values of a token. A tile is kTile steps: a thread keeps its own values of
// them in registers, indexed by constants only; what all channels share (dt, B
// and C) is in shared memory, a row of steps per value.
//
// Threads beyond a narrow block's channels stay, for the barriers and
// shuffles: all that they add up is zero.
#pragma once

#include <c10/macros/Macros.h>
#include <cuda_runtime.h>

#include "args.h"
#include "cuda_plan.h"

namespace mmssm {
namespace cuda {

constexpr int kTile = 16;
// The padding keeps a row's four-step reads aligned and spreads the rows over
// the banks.
constexpr int kRow = kTile + 4;
constexpr int kTilesPerChunk = int(kCheckpointSteps) / kTile;

// 16 bytes, or twice 16, in one access each: `from` must be aligned to 16.
MMSSM_INLINE void read_four(const float* from, float* to) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}
MMSSM_INLINE void read_four(const double* from, double* to) {
  const double2* two = reinterpret_cast<const double2*>(from);
  const double2 first = two[0], second = two[1];
  to[0] = first.x;
  to[1] = first.y;
  to[2] = second.x;
  to[3] = second.y;
}
MMSSM_INLINE void read_four(const int* from, int* to) {
  const int4 four = *reinterpret_cast<const int4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

// A tile's row, or its tokens.
template <typename T>
MMSSM_INLINE void read_row(const T* row, T (&to)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; i += 4) read_four(row + i, to + i);
}

// Where a token is in a tensor: 32 bits are enough (check_offsets), and take
// one instruction where 64 take four.
__device__ inline unsigned token_offset(int l, int64_t stride) {
  return unsigned(l) * unsigned(stride);
}

// The same address, computed once: the compiler would else add up its parts in
// 64 bits for each value. It still knows it as one of global memory.
template <typename P>
__device__ inline P* in_register(P* address) {
#if defined(__CUDA_ARCH__)
  size_t global = __cvta_generic_to_global(address);
  asm volatile("" : "+l"(global));
  address = static_cast<P*>(__cvta_global_to_generic(global));
#endif
  return address;
}

struct Place {
  int64_t segment, share, route, group;
  int64_t block;       // of the group's channels
  int64_t first;       // channel of the block's first thread
  int width;           // channels of the block
  int64_t begin, end;  // steps of the segment

  __device__ bool active() const { return int(threadIdx.x) < width; }
  __device__ int64_t channel() const { return first + threadIdx.x; }
};

__device__ inline Place find_place(const ScanSizes& s, const ScanPlan& plan) {
  // Neighboring blocks read the same dt, B and C, then the same x.
  int64_t index = blockIdx.x;
  const auto next = [&](int64_t count) {
    const int64_t digit = index % count;
    index /= count;
    return digit;
  };
  Place at;
  at.block = next(plan.blocks_per_group);
  at.group = next(s.groups);
  at.route = plan.first_route + next(plan.routes);
  at.segment = next(plan.segments);
  at.share = next(plan.shares);
  const int64_t size = s.channels / s.groups;
  const int64_t inside = at.block * plan.threads;
  at.first = at.group * size + inside;
  at.width = int(size - inside < plan.threads ? size - inside : plan.threads);
  at.begin = at.segment * plan.segment_steps;
  at.end = at.begin + plan.segment_steps;
  if (at.end > s.seq_len) at.end = s.seq_len;
  return at;
}

// Parts of a block's shared memory. The host takes them for the size alone.
struct Memory {
  unsigned char* base;
  size_t used = 0;

  MMSSM_MEMBER explicit Memory(unsigned char* at) : base(at) {}
  template <typename T>
  MMSSM_MEMBER T* take(int64_t count) {
    T* part = reinterpret_cast<T*>(base + used);
    used += count * sizeof(T);
    return part;
  }
};

__device__ inline unsigned char* block_memory() {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return shared_bytes;
}

// One more than the threads: a row's and a column's values are then both in
// different banks.
MMSSM_INLINE int column_stride(int threads) { return threads + 1; }

// A tile and its tokens. Two of each: while some threads still read one, others
// fill the other, so that one barrier before reading is enough.
template <typename T>
struct TileMemory {
  T* tiles;     // 2 x (rank + 2 N, kRow): dt, B, C
  int* tokens;  // 2 x (kCheckpointSteps)
  int tile_size, tile_turn = 0, chunk_turn = 0;

  MMSSM_MEMBER TileMemory(Memory& memory, const ScanSizes& s)
      : tile_size(int(s.dt_rank + 2 * s.d_state) * kRow) {
    tiles = memory.take<T>(2 * tile_size);
    tokens = memory.take<int>(2 * kCheckpointSteps);
  }
  __device__ T* next_tile() {
    tile_turn ^= 1;
    return tiles + tile_turn * tile_size;
  }
  __device__ int* next_chunk() {
    chunk_turn ^= 1;
    return tokens + chunk_turn * kCheckpointSteps;
  }
};

// From (width, count) row-major, a block's channels, to (count, stride); zeros
// beyond the width.
template <typename T>
__device__ void load_columns(T* to, const T* from, int count, int width) {
  const int stride = column_stride(blockDim.x);
  for (int i = threadIdx.x; i < count * int(blockDim.x); i += blockDim.x) {
    const int channel = i / count;
    to[(i - channel * count) * stride + channel] =
        channel < width ? from[i] : T(0);
  }
}

template <typename T>
__device__ void store_columns(T* to, const T* from, int count, int width) {
  const int stride = column_stride(blockDim.x);
  for (int i = threadIdx.x; i < count * width; i += blockDim.x) {
    const int channel = i / count;
    to[i] = from[(i - channel * count) * stride + channel];
  }
}

// The chunk's tokens; -1 is a zero token, and so is one beyond the end.
template <typename T, typename Token>
__device__ void load_tokens(const ScanArgs<T, Token>& p, const Place& at,
                            int64_t begin, int* to) {
  const int32_t* from = p.route + at.route * p.size.seq_len + begin;
  for (int i = threadIdx.x; i < kCheckpointSteps; i += blockDim.x) {
    const int token = begin + i < at.end ? from[i] : -1;
    CUDA_KERNEL_ASSERT(token >= -1 && token < p.size.length &&
                       "mmssm: an index of a scan's routes, or of a tree's "
                       "order, is not within -1 and L - 1");
    to[i] = token;
  }
}

// What a thread has of a tile's values: every `rows_apart`-th row from `row`
// on, and of those every `steps_apart`-th step from `step` on.
struct TileShare {
  int row, rows_apart, step, steps_apart;
};

// Lanes along rows, which lie side by side in memory. Where there are few rows,
// a warp takes several steps at a time.
__device__ inline TileShare share_tile(int rows) {
  const int shift = rows > 16 ? 5 : rows > 8 ? 4 : 3;
  return {int(threadIdx.x) & ((1 << shift) - 1), 1 << shift,
          int(threadIdx.x) >> shift, int(blockDim.x) >> shift};
}

// Values that a thread has loaded before it stores the first of them: a store
// to shared memory in between would make each load wait for the one before.
constexpr int kStaged = 4;

// A tile's rows from the token tensors. Without C if it is not needed.
template <typename T, typename Token>
__device__ void load_tile(const ScanArgs<T, Token>& p, const Place& at,
                          int64_t batch, const int* token, T* tile,
                          bool with_c) {
  const int rank = int(p.size.dt_rank), states = int(p.size.d_state);
  const int rows = rank + states + (with_c ? states : 0);
  const TileShare own = share_tile(rows);
  for (int row = own.row; row < rows; row += own.rows_apart) {
    const Token* from = p.dt.at(batch, 0, at.route) + row;
    int64_t stride = p.dt.token;
    if (row >= rank + states) {
      from = p.c.at(batch, 0, at.route, at.group) + (row - rank - states);
      stride = p.c.token;
    } else if (row >= rank) {
      from = p.b.at(batch, 0, at.route, at.group) + (row - rank);
      stride = p.b.token;
    }
    T* to = tile + row * kRow;
    for (int first = own.step; first < kTile;
         first += kStaged * own.steps_apart) {
      Token values[kStaged];
#pragma unroll
      for (int j = 0; j < kStaged; ++j) {
        const int i = first + j * own.steps_apart;
        const int l = i < kTile ? token[i] : -1;
        values[j] = l < 0 ? Token(0) : from[token_offset(l, stride)];
      }
#pragma unroll
      for (int j = 0; j < kStaged; ++j) {
        const int i = first + j * own.steps_apart;
        if (i < kTile) to[i] = T(values[j]);
      }
    }
  }
}

// A thread's values of a (token, ...) tensor at the tile's tokens: all loads
// are independent.
template <typename T, typename Token>
__device__ void gather(const Token* from, int64_t stride, const int* token,
                       bool active, T (&to)[kTile]) {
  int l[kTile];
  read_row(token, l);
  from = in_register(from);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    to[i] = l[i] < 0 || !active ? T(0) : T(from[token_offset(l[i], stride)]);
  }
}

// Adds a thread's values to a tensor at the tile's tokens. Other routes and
// segments may pass the same token at the same time.
template <typename T>
__device__ void scatter(T* to, int64_t stride, const int* token, bool active,
                        const T (&values)[kTile]) {
  int l[kTile];
  read_row(token, l);
  to = in_register(to);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (active && l[i] >= 0)
      atomicAdd(to + token_offset(l[i], stride), values[i]);
  }
}

// A block's constants of its route, as one thread has them.
template <typename T>
struct Channel {
  T bias = T(0), skip = T(0);

  template <typename Token>
  __device__ Channel(const ScanArgs<T, Token>& p, const Place& at) {
    const int64_t c = at.route * p.size.channels + at.channel();
    if (p.dt_bias && at.active()) bias = p.dt_bias[c];
    if (p.d && at.active()) skip = p.d[c];
  }
};

template <typename T, typename Token>
__device__ void load_parameters(const ScanArgs<T, Token>& p, const Place& at,
                                T* weight, T* a) {
  const ScanSizes& s = p.size;
  const int64_t row = at.route * s.channels + at.first;
  if (p.dt_weight)
    load_columns(weight, p.dt_weight + row * s.dt_rank, int(s.dt_rank),
                 at.width);
  load_columns(a, p.a + row * s.d_state, int(s.d_state), at.width);
}

// The tile's step sizes before softplus.
template <typename T, typename Token>
__device__ void raw_steps(const ScanArgs<T, Token>& p, const Place& at,
                          int64_t batch, const T* weight, T bias, const T* tile,
                          const int* token, T (&raw)[kTile]) {
  if (p.dt_weight) {
#pragma unroll
    for (int i = 0; i < kTile; ++i) raw[i] = bias;
    const int stride = column_stride(blockDim.x);
    for (int r = 0; r < int(p.size.dt_rank); ++r) {
      const T w = weight[r * stride + threadIdx.x];
      T dt[kTile];
      read_row(tile + r * kRow, dt);
#pragma unroll
      for (int i = 0; i < kTile; ++i) raw[i] = raw[i] + w * dt[i];
    }
    return;
  }
  gather(p.dt.at(batch, 0, at.route) + at.channel(), p.dt.token, token,
         at.active(), raw);
#pragma unroll
  for (int i = 0; i < kTile; ++i) raw[i] = raw[i] + bias;
}

// Step sizes; 0 beyond the end, which leaves states and gradients alone. One
// test for the whole tile, so that its polynomials run side by side.
template <typename T>
__device__ void pass_softplus(bool softplus_on, int count, T (&steps)[kTile]) {
  if (softplus_on) {
#pragma unroll
    for (int i = 0; i < kTile; ++i) steps[i] = softplus(steps[i]);
  }
#pragma unroll
  for (int i = 0; i < kTile; ++i) steps[i] = i < count ? steps[i] : T(0);
}

// Runs the tile's steps of one state; `h` becomes the state after each.
template <typename T>
__device__ T run_state(T state, T a, const T* row_b, const T (&delta)[kTile],
                       const T (&u)[kTile], T (&h)[kTile]) {
  T b[kTile];
  read_row(row_b, b);
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    state = advance(decay(delta[i], a), state, delta[i], b[i], u[i]);
    h[i] = state;
  }
  return state;
}

}  // namespace cuda
}  // namespace mmssm
