// The tree scan's kernels, by plain pointers (cuda_kernels.cu). Launches go to
// `stream`, a cudaStream_t; an error is returned as a cudaError_t.
//
// What goes from one kernel to the next is (B, L, C), L in the order of the
// steps and not of the tokens: neighboring threads, which have neighboring
// channels, and a thread's next steps then read neighboring memory.
#pragma once

#include "../routed_selective_scan/cuda_plan.h"
#include "args.h"

namespace mmssm {
namespace cuda {

// Transitions and values of all steps, in any order.
template <typename T, typename Token>
int launch_tree_values(const ScanArgs<T, Token>& p, const ScanPlan& plan, T* w,
                       T* values, void* stream);

// From values to the sums of subtrees, in place.
template <typename T>
int launch_climb(const ScanSizes& s, const int32_t* parent, const T* w, T* rows,
                 void* stream);

// From the sums of subtrees to the states, in place and in `out` (B, L, C), in
// the order of the tokens.
template <typename T>
int launch_descend(const ScanSizes& s, const int32_t* parent,
                   const int32_t* token, const T* w, T* rows, T* out,
                   void* stream);

// From the sums of subtrees, of values and of gradients, to the gradients of
// values and, in place of the transitions, those of their exponents.
template <typename T>
int launch_descend_both(const ScanSizes& s, const int32_t* parent, T* w,
                        T* rows, T* grads, void* stream);

// From these to all gradients, of all steps in any order.
template <typename T, typename Token>
int launch_tree_grads(const ScanArgs<T, Token>& p, const ScanPlan& plan,
                      const ScanGrads<T>& g, const T* through, const T* grads,
                      void* stream);

}  // namespace cuda
}  // namespace mmssm
