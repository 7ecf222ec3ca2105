#include <torch/library.h>

#include "routed_scan.h"
#include "state_fusion.h"
#include "tree_scan.h"

namespace mmssm {

TORCH_LIBRARY_IMPL(mmssm, CUDA, m) {
  m.impl("routed_selective_scan", &cuda::forward);
  m.impl("_routed_selective_scan_forward", &cuda::forward_with_checkpoints);
  m.impl("_routed_selective_scan_backward", &cuda::backward);
  m.impl("state_fusion", &cuda::fuse);
  m.impl("_state_fusion_backward", &cuda::fuse_backward);
  m.impl("tree_scan", &cuda::scan_tree);
  m.impl("_tree_scan_backward", &cuda::scan_tree_backward);
}

}  // namespace mmssm
