// What the tree scan is called with, checked and in normal form, for every
// device; and how a device registers its kernels.
#pragma once

#include "../routed_selective_scan/grads.h"
#include "args.h"

namespace mmssm {

// The arguments that both of the op's schemas have, see ops.cpp.
struct TreeCall {
  at::Tensor x, dt, A, B;
  OptionalTensor dt_weight, dt_bias;
  at::Tensor order;
  bool delta_softplus;

  // As a routed scan over one route, the tree's order, with one state.
  ScanCall as_scan() const;
};
using TreeCallTypes =
    Types<const at::Tensor&, const at::Tensor&, const at::Tensor&,
          const at::Tensor&, const OptionalTensor&, const OptionalTensor&,
          const at::Tensor&, bool>;

// The routed scan's, and the steps of the parents (L), int32.
struct TreeInputs {
  ScanInputs scan;
  at::Tensor parents;
};

TreeInputs prepare(const TreeCall& call, bool keep_half = false);

void check_grad(const TreeCall& call, const at::Tensor& grad);

template <typename T, typename Token = T>
TreeArgs<T, Token> make_args(const TreeInputs& in) {
  return {make_args<T, Token>(in.scan, at::Tensor()),
          in.parents.const_data_ptr<int32_t>()};
}

// The gradients of x, dt, A, B, dt_weight and dt_bias.
using TreeGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                                 at::Tensor, at::Tensor>;

// See add_up of the routed scan.
TreeGradients add_up(const std::optional<GradTensors>& g, const TreeCall& call);

// What a device has.
using TreeFwd = at::Tensor(const TreeCall& call,
                           std::optional<at::ScalarType> out_dtype);
using TreeBwd = TreeGradients(const at::Tensor& grad, const TreeCall& call);

template <TreeFwd* fwd, TreeBwd* bwd, typename... T>
void register_tree_scan(torch::Library& m, Types<T...>) {
  m.impl("tree_scan", [](T... call, std::optional<at::ScalarType> out_dtype) {
    return fwd({call...}, out_dtype);
  });
  m.impl("_tree_scan_backward", [](const at::Tensor& grad, T... call) {
    return bwd(grad, {call...});
  });
}

}  // namespace mmssm
