#include <torch/library.h>

#include "routed_scan.h"

namespace mmssm {

TORCH_LIBRARY_IMPL(mmssm, CUDA, m) {
  m.impl("routed_selective_scan", &cuda::forward);
  m.impl("_routed_selective_scan_forward", &cuda::forward_with_checkpoints);
  m.impl("_routed_selective_scan_backward", &cuda::backward);
}

}  // namespace mmssm
