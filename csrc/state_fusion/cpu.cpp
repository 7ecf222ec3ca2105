// The state fusion on a CPU: memory, threads, and the kernels' calls.
#include <ATen/Parallel.h>

#include "../common/scratch.h"
#include "cpu_kernels.h"
#include "grads.h"

namespace mmssm {
namespace {

using at::Tensor;

template <typename T>
const FusionKernels<T>& kernels() {
  static const FusionKernels<T> best = MMSSM_BEST_SET(fusion_kernels<T>);
  return best;
}

// The pieces of a call's work: maps, bands of rows, blocks of channels. The
// blocks of one band come one after the other: each reads a part of every line
// of memory that the band has brought into the second-level cache.
struct Pieces {
  FusionSizes size;
  int64_t blocks, bands = 1;

  Pieces(const FusionSizes& s, int64_t element_bytes)
      : size(s), blocks(channel_blocks(s)) {
    constexpr int64_t kCacheBytes = 1 << 20, kFewestRows = 16;
    const int64_t row_bytes = s.width * s.channels * element_bytes;
    const int64_t fitting = kCacheBytes / std::max<int64_t>(row_bytes, 1);
    const int64_t rows = std::max(fitting - 2 * kReach, kFewestRows);
    bands = (s.height + rows - 1) / rows;
    // Bands read rows of their neighbors again: no more than threads need.
    const int64_t wanted = 2 * at::get_num_threads();
    while (count() < wanted && s.height / (bands + 1) >= 2 * kReach) ++bands;
  }
  int64_t count() const { return size.batch * bands * blocks; }
  FusionWork operator[](int64_t i) const {
    const int64_t band = i / blocks % bands;
    return {i / blocks / bands, i % blocks, band * size.height / bands,
            (band + 1) * size.height / bands};
  }
};

template <typename T>
void run_fwd(const FusionInputs& in, const Tensor& out) {
  const FusionArgs<T> p = make_args<T>(in);
  const Pieces pieces(in.size, sizeof(T));
  T* y = out.mutable_data_ptr<T>();
  at::parallel_for(0, pieces.count(), 1, [&](int64_t begin, int64_t end) {
    const auto& fwd = kernels<T>().fwd;
    const Scratch<T> scratch(fwd(p, y, pieces[begin], nullptr));
    for (int64_t i = begin; i < end; ++i) fwd(p, y, pieces[i], scratch.data());
  });
}

Tensor forward(const FusionCall& call) {
  const FusionInputs in = prepare(call);
  const Tensor out = at::empty(in.x.sizes(), in.x.options());
  if (in.x.scalar_type() == at::kDouble)
    run_fwd<double>(in, out);
  else
    run_fwd<float>(in, out);
  return out.to(call.x.scalar_type());
}

// Gradients of parameters are sums of one thread's pieces: which these are
// depends on nothing but the number of threads.
template <typename T>
void run_bwd(const FusionInputs& in, const FusionGrads<T>& grads) {
  const FusionArgs<T> p = make_args<T>(in);
  const Pieces pieces(in.size, sizeof(T));
  at::parallel_for(0, pieces.count(), 1, [&](int64_t begin, int64_t end) {
    const auto& bwd = kernels<T>().bwd;
    const Scratch<T> scratch(bwd(p, grads, pieces[begin], nullptr));
    FusionGrads<T> own = grads;
    own.taps += at::get_thread_num() * kTaps * in.size.channels;
    if (own.d) own.d += at::get_thread_num() * in.size.channels;
    for (int64_t i = begin; i < end; ++i)
      bwd(p, own, pieces[i], scratch.data());
  });
}

FusionGradients backward(const Tensor& grad, const FusionCall& call) {
  const FusionInputs in = prepare(call);
  check_grad(call, grad);
  const FusionGradTensors g(in, at::get_num_threads(), channel_blocks(in.size));
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  if (in.x.scalar_type() == at::kDouble)
    run_bwd<double>(in, g.pointers<double>(grad_out));
  else
    run_bwd<float>(in, g.pointers<float>(grad_out));
  return g.add_up(call);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  register_state_fusion<&forward, &backward>(m, FusionCallTypes());
}

}  // namespace mmssm
