// Every op's schema. Kernels are registered in <op>/cpu.cpp and <op>/cuda.cpp,
// gradients in mmssm/ops/gradients.py, and the shapes that tracing needs (fake
// kernels) in mmssm/ops/<op>.py. Autocast needs no kernel: the ops take tokens
// and parameters of different dtypes as they come, and compute in float32.
//
// out_dtype is the result's: by default x's, but float32 for a float16 x.
#include <torch/library.h>

#include "common/instruction_sets.h"
#include "common/kept_memory.h"
#include "common/library.h"

// Shapes: x (B, L, C); dt (B, L, K, R) with dt_weight (K, C, R), else
// (B, L, K, C); A (K, C, N); B and C (B, L, K, N) or (B, L, K, G, N); D and
// dt_bias (K, C); routes (K, T) int32 or int64, -1 a zero token.
#define ROUTED_SCAN_INPUTS                                          \
  "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? C, Tensor? D, " \
  "Tensor? dt_weight, Tensor? dt_bias, Tensor routes, "             \
  "bool delta_softplus=True, str output='sum'"

// x, u (B, H, W, C); taps (25, C) in the order of state_fusion/args.h;
// C (B, H, W); D (C).
#define STATE_FUSION_INPUTS \
  "Tensor x, Tensor taps, Tensor? C=None, Tensor? D=None, Tensor? u=None"

// x (B, L, C); dt (B, L, R) with dt_weight (C, R), else (B, L, C); A and
// dt_bias (C); B (B, L); order (2, L) int32: the token of each step and the
// step of its parent, an earlier one, -1 for the first (mmssm.ops.tree_order).
#define TREE_SCAN_INPUTS                                         \
  "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? dt_weight, " \
  "Tensor? dt_bias, Tensor order, bool delta_softplus=True"

TORCH_LIBRARY(MMSSM_LIBRARY, m) {
  // The result and the state checkpoints, the state before every 64th step:
  // (B, K, ceil(T / 64), N, C), empty where they are not kept. The gradient
  // needs them, and has them kept itself (mmssm/ops/gradients.py).
  m.def("routed_selective_scan(" ROUTED_SCAN_INPUTS
        ", ScalarType? out_dtype=None, bool keep_checkpoints=False) -> "
        "(Tensor, Tensor)");
  // Gradients of the float inputs in their order; an input that was not given
  // has an empty one.
  m.def(
      "_routed_selective_scan_backward(Tensor grad, Tensor "
      "checkpoints, " ROUTED_SCAN_INPUTS
      ") -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // Spatial-Mamba's fusion of a map of states.
  m.def("state_fusion(" STATE_FUSION_INPUTS ") -> Tensor");
  m.def("_state_fusion_backward(Tensor grad, " STATE_FUSION_INPUTS
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");

  // States over a tree.
  m.def("tree_scan(" TREE_SCAN_INPUTS
        ", ScalarType? out_dtype=None) -> Tensor");
  m.def("_tree_scan_backward(Tensor grad, " TREE_SCAN_INPUTS
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");

  // The CPU instructions that the ops use here: 'AVX-512', 'AVX2', 'SSE2' or,
  // on other processors, 'generic'.
  m.def("_instruction_set() -> str",
        [] { return std::string(mmssm::instruction_set()); });
  m.def("_keep_freed_memory(int most_bytes) -> ()", mmssm::keep_freed_memory);
}
