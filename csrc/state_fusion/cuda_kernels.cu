// The state fusion's kernels: instances and launches.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "../common/cuda_launch.h"
#include "cuda_bwd.cuh"
#include "cuda_fwd.cuh"

namespace mmssm {
namespace cuda {

template <typename T, typename Token>
int launch_fusion(const FusionArgs<T, Token>& p, const FusionPlan& plan,
                  Token* out, void* stream) {
  auto* kernel =
      p.c ? &fusion_kernel<T, Token, true> : &fusion_kernel<T, Token, false>;
  return launch(kernel, plan.grid(), kFusionThreads, 0, stream, p, plan, out);
}

template <typename T, typename Token>
int launch_fusion_parameters(const FusionArgs<T, Token>& p,
                             const FusionPlan& plan,
                             const FusionGrads<T, Token>& grads, T* fused,
                             void* stream) {
  auto* kernel = p.c ? &fusion_parameters_kernel<T, Token, true>
                     : &fusion_parameters_kernel<T, Token, false>;
  return launch(kernel, plan.grid(), kFusionThreads,
                kFusionWarps * kChannelSums * kWarp * sizeof(T), stream, p,
                plan, grads, fused);
}

template <typename T, typename Token, typename Grad>
int launch_fusion_map(const FusionArgs<T, Token>& p, const FusionPlan& plan,
                      const Grad* fused, Token* d_x, void* stream) {
  return launch(&fusion_map_kernel<T, Token, Grad>, plan.grid(), kFusionThreads,
                0, stream, p.size, p.taps, plan, fused, d_x);
}

#define MMSSM_INSTANCE(T, Token)                                             \
  template int launch_fusion(const FusionArgs<T, Token>&, const FusionPlan&, \
                             Token*, void*);                                 \
  template int launch_fusion_parameters(                                     \
      const FusionArgs<T, Token>&, const FusionPlan&,                        \
      const FusionGrads<T, Token>&, T*, void*);                              \
  template int launch_fusion_map(const FusionArgs<T, Token>&,                \
                                 const FusionPlan&, const Token*, Token*,    \
                                 void*);
MMSSM_INSTANCE(double, double)
MMSSM_INSTANCE(float, float)
MMSSM_INSTANCE(float, c10::Half)
MMSSM_INSTANCE(float, c10::BFloat16)
#undef MMSSM_INSTANCE
// With a read-out, `fused` is of the dtype of the math.
template int launch_fusion_map(const FusionArgs<float, c10::Half>&,
                               const FusionPlan&, const float*, c10::Half*,
                               void*);
template int launch_fusion_map(const FusionArgs<float, c10::BFloat16>&,
                               const FusionPlan&, const float*, c10::BFloat16*,
                               void*);

}  // namespace cuda
}  // namespace mmssm
