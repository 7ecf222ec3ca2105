// How one launch of the state fusion shares its work out over the chip. Plain
// data, for host and device.
#pragma once

#include "../common/cuda_launch.h"
#include "strip.h"

namespace mmssm {
namespace cuda {

constexpr int kFusionThreads = 256;
constexpr int kFusionWarps = kFusionThreads / kWarp;
// The rows that a block is at must stay in the first-level cache: 12 rows of
// 38 tokens, with their neighbors, are 57 KB of float32.
constexpr int kPanelStrips = 4;

// A block of threads has 32 channels, a panel of neighboring strips, and a
// range of rows, counted through all the maps of the batch.
struct FusionPlan {
  int strips;  // of a row
  int64_t channel_blocks, panels, ranges;

  int64_t parts() const { return panels * ranges; }
  int64_t grid() const { return channel_blocks * parts(); }
};

// Set by tests, so that small inputs take every path: as many ranges; 0 leaves
// the choice.
inline int64_t& fusion_ranges() {
  static int64_t ranges = 0;
  return ranges;
}

// The kernels, by plain pointers (cuda_kernels.cu). Launches go to `stream`,
// a cudaStream_t; an error is returned as a cudaError_t.
template <typename T, typename Token>
int launch_fusion(const FusionArgs<T, Token>& p, const FusionPlan& plan,
                  Token* out, void* stream);
// All gradients but x's, one part for each of the plan's. With a read-out also
// `fused` (B, H, W, C), the gradient of the sums of taps.
template <typename T, typename Token>
int launch_fusion_parameters(const FusionArgs<T, Token>& p,
                             const FusionPlan& plan,
                             const FusionGrads<T, Token>& grads, T* fused,
                             void* stream);
// x's, from that of the sums of taps.
template <typename T, typename Token, typename Grad>
int launch_fusion_map(const FusionArgs<T, Token>& p, const FusionPlan& plan,
                      const Grad* fused, Token* d_x, void* stream);

}  // namespace cuda
}  // namespace mmssm
