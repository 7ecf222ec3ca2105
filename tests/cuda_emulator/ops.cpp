// The CUDA ops on the emulator, as ops of their own on CPU tensors.
#include <torch/library.h>

#include "../../csrc/cuda/fusion_plan.h"
#include "../../csrc/cuda/routed_scan.h"
#include "../../csrc/cuda/scan_plan.h"
#include "../../csrc/cuda/state_fusion.h"
#include "../../csrc/cuda/tree_scan.h"
#include "broken_kernels.h"

namespace {

void set_plan(int64_t threads, int64_t segments, int64_t shares) {
  mmssm::cuda::plan_limits() = {threads, segments, shares};
}

void set_fusion_ranges(int64_t ranges) {
  mmssm::cuda::fusion_ranges() = ranges;
}

void set_order(int64_t order, bool blocks_reversed) {
  emulator::settings = {emulator::Order(order), blocks_reversed};
}

}  // namespace

TORCH_LIBRARY(mmssm_emulated, m) {
  const std::string inputs =
      "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? C, Tensor? D, "
      "Tensor? dt_weight, Tensor? dt_bias, Tensor routes, "
      "bool delta_softplus, str output";
  const auto define = [&](const std::string& before, const std::string& after) {
    m.def((before + inputs + after).c_str());
  };
  define("scan(", ", ScalarType? out_dtype) -> Tensor");
  define("forward(", ", ScalarType? out_dtype) -> (Tensor, Tensor)");
  define("backward(Tensor grad, Tensor checkpoints, ",
         ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, "
         "Tensor)");
  m.def(
      "fuse(Tensor x, Tensor taps, Tensor? C, Tensor? D, Tensor? u) -> "
      "Tensor");
  m.def(
      "fuse_backward(Tensor grad, Tensor x, Tensor taps, Tensor? C, "
      "Tensor? D, Tensor? u) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "scan_tree(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor? dt_weight, "
      "Tensor? dt_bias, Tensor order, bool delta_softplus, "
      "ScalarType? out_dtype) -> Tensor");
  m.def(
      "scan_tree_backward(Tensor grad, Tensor x, Tensor dt, Tensor A, "
      "Tensor B, Tensor? dt_weight, Tensor? dt_bias, Tensor order, "
      "bool delta_softplus) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("set_fusion_ranges(int ranges) -> ()", &set_fusion_ranges);
  m.def("set_plan(int threads, int segments, int shares) -> ()", &set_plan);
  m.def("set_order(int order, bool blocks_reversed) -> ()", &set_order);
  m.def("broken(str fault) -> Tensor", &run_broken_kernel);
}

TORCH_LIBRARY_IMPL(mmssm_emulated, CPU, m) {
  m.impl("scan", &mmssm::cuda::forward);
  m.impl("forward", &mmssm::cuda::forward_with_checkpoints);
  m.impl("backward", &mmssm::cuda::backward);
  m.impl("fuse", &mmssm::cuda::fuse);
  m.impl("fuse_backward", &mmssm::cuda::fuse_backward);
  m.impl("scan_tree", &mmssm::cuda::scan_tree);
  m.impl("scan_tree_backward", &mmssm::cuda::scan_tree_backward);
}
