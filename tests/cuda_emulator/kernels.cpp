// The CUDA kernels' own sources, compiled as C++.
#include "../../csrc/routed_selective_scan/cuda_bwd.cu"
#include "../../csrc/routed_selective_scan/cuda_fwd.cu"
#include "../../csrc/state_fusion/cuda_kernels.cu"
#include "../../csrc/tree_scan/cuda_kernels.cu"

namespace mmssm {
namespace cuda {
alignas(16) unsigned char shared_bytes[kEmulatedSharedBytes];
}
}  // namespace mmssm
