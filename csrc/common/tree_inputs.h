// Checks and normal forms of the tree scan's inputs, for every device.
#pragma once

#include "op_handles.h"
#include "scan_grads.h"
#include "tree_edge.h"

namespace mmssm {

// Those of a routed scan over one route, the tree's order, and the steps of
// the parents (L), int32.
struct TreeInputs {
  ScanInputs scan;
  at::Tensor parents;
};

TreeInputs prepare_tree(const at::Tensor& x, const at::Tensor& dt,
                        const at::Tensor& A, const at::Tensor& B,
                        const OptionalTensor& dt_weight,
                        const OptionalTensor& dt_bias, const at::Tensor& order,
                        std::optional<at::ScalarType> out_dtype,
                        bool keep_half = false);

void check_tree_grad(const at::Tensor& grad, const at::Tensor& x);

template <typename T, typename Token = T>
TreeArgs<T, Token> make_args(const TreeInputs& in, bool delta_softplus) {
  return {make_args<T, Token>(in.scan, delta_softplus, at::Tensor()),
          in.parents.const_data_ptr<int32_t>()};
}

// What the backward op returns, see add_up of the routed scan.
SixTensors add_up_tree(const std::optional<GradTensors>& g, const at::Tensor& x,
                       const at::Tensor& dt, const at::Tensor& A,
                       const at::Tensor& B, const OptionalTensor& dt_weight,
                       const OptionalTensor& dt_bias);

}  // namespace mmssm
