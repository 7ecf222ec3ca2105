// Every op's schema. Kernels are registered where they are written: cpu/,
// cuda/; gradients in autograd/; the shapes that tracing needs (fake kernels)
// beside each op's Python face in mmssm/ops. Autocast needs no kernel of its
// own here: the ops take tokens and parameters of different dtypes as they
// come, and keep the state and all maths in float32.
#include <torch/library.h>

#include "cpu/instruction_sets.h"

TORCH_LIBRARY(mmssm, m) {
  // Shapes: x (B, L, C); dt (B, L, K, R) with dt_weight (K, C, R), else
  // (B, L, K, C); A (K, C, N); B and C (B, L, K, N) or (B, L, K, G, N);
  // D and dt_bias (K, C); routes (K, T) int32 or int64, -1 a zero token.
  m.def(
      "routed_selective_scan(Tensor x, Tensor dt, Tensor A, Tensor B, "
      "Tensor? C, Tensor? D, Tensor? dt_weight, Tensor? dt_bias, "
      "Tensor routes, bool delta_softplus=True, str output='sum', "
      "ScalarType? out_dtype=None) -> Tensor");
  // The same, and the checkpoints that its gradient needs: the state before
  // every 64th step, (B, K, ceil(T / 64), N, C).
  m.def(
      "_routed_selective_scan_forward(Tensor x, Tensor dt, Tensor A, "
      "Tensor B, Tensor? C, Tensor? D, Tensor? dt_weight, Tensor? dt_bias, "
      "Tensor routes, bool delta_softplus, str output, "
      "ScalarType? out_dtype) -> (Tensor, Tensor)");
  // Gradients of the eight float inputs in their order; an input that was not
  // given has an empty one.
  m.def(
      "_routed_selective_scan_backward(Tensor grad, Tensor checkpoints, "
      "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? C, Tensor? D, "
      "Tensor? dt_weight, Tensor? dt_bias, Tensor routes, "
      "bool delta_softplus, str output) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // mamba-ssm's selective_scan_fn: u, delta (B, D, L); A (D, N); B and C
  // (B, G, N, L) or (B, N, L); D and delta_bias (D).
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor? D=None, Tensor? delta_bias=None, bool delta_softplus=False) -> "
      "Tensor");
  // Spatial-Mamba's fusion of a map of states: x, u (B, H, W, C); taps (25, C)
  // in the order of common/fusion_args.h; C (B, H, W); D (C).
  m.def(
      "state_fusion(Tensor x, Tensor taps, Tensor? C=None, Tensor? D=None, "
      "Tensor? u=None) -> Tensor");
  // Gradients of the five inputs in their order; an input that was not given
  // has an empty one.
  m.def(
      "_state_fusion_backward(Tensor grad, Tensor x, Tensor taps, Tensor? C, "
      "Tensor? D, Tensor? u) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // States over a tree: x (B, L, C); dt (B, L, R) with dt_weight (C, R), else
  // (B, L, C); A and dt_bias (C); B (B, L); order (2, L) int32: the token of
  // each step and the step of its parent, an earlier one, -1 for the first
  // (mmssm.ops.tree_order).
  m.def(
      "tree_scan(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? dt_weight, "
      "Tensor? dt_bias, Tensor order, bool delta_softplus=True, "
      "ScalarType? out_dtype=None) -> Tensor");
  // Gradients of the six float inputs in their order; an input that was not
  // given has an empty one.
  m.def(
      "_tree_scan_backward(Tensor grad, Tensor x, Tensor dt, Tensor A, "
      "Tensor B, Tensor? dt_weight, Tensor? dt_bias, Tensor order, "
      "bool delta_softplus) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  // The CPU instructions that the ops use here: 'AVX-512', 'AVX2', 'SSE2' or,
  // on other processors, 'generic'.
  m.def("_instruction_set() -> str",
        [] { return std::string(mmssm::instruction_set()); });
}
