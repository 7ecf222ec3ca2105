// The forward kernels' instances and their launches.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "../common/cuda_launch.h"
#include "cuda_fwd.cuh"

namespace mmssm {
namespace cuda {

template <typename T>
size_t fwd_memory(const ScanSizes& s, int threads) {
  unsigned char nothing[1];
  Memory memory(nothing);
  ForwardMemory<T>(memory, s, threads);
  return memory.used;
}

template <typename T, typename Token>
int launch_fwd(const ScanArgs<T, Token>& p, const ScanPlan& plan,
               const Carry<T>& carry, T* out, FwdKind kind, void* stream) {
  const auto start = [&](auto* kernel) {
    return launch(kernel, plan.grid(p.size), plan.threads,
                  fwd_memory<T>(p.size, plan.threads), stream, p, plan, carry,
                  out);
  };
  if (kind == FwdKind::kSum) return start(&fwd_kernel<T, Token, FwdKind::kSum>);
  if (kind == FwdKind::kStates)
    return start(&fwd_kernel<T, Token, FwdKind::kStates>);
  return start(&fwd_kernel<T, Token, FwdKind::kCarry>);
}

template <typename T>
int launch_combine(const ScanSizes& s, int64_t segments, const T* a,
                   const Carry<T>& carry, bool backward, void* stream) {
  constexpr int kThreads = 256;
  const int64_t all = s.batch * s.routes * s.d_state * s.channels;
  return launch(&combine_kernel<T>, (all + kThreads - 1) / kThreads, kThreads,
                0, stream, s, segments, a, carry, backward);
}

#define MMSSM_INSTANCE(T, Token)                                      \
  template int launch_fwd(const ScanArgs<T, Token>&, const ScanPlan&, \
                          const Carry<T>&, T*, FwdKind, void*);
MMSSM_INSTANCE(double, double)
MMSSM_INSTANCE(float, float)
MMSSM_INSTANCE(float, c10::Half)
MMSSM_INSTANCE(float, c10::BFloat16)
#undef MMSSM_INSTANCE
template size_t fwd_memory<double>(const ScanSizes&, int);
template size_t fwd_memory<float>(const ScanSizes&, int);
template int launch_combine(const ScanSizes&, int64_t, const double*,
                            const Carry<double>&, bool, void*);
template int launch_combine(const ScanSizes&, int64_t, const float*,
                            const Carry<float>&, bool, void*);

}  // namespace cuda
}  // namespace mmssm
