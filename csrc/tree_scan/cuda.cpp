// The tree scan on a CUDA device: memory and launches.
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "../common/cuda_device.h"
#include "cuda_plan.h"
#include "inputs.h"

namespace mmssm {
namespace cuda {
namespace {

using at::Tensor;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_empty(const ScanSizes& s) { return s.batch == 0 || s.channels == 0; }

// For the kernels in which every step is for itself: as many segments as fill
// the chip.
ScanPlan make_steps_plan(const ScanSizes& s, MemoryOf memory) {
  ScanPlan plan = make_plan(kTreeScan, s, memory, /*deterministic=*/true);
  int64_t segments = ceil_div(blocks_that_fill(plan.threads), plan.grid(s));
  if (plan_limits().segments) segments = plan_limits().segments;
  segments = std::min(segments, checkpoint_count(s));
  plan.segment_steps =
      ceil_div(checkpoint_count(s), segments) * kCheckpointSteps;
  plan.segments = ceil_div(s.seq_len, plan.segment_steps);
  return plan;
}

Tensor new_rows(const TreeInputs& in) {
  const ScanSizes& s = in.scan.size;
  return at::empty({s.batch, s.seq_len, s.channels}, in.scan.a.options());
}

template <typename T, typename Token>
void run_fwd(const TreeInputs& in, const Tensor& out) {
  const auto p = make_args<T, Token>(in);
  const ScanSizes& s = p.scan.size;
  check_offsets(kTreeScan, s, widest_token(p.scan));
  const Tensor transitions = new_rows(in), values = new_rows(in);
  T *w = transitions.mutable_data_ptr<T>(),
    *rows = values.mutable_data_ptr<T>();
  void* stream = current_stream();
  check(launch_tree_values<T, Token>(p.scan, make_steps_plan(s, &fwd_memory<T>),
                                     w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, rows, stream));
  check(launch_descend<T>(s, p.parent, p.scan.route, w, rows,
                          out.mutable_data_ptr<T>(), stream));
}

// `grads` has the gradients of the states, in the order of the steps.
template <typename T, typename Token>
void run_bwd(const TreeInputs& in, const ScanPlan& plan, const ScanGrads<T>& g,
             T* grads) {
  const auto p = make_args<T, Token>(in);
  const ScanSizes& s = p.scan.size;
  check_offsets(kTreeScan, s, widest_token(p.scan));
  const Tensor transitions = new_rows(in), values = new_rows(in);
  T *w = transitions.mutable_data_ptr<T>(),
    *rows = values.mutable_data_ptr<T>();
  void* stream = current_stream();
  check(launch_tree_values<T, Token>(p.scan, make_steps_plan(s, &fwd_memory<T>),
                                     w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, grads, stream));
  check(launch_descend_both<T>(s, p.parent, w, rows, grads, stream));
  check(launch_tree_grads<T, Token>(p.scan, plan, g, w, grads, stream));
}

Tensor forward(const TreeCall& call, std::optional<at::ScalarType> out_dtype) {
  check_out_dtype(kTreeScan, out_dtype);
  const TreeInputs in = prepare(call, /*keep_half=*/true);
  const c10::cuda::CUDAGuard guard(call.x.device());
  const Tensor out = at::empty(call.x.sizes(), in.scan.a.options());
  if (!is_empty(in.scan.size))
    dispatch(in.scan.x.scalar_type(), [&](auto t, auto token) {
      run_fwd<decltype(t), decltype(token)>(in, out);
    });
  return out.to(result_dtype(out_dtype, call.x));
}

TreeGradients backward(const Tensor& grad, const TreeCall& call) {
  const TreeInputs in = prepare(call, /*keep_half=*/true);
  check_grad(call, grad);
  const c10::cuda::CUDAGuard guard(call.x.device());
  std::optional<GradTensors> g;
  if (!is_empty(in.scan.size))
    dispatch(in.scan.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      const ScanPlan plan = make_steps_plan(in.scan.size, &bwd_memory<T>);
      g.emplace(in.scan, GradParts{1, plan.blocks_per_group,
                                   plan.shares * plan.segments});
      const Tensor grads = grad.to(in.scan.a.scalar_type())
                               .index_select(1, in.scan.routes[0])
                               .contiguous();
      run_bwd<T, Token>(in, plan, g->pointers<T>(grads),
                        grads.mutable_data_ptr<T>());
    });
  return add_up(g, call);
}

}  // namespace
}  // namespace cuda

TORCH_LIBRARY_IMPL(MMSSM_LIBRARY, MMSSM_CUDA_KEY, m) {
  register_tree_scan<&cuda::forward, &cuda::backward>(m, TreeCallTypes());
}

}  // namespace mmssm
