// The tree scan's kernels: instances and launches.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "../common/cuda_launch.h"
#include "cuda_passes.cuh"
#include "cuda_steps.cuh"

namespace mmssm {
namespace cuda {

template <typename T, typename Token>
int launch_tree_values(const ScanArgs<T, Token>& p, const ScanPlan& plan, T* w,
                       T* values, void* stream) {
  return launch(&tree_values_kernel<T, Token>, plan.grid(p.size), plan.threads,
                fwd_memory<T>(p.size, plan.threads), stream, p, plan, w,
                values);
}

template <typename T, typename Token>
int launch_tree_grads(const ScanArgs<T, Token>& p, const ScanPlan& plan,
                      const ScanGrads<T>& g, const T* through, const T* grads,
                      void* stream) {
  return launch(&tree_grads_kernel<T, Token>, plan.grid(p.size), plan.threads,
                bwd_memory<T>(p.size, plan.threads), stream, p, plan, g,
                through, grads);
}

// `columns`: how many rows of a tile a thread has in shared memory.
template <typename T, typename... Parameters, typename... Arguments>
int launch_pass(void (*kernel)(Parameters...), const ScanSizes& s, int columns,
                void* stream, const Arguments&... arguments) {
  const int64_t blocks = (s.channels + kPassThreads - 1) / kPassThreads;
  return launch(kernel, s.batch * blocks, kPassThreads,
                columns * kTile * kPassThreads * sizeof(T), stream, s,
                arguments...);
}

template <typename T>
int launch_climb(const ScanSizes& s, const int32_t* parent, const T* w, T* rows,
                 void* stream) {
  return launch_pass<T>(&climb_kernel<T>, s, 1, stream, parent, w, rows);
}

template <typename T>
int launch_descend(const ScanSizes& s, const int32_t* parent,
                   const int32_t* token, const T* w, T* rows, T* out,
                   void* stream) {
  return launch_pass<T>(&descend_kernel<T>, s, 1, stream, parent, token, w,
                        rows, out);
}

template <typename T>
int launch_descend_both(const ScanSizes& s, const int32_t* parent, T* w,
                        T* rows, T* grads, void* stream) {
  return launch_pass<T>(&descend_both_kernel<T>, s, 2, stream, parent, w, rows,
                        grads);
}

#define MMSSM_INSTANCE(T, Token)                                              \
  template int launch_tree_values(const ScanArgs<T, Token>&, const ScanPlan&, \
                                  T*, T*, void*);                             \
  template int launch_tree_grads(const ScanArgs<T, Token>&, const ScanPlan&,  \
                                 const ScanGrads<T>&, const T*, const T*,     \
                                 void*);
MMSSM_INSTANCE(double, double)
MMSSM_INSTANCE(float, float)
MMSSM_INSTANCE(float, c10::Half)
MMSSM_INSTANCE(float, c10::BFloat16)
#undef MMSSM_INSTANCE
#define MMSSM_INSTANCE(T)                                                    \
  template int launch_climb(const ScanSizes&, const int32_t*, const T*, T*,  \
                            void*);                                          \
  template int launch_descend(const ScanSizes&, const int32_t*,              \
                              const int32_t*, const T*, T*, T*, void*);      \
  template int launch_descend_both(const ScanSizes&, const int32_t*, T*, T*, \
                                   T*, void*);
MMSSM_INSTANCE(double)
MMSSM_INSTANCE(float)
#undef MMSSM_INSTANCE

}  // namespace cuda
}  // namespace mmssm
