// The CUDA kernels' own sources, compiled as C++.
#include "../../csrc/cuda/fusion_kernels.cu"
#include "../../csrc/cuda/scan_backward.cu"
#include "../../csrc/cuda/scan_forward.cu"
#include "../../csrc/cuda/tree_kernels.cu"

namespace mmssm {
namespace cuda {
alignas(16) unsigned char shared_bytes[kEmulatedSharedBytes];
}
}  // namespace mmssm
