// The backward kernels' instances and their launches.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "../common/cuda_launch.h"
#include "cuda_bwd.cuh"

namespace mmssm {
namespace cuda {

template <typename T>
size_t bwd_memory(const ScanSizes& s, int threads) {
  unsigned char nothing[1];
  Memory memory(nothing);
  BackwardMemory<T>(memory, s, threads);
  return memory.used;
}

template <typename T, typename Token>
int launch_bwd(const ScanArgs<T, Token>& p, const ScanPlan& plan,
               const Carry<T>& carry, const ScanGrads<T>& grads, void* stream) {
  auto* kernel = p.output == ScanOutput::kStates ? &bwd_kernel<T, Token, true>
                                                 : &bwd_kernel<T, Token, false>;
  return launch(kernel, plan.grid(p.size), plan.threads,
                bwd_memory<T>(p.size, plan.threads), stream, p, plan, carry,
                grads);
}

template <typename T, typename Token>
int launch_bwd_carry(const ScanArgs<T, Token>& p, const ScanPlan& plan,
                     const Carry<T>& carry, const T* grad, void* stream) {
  auto* kernel = p.output == ScanOutput::kStates
                     ? &bwd_carry_kernel<T, Token, true>
                     : &bwd_carry_kernel<T, Token, false>;
  return launch(kernel, plan.grid(p.size), plan.threads,
                fwd_memory<T>(p.size, plan.threads), stream, p, plan, carry,
                grad);
}

#define MMSSM_INSTANCE(T, Token)                                            \
  template int launch_bwd(const ScanArgs<T, Token>&, const ScanPlan&,       \
                          const Carry<T>&, const ScanGrads<T>&, void*);     \
  template int launch_bwd_carry(const ScanArgs<T, Token>&, const ScanPlan&, \
                                const Carry<T>&, const T*, void*);
MMSSM_INSTANCE(double, double)
MMSSM_INSTANCE(float, float)
MMSSM_INSTANCE(float, c10::Half)
MMSSM_INSTANCE(float, c10::BFloat16)
#undef MMSSM_INSTANCE
template size_t bwd_memory<double>(const ScanSizes&, int);
template size_t bwd_memory<float>(const ScanSizes&, int);

}  // namespace cuda
}  // namespace mmssm
