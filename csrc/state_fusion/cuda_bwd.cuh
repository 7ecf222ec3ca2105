// The state fusion's backward kernels. The first goes over the map as forward
// does; x's gradient is a second one's: gathered, not scattered, so that
// no two threads add to one place.
#pragma once

#include "../common/cuda_warp_sum.cuh"
#include "cuda_walk.cuh"

namespace mmssm {
namespace cuda {

constexpr int kChannelSums = kTaps + 1;  // of the taps, and of d

// Adds up what the warps have of each channel and writes the block's part.
template <typename T, typename Token>
__device__ void write_part(const FusionSizes& s, const FusionPlan& plan,
                           const FusionPlace& at, const T (&d_taps)[kTaps],
                           T d_skip, const FusionGrads<T, Token>& g) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  T* sums = reinterpret_cast<T*>(shared_bytes);  // (warps, sums, channels)
  T* own =
      sums + threadIdx.x / kWarp * kChannelSums * kWarp + threadIdx.x % kWarp;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) own[tap * kWarp] = d_taps[tap];
  own[kTaps * kWarp] = d_skip;
  __syncthreads();
  if (!at.active) return;
  const int64_t part = at.part(plan);
  for (int i = threadIdx.x; i < kChannelSums * kWarp; i += kFusionThreads) {
    T sum(0);
    for (int warp = 0; warp < kFusionWarps; ++warp)
      sum = sum + sums[warp * kChannelSums * kWarp + i];
    const int tap = i / kWarp;
    if (tap < kTaps)
      g.taps[(part * kTaps + tap) * s.channels + at.channel] = sum;
    else if (g.d)
      g.d[part * s.channels + at.channel] = sum;
  }
}

// A strip's gradients of the results and, with a read-out, what follows from
// them without the sums of taps: u's gradient, d's, and `fused`, that of the
// sums. Zeros beyond the row and the channels.
template <typename T, typename Token, bool kReadout>
__device__ void read_grads(const FusionArgs<T, Token>& p,
                           const FusionGrads<T, Token>& g, const Strip& strip,
                           bool active, T* fused, T (&grad_sum)[kStripTokens],
                           T& d_skip) {
  const Token* grads = strip.own_row_of(g.out);
  const Token *u = nullptr, *c = nullptr;
  Token* to_u = nullptr;
  T* to_fused = nullptr;
  T skip(0);
  if (kReadout) {
    u = strip.own_row_of(p.u);
    c = p.c + strip.token();
    to_u = strip.own_row_of(g.u);
    to_fused = strip.own_row_of(fused);
    skip = p.d[opaque(strip.channel)];
  }
#pragma unroll
  for (int i = 0; i < kStripTokens; ++i) {
    grad_sum[i] = T(0);
    if (!strip.has(i) || !active) continue;
    const T grad(strip.in(grads, i));
    grad_sum[i] = grad;
    if (!kReadout) continue;
    grad_sum[i] = T(c[i]) * grad;
    d_skip = d_skip + grad * T(strip.in(u, i));
    strip.in(to_u, i) = Token(skip * grad);
    strip.in(to_fused, i) = grad_sum[i];
  }
}

// A strip's gradients of c, from the block's channels. The gradients of the
// results are read a second time: there are no registers to keep them.
template <typename T, typename Token>
__device__ void write_c_grads(const Strip& strip, bool active,
                              const Token* grad, const T (&sums)[kStripTokens],
                              T* d_c) {
  static_assert(kStripTokens < 8);
  __syncwarp();
  const Token* grads = strip.own_row_of(grad);
  T products[8] = {};
#pragma unroll
  for (int i = 0; i < kStripTokens; ++i)
    if (strip.has(i) && active) products[i] = T(strip.in(grads, i)) * sums[i];
  T sum = sum_over_warp<T, 4>(products);
  sum = sum + __shfl_xor_sync(0xffffffffu, sum, 8);
  sum = sum + __shfl_xor_sync(0xffffffffu, sum, 16);
  const int lane = threadIdx.x % kWarp;
  if (lane < kStripTokens && strip.has(lane)) d_c[strip.token() + lane] = sum;
}

// The gradients of all but x. The sums of taps, which that of c needs, are not
// kept from forward: they are as large as the map, and x is read here anyway.
template <typename T, typename Token, bool kReadout>
__global__ void __launch_bounds__(kFusionThreads, sizeof(T) == 4 ? 2 : 1)
    fusion_parameters_kernel(const FusionArgs<T, Token> p,
                             const FusionPlan plan,
                             const FusionGrads<T, Token> g, T* fused) {
  const FusionSizes& s = p.size;
  const FusionPlace at(s, plan);
  T taps[kTaps], d_taps[kTaps];
  if (kReadout) load_taps(p.taps, s, at.channel, taps);
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) d_taps[tap] = T(0);
  T d_skip(0);
  for (StripWalk walk(s, at); walk.inside(); walk.next()) {
    const Strip strip(s, walk, at.channel);
    T grad_sum[kStripTokens], sums[kStripTokens];
    read_grads<T, Token, kReadout>(p, g, strip, at.active, fused, grad_sum,
                                   d_skip);
#pragma unroll
    for (int i = 0; i < kStripTokens; ++i) sums[i] = T(0);
    visit_clipped<T>(strip, p.x, [&](int tap, int i, T x) {
      d_taps[tap] = d_taps[tap] + grad_sum[i] * x;
      if (kReadout) sums[i] = sums[i] + taps[tap] * x;
    });
    if (kReadout)
      write_c_grads(strip, at.active, g.out, sums,
                    g.c + at.block(plan) * s.batch * s.length());
  }
  write_part(s, plan, at, d_taps, d_skip, g);
}

