// What every kernel of the routed scan is given: sizes, pointers, strides, and
// one step of the recurrence. Plain pointers only, so that a kernel depends on
// no tensor class.
#pragma once

#include "../common/scalar_math.h"

namespace mmssm {

enum class ScanOutput { kSum, kRoutes, kStates };

// Forward remembers the state before every so many steps for backward, which
// computes the states in between again.
constexpr int64_t kCheckpointSteps = 64;

// A (batch, token, route, ...) tensor read in route order. The innermost
// dimension is contiguous; the others may be any view, which lets the three
// parts of one projection be used without copying them apart.
template <typename T>
struct TokenView {
  const T* data = nullptr;
  int64_t batch = 0, token = 0, route = 0, group = 0;  // strides

  MMSSM_MEMBER const T* at(int64_t b, int64_t l, int64_t k,
                           int64_t g = 0) const {
    return data + b * batch + l * token + k * route + g * group;
  }
};

// B, L, C, K, T, G, N and R of the schemas.
struct ScanSizes {
  int64_t batch, length, channels, routes, seq_len, groups, d_state;
  int64_t dt_rank;  // of the step-size projection; 0: dt holds all channels
};

// Tokens may be of fewer bits than the math, which is in T.
template <typename T, typename Token = T>
struct ScanArgs {
  ScanSizes size;
  ScanOutput output;
  bool softplus;
  const Token* x;         // (B, L, C) contiguous
  TokenView<Token> dt;    // (B, L, K, R or C)
  TokenView<Token> b, c;  // (B, L, K, G, N); c.data null for kStates
  const T* a;             // (K, C, N)
  const T* d;             // (K, C) or null
  const T* dt_weight;     // (K, C, R) or null
  const T* dt_bias;       // (K, C) or null
  const int32_t* route;   // (K, T); -1 is a zero token
  T* checkpoints;         // (B, K, checkpoints, N, C) or null
};

MMSSM_INLINE int64_t checkpoint_count(const ScanSizes& s) {
  return (s.seq_len + kCheckpointSteps - 1) / kCheckpointSteps;
}
MMSSM_INLINE int64_t checkpoint_offset(const ScanSizes& s, int64_t b, int64_t k,
                                       int64_t number, int64_t n, int64_t c) {
  const int64_t at = (b * s.routes + k) * checkpoint_count(s) + number;
  return (at * s.d_state + n) * s.channels + c;
}

// Sum: (B, L, C). Routes: (B, K, L, C). States: (B, K, L, C, N).
template <typename T, typename Token>
MMSSM_INLINE int64_t output_offset(const ScanArgs<T, Token>& p, int64_t b,
                                   int64_t k, int64_t l, int64_t c) {
  const ScanSizes& s = p.size;
  if (p.output == ScanOutput::kSum) return (b * s.length + l) * s.channels + c;
  const int64_t at = ((b * s.routes + k) * s.length + l) * s.channels + c;
  return p.output == ScanOutput::kRoutes ? at : at * s.d_state;
}

// Gradients. Those that channels share have a partial sum for each part P of
// the channels, so that different parts never add to one place.
template <typename T>
struct ScanGrads {
  const T* out;  // like the output
  T* x;          // (B, L, C), zeroed
  T* dt;         // (P, B, L, K, R), or (B, L, K, C), zeroed
  T *b, *c;      // (P, B, L, K, G, N), zeroed
  // Like the parameters, with an axis of partial sums in front: parts of the
  // batch (CPU), shares of the batch times segments (CUDA).
  T *a, *d, *dt_weight, *dt_bias;
};

// One step of the selective recurrence for one channel and one state, forward
// and backward (Gu & Dao, "Mamba", arXiv 2312.00752, with B discretized as
// delta * B):
//
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = C_t h_t + D u_t
//
// V is a number (scalar_math.h) or a vector of them (simd.h).
template <typename V>
MMSSM_INLINE V decay(V delta, V a) {
  return fast_exp(delta * a);
}

template <typename V>
MMSSM_INLINE V advance(V decay, V state, V delta, V b, V u) {
  return decay * state + delta * u * b;
}

// Gradients through a step's decay; `through` is dLoss/d(decay) decay.
template <typename V>
MMSSM_INLINE void decay_bwd(V through, V delta, V a, V& d_a, V& d_delta) {
  d_a = d_a + through * delta;
  d_delta = d_delta + through * a;
}

// Gradients of delta B u, whose own is `grad`. `d_b` is set, the others add up.
template <typename V>
MMSSM_INLINE void value_bwd(V grad, V delta, V b, V u, V& d_b, V& d_u,
                            V& d_delta) {
  const V grad_b = grad * b;
  d_b = grad * (delta * u);
  d_delta = d_delta + grad_b * u;
  d_u = d_u + grad_b * delta;
}

// Gradients of one state's step. `grad` is dLoss/dh_t with everything that
// follows included; it becomes dLoss/dh_{t-1}.
template <typename V>
MMSSM_INLINE void step_bwd(V& grad, V decay, V previous, V delta, V a, V b, V u,
                           V& d_a, V& d_b, V& d_u, V& d_delta) {
  const V now = grad;
  grad = now * decay;
  decay_bwd(grad * previous, delta, a, d_a, d_delta);
  value_bwd(now, delta, b, u, d_b, d_u, d_delta);
}

}  // namespace mmssm
