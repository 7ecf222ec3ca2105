// One step of the selective recurrence for one channel and one state, forward
// and backward (Gu & Dao, "Mamba", arXiv 2312.00752, with B discretised as
// delta * B):
//
//   h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = C_t h_t + D u_t
#pragma once

#include "scalar_math.h"

namespace mmssm {

template <typename T>
MMSSM_INLINE T decay(T delta, T a) {
  return fast_exp(delta * a);
}

template <typename T>
MMSSM_INLINE T advance(T decay, T state, T delta, T b, T u) {
  return decay * state + delta * b * u;
}

// Gradients of one state's step. `grad` is dLoss/dh_t with everything that
// follows included; it becomes dLoss/dh_{t-1}. `d_b` is set, the others add up.
template <typename T>
MMSSM_INLINE void retreat(T& grad, T decay, T previous, T delta, T a, T b, T u,
                          T& d_a, T& d_b, T& d_u, T& d_delta) {
  const T through_decay = grad * decay * previous;
  d_a += through_decay * delta;
  d_delta += through_decay * a + grad * b * u;
  d_u += grad * delta * b;
  d_b = grad * delta * u;
  grad = grad * decay;
}

}  // namespace mmssm
