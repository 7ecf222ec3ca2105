// What tests set before they call the CUDA ops on the emulator. The ops'
// schemas are those of csrc/ops.cpp, in a library of their own.
#include <torch/library.h>

#include "../../csrc/common/cuda_device.h"
#include "../../csrc/routed_selective_scan/cuda_plan.h"
#include "../../csrc/state_fusion/cuda_plan.h"
#include "broken_kernels.h"

namespace mmssm {
const char* instruction_set() { return "emulated"; }
}  // namespace mmssm

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

// What host code does with a launch's error.
void check_launch(int64_t error) {
  pending_error = int(error);
  mmssm::cuda::check(int(error));
}
int64_t last_error() { return cudaGetLastError(); }

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmssm_emulated, m) {
  m.def("set_fusion_ranges(int ranges) -> ()", &set_fusion_ranges);
  m.def("set_plan(int threads, int segments, int shares) -> ()", &set_plan);
  m.def("set_order(int order, bool blocks_reversed) -> ()", &set_order);
  m.def("check_launch(int error) -> ()", &check_launch);
  m.def("last_error() -> int", &last_error);
  m.def("broken(str fault) -> Tensor", &run_broken_kernel);
}
