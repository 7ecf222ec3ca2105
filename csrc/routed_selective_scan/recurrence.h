// One step of the selective recurrence for one channel and one state, forward
// and backward (Gu & Dao, "Mamba", arXiv 2312.00752, with B discretized as
// delta * B):
//
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = C_t h_t + D u_t
//
// V is a number or a vector of them (scalar_math.h).
#pragma once

#include "../common/scalar_math.h"

namespace mmssm {

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
