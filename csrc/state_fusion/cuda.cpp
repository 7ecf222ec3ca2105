// The state fusion on a CUDA device: memory and launches.
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <limits>

#include "../common/cuda_device.h"
#include "cuda_plan.h"
#include "grads.h"

namespace mmssm {
namespace cuda {
namespace {

using at::Tensor;

// Blocks of a launch for each multiprocessor, about: some times what it has at
// a time (3 in forward, else 2), so that little waits for the last. Parameters'
// gradients have a part for each.
constexpr int64_t kForwardBlocks = 9, kMapBlocks = 8, kParameterBlocks = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_empty(const FusionSizes& s) { return s.batch == 0 || s.channels == 0; }

// Kernels count rows, and a row's bytes, in 32 bits; all else in 64.
void check_sizes(const FusionSizes& s) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  TORCH_CHECK(s.width * s.channels <= kMost / int64_t(sizeof(double)) &&
                  s.batch * s.height <= kMost / 2,
              "state_fusion: a map of ", s.width, " columns and ", s.channels,
              " channels, or ", s.batch, " maps of ", s.height,
              " rows, are too large for the GPU's kernels; split the map");
}

// Only speed depends on it. Needs at least one of everything.
FusionPlan make_plan(const FusionSizes& s, int64_t blocks_per_multiprocessor) {
  FusionPlan plan;
  plan.strips = int(ceil_div(s.width, kStripTokens));
  plan.channel_blocks = ceil_div(s.channels, kWarp);
  plan.panels = ceil_div(plan.strips, kPanelStrips);
  const int64_t rows = s.batch * s.height, strips = rows * plan.strips;
  const int64_t wanted =
      blocks_per_multiprocessor * current_device().multiprocessors;
  // Whole rounds of a strip for every warp.
  const int64_t rounds = std::max<int64_t>(
      1, strips * plan.channel_blocks / (kFusionWarps * wanted));
  plan.ranges =
      std::min(rows, ceil_div(strips, kFusionWarps * rounds * plan.panels));
  if (fusion_ranges()) plan.ranges = std::min(rows, fusion_ranges());
  return plan;
}

template <typename T, typename Token>
void run_bwd(const FusionInputs& in, const FusionPlan& plan,
             const FusionGrads<T, Token>& grads) {
  const auto p = make_args<T, Token>(in);
  void* stream = current_stream();
  Tensor fused;
  if (p.c) fused = at::empty(in.x.sizes(), in.taps.options());
  T* to = p.c ? fused.mutable_data_ptr<T>() : nullptr;
  check(launch_fusion_parameters<T, Token>(p, plan, grads, to, stream));
  const FusionPlan map_plan = make_plan(in.size, kMapBlocks);
  check(p.c ? launch_fusion_map<T, Token, T>(p, map_plan, to, grads.x, stream)
            : launch_fusion_map<T, Token, Token>(p, map_plan, grads.out,
                                                 grads.x, stream));
}

Tensor forward(const FusionCall& call) {
  const FusionInputs in = prepare(call, /*keep_half=*/true);
  check_sizes(in.size);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const Tensor out = at::empty(in.x.sizes(), in.x.options());
  if (!is_empty(in.size))
    dispatch(in.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      check(launch_fusion<T, Token>(
          make_args<T, Token>(in), make_plan(in.size, kForwardBlocks),
          out.mutable_data_ptr<Token>(), current_stream()));
    });
  return out.to(call.x.scalar_type());
}

FusionGradients backward(const Tensor& grad, const FusionCall& call) {
  const FusionInputs in = prepare(call, /*keep_half=*/true);
  check_grad(call, grad);
  check_sizes(in.size);
  const c10::cuda::CUDAGuard guard(in.x.device());
  if (is_empty(in.size)) return FusionGradTensors(in, 1, 1).add_up(call);
  const FusionPlan plan = make_plan(in.size, kParameterBlocks);
  const FusionGradTensors g(in, plan.parts(), plan.channel_blocks);
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  dispatch(in.x.scalar_type(), [&](auto t, auto token) {
    using T = decltype(t);
    using Token = decltype(token);
    run_bwd<T, Token>(in, plan, g.pointers<T, Token>(grad_out));
  });
  return g.add_up(call);
}

}  // namespace
}  // namespace cuda

TORCH_LIBRARY_IMPL(MMSSM_LIBRARY, MMSSM_CUDA_KEY, m) {
  register_state_fusion<&cuda::forward, &cuda::backward>(m, FusionCallTypes());
}

}  // namespace mmssm
