// The state fusion's forward kernel.
#pragma once

#include "cuda_walk.cuh"

namespace mmssm {
namespace cuda {

template <typename T, typename Token, bool kReadout>
__device__ void write_strip(const FusionArgs<T, Token>& p, const Strip& strip,
                            bool active, const T (&sums)[kStripTokens],
                            Token* out) {
  if (!active) return;
  const Token* u = kReadout ? strip.own_row_of(p.u) : nullptr;
  const Token* c = p.c + (kReadout ? strip.token() : 0);
  const T skip = kReadout ? p.d[strip.channel] : T(0);
  Token* to = strip.own_row_of(out);
#pragma unroll
  for (int i = 0; i < kStripTokens; ++i) {
    if (!strip.has(i)) continue;
    const T sum =
        kReadout ? T(c[i]) * sums[i] + skip * T(strip.in(u, i)) : sums[i];
    strip.in(to, i) = Token(sum);
  }
}

template <typename T, typename Token, bool kReadout>
__global__ void __launch_bounds__(kFusionThreads, sizeof(T) == 4 ? 3 : 1)
    fusion_kernel(const FusionArgs<T, Token> p, const FusionPlan plan,
                  Token* out) {
  const FusionSizes& s = p.size;
  const FusionPlace at(s, plan);
  T taps[kTaps];
  load_taps(p.taps, s, at.channel, taps);
  for (StripWalk walk(s, at); walk.inside(); walk.next()) {
    const Strip strip(s, walk, at.channel);
    T sums[kStripTokens];
#pragma unroll
    for (int i = 0; i < kStripTokens; ++i) sums[i] = T(0);
    visit_clipped<T>(strip, p.x, [&](int tap, int i, T x) {
      sums[i] = sums[i] + taps[tap] * x;
    });
    write_strip<T, Token, kReadout>(p, strip, at.active, sums, out);
  }
}

}  // namespace cuda
}  // namespace mmssm
