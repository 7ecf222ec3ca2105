// The tree scan's math at one edge, from a token to its parent, and what its
// kernels are given (derivations in docs/ops/tree_scan.md):
//
//   U_i = v_i + sum over children c of w_c U_c          leaves to root
//   h_i = U_i + w_i (h_parent - w_i U_i)                root to leaves
//
// where h_parent - w_i U_i is what the tokens beyond the edge, all but those
// below i, send to the parent. V is a number or a vector of them.
#pragma once

#include "../routed_selective_scan/args.h"

namespace mmssm {

// A token's value.
template <typename V>
MMSSM_INLINE V tree_value(V delta, V b, V u) {
  return delta * u * b;
}

// The state of a token, from the sum of its subtree and its parent's state.
template <typename V>
MMSSM_INLINE V tree_state(V w, V below, V parent) {
  return below + w * (parent - w * below);
}

// Both passes of the gradients are those of the values: `below` becomes the
// token's state, `grad_below` its value's gradient, and the result is
// dLoss/dw w.
template <typename V>
MMSSM_INLINE V tree_state_bwd(V w, V& below, V parent, V& grad_below,
                              V grad_parent) {
  const V beyond = parent - w * below;
  const V grad_beyond = grad_parent - w * grad_below;
  const V d_w = grad_below * beyond + below * grad_beyond;
  below = below + w * beyond;
  grad_below = grad_below + w * grad_beyond;
  return d_w * w;
}

constexpr const char* kTreeScan = "tree_scan";  // for messages

// A scan of one route, the tree's order, with one state, and for each of its
// steps that of the token's parent, an earlier one; -1 for the first.
template <typename T, typename Token = T>
struct TreeArgs {
  ScanArgs<T, Token> scan;
  const int32_t* parent;
};

}  // namespace mmssm
