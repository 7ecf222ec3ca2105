// The tree scan's two passes.
//
// A thread has one channel of one batch item and goes through the tree's steps
// in tiles, with what it needs of them in registers: loads of a tile are
// independent. What goes along a chain of tokens stays in a register; what goes
// to or from a branch within the tile, through shared memory, of which each
// thread has its own column; only from one tile to another, through global
// memory. No thread waits for another.
#pragma once

#include "../routed_selective_scan/cuda_tile.cuh"
#include "cuda_plan.h"

namespace mmssm {
namespace cuda {

// Warps of their own: batch and channels are all that fills the chip.
constexpr int kPassThreads = kWarp;

// A thread's column of (B, L, C).
struct PassColumn {
  int64_t channels, first;  // of step 0
  bool active;

  __device__ explicit PassColumn(const ScanSizes& s) : channels(s.channels) {
    const int64_t blocks = (channels + kPassThreads - 1) / kPassThreads;
    const int64_t batch = blockIdx.x / blocks;
    const int64_t channel = blockIdx.x % blocks * kPassThreads + threadIdx.x;
    active = channel < channels;
    first = batch * s.seq_len * channels + channel;
  }
  __device__ int64_t at(int64_t step) const { return first + step * channels; }
};

// A tile's parents, as steps; those beyond the end are never used.
__device__ inline void read_parents(const int32_t* parent, int64_t begin,
                                    int count, int (&to)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; ++i) {
    if (i >= count) continue;
    to[i] = parent[begin + i];
    CUDA_KERNEL_ASSERT(
        (begin + i ? to[i] >= 0 && to[i] < begin + i : to[i] == -1) &&
        "tree_scan: a step of the order does not follow its parent's");
  }
}

template <typename T>
__device__ void read_column(const T* from, const PassColumn& column,
                            int64_t begin, int count, T (&to)[kTile]) {
#pragma unroll
  for (int i = 0; i < kTile; ++i)
    to[i] = i < count ? from[column.at(begin + i)] : T(0);
}

template <typename T>
__device__ T* column_in_tile(int number) {
  return reinterpret_cast<T*>(block_memory()) + number * kTile * kPassThreads +
         threadIdx.x;
}

template <typename T>
__global__ void __launch_bounds__(kPassThreads)
    climb_kernel(const ScanSizes s, const int32_t* parent, const T* w,
                 T* rows) {
  const PassColumn column(s);
  if (!column.active) return;
  T* near = column_in_tile<T>(0);  // what branches add within the tile
  T carry(0);                      // what comes from the step after
  for (int64_t begin = (s.seq_len - 1) / kTile * kTile; begin >= 0;
       begin -= kTile) {
    const int count =
        int(s.seq_len - begin < kTile ? s.seq_len - begin : kTile);
    int up[kTile];
    T own_w[kTile], sum[kTile];
    read_parents(parent, begin, count, up);
    read_column(w, column, begin, count, own_w);
    read_column(rows, column, begin, count, sum);
#pragma unroll
    for (int i = 0; i < kTile; ++i) near[i * kPassThreads] = T(0);
#pragma unroll
    for (int i = kTile - 1; i >= 0; --i) {
      if (i >= count) continue;
      sum[i] = sum[i] + carry + near[i * kPassThreads];
      rows[column.at(begin + i)] = sum[i];
      carry = own_w[i] * sum[i];
      if (up[i] == begin + i - 1) continue;
      if (up[i] >= begin)
        near[(up[i] - begin) * kPassThreads] += carry;
      else
        // Not for other threads' sake: it lets this one go on at once.
        atomicAdd(rows + column.at(up[i]), carry);
      carry = T(0);
    }
  }
}

// The parents' results while a thread goes down through a column of rows.
template <typename T>
class ParentRows {
 public:
  __device__ ParentRows(T* rows, const PassColumn& column, int number)
      : rows_(rows), column_(column), near_(column_in_tile<T>(number)) {}

  // Reads a tile's rows, and those of its parents that are in earlier tiles.
  __device__ void open(int64_t begin, int count, const int (&up)[kTile]) {
    begin_ = begin;
    read_column(rows_, column_, begin, count, own);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      const bool far = i < count && up[i] >= 0 && up[i] < begin - (i == 0);
      far_[i] = far ? rows_[column_.at(up[i])] : T(0);
    }
  }
  // 0 for the root.
  __device__ T parent(int i, int up) const {
    if (up == begin_ + i - 1) return before_;
    return up >= begin_ ? near_[(up - begin_) * kPassThreads] : far_[i];
  }
  // What is in own[i] by now.
  __device__ void keep(int i) {
    before_ = own[i];
    near_[i * kPassThreads] = own[i];
    rows_[column_.at(begin_ + i)] = own[i];
  }

  T own[kTile];

 private:
  T* const rows_;
  const PassColumn& column_;
  T* const near_;
  T far_[kTile], before_ = T(0);
  int64_t begin_ = 0;
};

template <typename T>
__global__ void __launch_bounds__(kPassThreads)
    descend_kernel(const ScanSizes s, const int32_t* parent,
                   const int32_t* token, const T* w, T* rows, T* out) {
  const PassColumn column(s);
  if (!column.active) return;
  ParentRows<T> states(rows, column, 0);
  for (int64_t begin = 0; begin < s.seq_len; begin += kTile) {
    const int count =
        int(s.seq_len - begin < kTile ? s.seq_len - begin : kTile);
    int up[kTile];
    T own_w[kTile];
    read_parents(parent, begin, count, up);
    read_column(w, column, begin, count, own_w);
    if (begin == 0) own_w[0] = T(0);  // the root has no edge
    states.open(begin, count, up);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      if (i >= count) continue;
      states.own[i] =
          tree_state(own_w[i], states.own[i], states.parent(i, up[i]));
      states.keep(i);
      const int l = token[begin + i];
      CUDA_KERNEL_ASSERT(l >= 0 && l < s.length &&
                         "tree_scan: a token of the order is not within 0 and "
                         "L - 1");
      out[column.at(l)] = states.own[i];
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kPassThreads)
    descend_both_kernel(const ScanSizes s, const int32_t* parent, T* w, T* rows,
                        T* grads) {
  const PassColumn column(s);
  if (!column.active) return;
  ParentRows<T> states(rows, column, 0), of_values(grads, column, 1);
  for (int64_t begin = 0; begin < s.seq_len; begin += kTile) {
    const int count =
        int(s.seq_len - begin < kTile ? s.seq_len - begin : kTile);
    int up[kTile];
    T own_w[kTile];
    read_parents(parent, begin, count, up);
    read_column<T>(w, column, begin, count, own_w);
    if (begin == 0) own_w[0] = T(0);  // the root has no edge
    states.open(begin, count, up);
    of_values.open(begin, count, up);
#pragma unroll
    for (int i = 0; i < kTile; ++i) {
      if (i >= count) continue;
      w[column.at(begin + i)] =
          tree_state_bwd(own_w[i], states.own[i], states.parent(i, up[i]),
                         of_values.own[i], of_values.parent(i, up[i]));
      states.keep(i);
      of_values.keep(i);
    }
  }
}

}  // namespace cuda
}  // namespace mmssm
