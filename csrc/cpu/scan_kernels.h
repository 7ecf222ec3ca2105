// The routed scan's loops for one instruction set, and the choice among them.
#pragma once

#include "../common/scan_args.h"

namespace mmssm {

// Channels are handled in blocks of this many: long enough to fill vector
// registers, short enough that a block's states stay in the first-level cache.
constexpr int kLanes = 32;
// Steps whose decays and states backward keeps at a time; only every such
// chunk's first state is remembered over the whole route.
constexpr int64_t kChunk = 32;

MMSSM_INLINE int64_t blocks_per_group(const ScanSizes& s) {
  return (s.channels / s.groups + kLanes - 1) / kLanes;
}
MMSSM_INLINE int64_t channel_blocks(const ScanSizes& s) {
  return s.groups * blocks_per_group(s);
}

// Elements of scratch memory that one call of `forward` or `backward` needs.
MMSSM_INLINE int64_t forward_scratch(const ScanSizes& s) {
  return kLanes * (2 * s.states + s.rank + 8) + s.states + s.rank;
}
MMSSM_INLINE int64_t backward_scratch(const ScanSizes& s) {
  const int64_t chunks = (s.steps + kChunk - 1) / kChunk;
  return forward_scratch(s) + kLanes * ((chunks + 3 * kChunk + 8) * s.states +
                                        5 * kChunk + 2 * s.rank + 16);
}

// What one call works on: a block of channels of one batch item, and the routes
// [first_route, last_route) of it.
struct ScanWork {
  int64_t batch, block, first_route, last_route;
};

// `forward` computes the outputs, `backward` the gradients of all routes, with
// partial sum number `part`.
template <typename T>
struct ScanKernels {
  void (*forward)(const ScanArgs<T>&, T* out, const ScanWork&, T* scratch);
  void (*backward)(const ScanArgs<T>&, const ScanGrads<T>&, int64_t batch,
                   int64_t block, int64_t part, T* scratch);
};

// The fastest set this processor has, chosen when first asked for.
template <typename T>
const ScanKernels<T>& scan_kernels();

namespace generic {
template <typename T>
ScanKernels<T> kernels();
}
#if defined(__x86_64__) && defined(__GNUC__)
#define MMSSM_X86_DISPATCH 1
namespace avx2 {
template <typename T>
ScanKernels<T> kernels();
}
namespace avx512 {
template <typename T>
ScanKernels<T> kernels();
}
#endif

}  // namespace mmssm