// x's gradient. A token at row p is read by tokens at row q through taps of
// step p - q; at the border also by those that would read beyond it. The same
// holds for columns.
template <typename T, typename Grad, bool kAtBorder>
class MapGrad {
 public:
  __device__ MapGrad(const Strip& strip, const T (&taps)[kTaps],
                     const Grad* fused)
      : strip_(strip), taps_(taps), fused_(fused) {
#pragma unroll
    for (int i = 0; i < kStripTokens; ++i) sums[i] = T(0);
  }

  __device__ __forceinline__ void gather() {
    gather_rows<0>();
    gather_rows<1>();
    gather_rows<2>();
    gather_own_row();
    if constexpr (kAtBorder) {
#pragma unroll
      for (int i = 0; i < kStripTokens; ++i) {
        const int column = strip_.column + i;
        if (column == 0) sums[i] = sums[i] + to_first_;
        if (column == strip_.width - 1) sums[i] = sums[i] + to_last_;
      }
    }
  }

  T sums[kStripTokens];

 private:
  // What the tokens of one row add to the first column, and to the last, that
  // read these in place of columns beyond them.
  template <int kDilation>
  struct FromBeyond {
    T first = T(0), last = T(0);

    __device__ __forceinline__ void take(const Strip& strip, int j, T value) {
      if (!kAtBorder || j < -kDilation || j >= kStripTokens + kDilation) return;
      if (j >= 0 && j < kDilation) first = first + value;
      if (opaque(strip.column) + j >= strip.width - kDilation)
        last = last + value;
    }
  };
  template <int kDilation>
  __device__ __forceinline__ void add(const FromBeyond<kDilation>& beyond,
                                      T left_tap, T right_tap) {
    if (!kAtBorder) return;
    to_first_ = to_first_ + left_tap * beyond.first;
    to_last_ = to_last_ + right_tap * beyond.last;
  }

  // Zero beyond the border.
  __device__ __forceinline__ T load(const Grad* row, int j) {
    if (!kAtBorder) return T(strip_.in(row, j));
    const int column = opaque(strip_.column) + j;
    const bool outside = column < 0 || column >= strip_.width;
    return outside ? T(0) : T(strip_.in(row, j));
  }

  // The rows whose tokens read this one through the taps first_tap to
  // first_tap + 2.
  template <int kDilation>
  __device__ __forceinline__ void add_rows(int begin, int end, int first_tap) {
#pragma unroll 1
    for (int row = begin; row < end; ++row) {
      __syncwarp();
      const Grad* from = strip_.row_of(fused_, row);
      FromBeyond<kDilation> beyond;
      visit_taps<kDilation>(
          [&](int j) {
            const T value = load(from, j);
            beyond.take(strip_, j, value);
            return value;
          },
          [&](int tap, int i, T value) {
            sums[i] = sums[i] + taps_[first_tap + 2 - tap] * value;
          });
      add(beyond, taps_[first_tap], taps_[first_tap + 2]);
    }
  }

  template <int kNumber>
  __device__ __forceinline__ void gather_rows() {
    constexpr int kDilation = 2 * kNumber + 1;
    const int row = strip_.row, height = strip_.height;
    const int before = row - kDilation, after = row + kDilation;
    // From below, and at the top all that would read rows beyond it.
    add_rows<kDilation>(row == 0 ? 0 : after,
                        after < height ? after + 1 : height, 3 * kNumber);
    add_rows<kDilation>(before > 0 ? before : 0,
                        (row == height - 1 ? row : before) + 1,
                        16 + 3 * kNumber);
  }

  __device__ __forceinline__ void gather_own_row() {
    __syncwarp();
    const Grad* from = strip_.own_row_of(fused_);
    FromBeyond<1> one;
    FromBeyond<3> three;
    FromBeyond<5> five;
    visit_middle_taps(
        [&](int j) {
          const T value = load(from, j);
          one.take(strip_, j, value);
          three.take(strip_, j, value);
          five.take(strip_, j, value);
          return value;
        },
        [&](int tap, int i, T value) {
          const int mirrored = tap < 12 ? tap + 4 : tap > 12 ? tap - 4 : tap;
          sums[i] = sums[i] + taps_[mirrored] * value;
        });
    add(one, taps_[9], taps_[13]);
    add(three, taps_[10], taps_[14]);
    add(five, taps_[11], taps_[15]);
  }

  const Strip strip_;
  const T (&taps_)[kTaps];
  const Grad* fused_;
  T to_first_ = T(0), to_last_ = T(0);
};

// `fused` is the gradient of the sums of taps.
template <typename T, typename Token, typename Grad>
__global__ void __launch_bounds__(kFusionThreads, sizeof(T) == 4 ? 2 : 1)
    fusion_map_kernel(const FusionSizes s, const T* all_taps,
                      const FusionPlan plan, const Grad* fused, Token* d_x) {
  const FusionPlace at(s, plan);
  T taps[kTaps];
  load_taps(all_taps, s, at.channel, taps);
  const auto store = [&](const Strip& strip, const T(&sums)[kStripTokens]) {
    Token* to = strip.own_row_of(d_x);
#pragma unroll
    for (int i = 0; i < kStripTokens; ++i)
      if (strip.has(i) && at.active) strip.in(to, i) = Token(sums[i]);
  };
  for (StripWalk walk(s, at); walk.inside(); walk.next()) {
    const Strip strip(s, walk, at.channel);
    if (strip.column >= kReach &&
        strip.column + kStripTokens + kReach <= strip.width) {
      MapGrad<T, Grad, false> inside(strip, taps, fused);
      inside.gather();
      store(strip, inside.sums);
    } else {
      MapGrad<T, Grad, true> at_border(strip, taps, fused);
      at_border.gather();
      store(strip, at_border.sums);
    }
  }
}

}  // namespace cuda
}  // namespace mmssm
