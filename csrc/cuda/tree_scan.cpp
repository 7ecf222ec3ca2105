// The tree scan on a CUDA device: memory and launches.
#include "tree_scan.h"

#include <c10/cuda/CUDAGuard.h>

#include <algorithm>

#include "../common/tree_inputs.h"
#include "device.h"
#include "tree_plan.h"

namespace mmssm {
namespace cuda {
namespace {

using at::Tensor;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_empty(const ScanSizes& s) { return s.batch == 0 || s.channels == 0; }

// For the kernels in which every step is for itself: as many segments as fill
// the chip.
ScanPlan make_steps_plan(const ScanSizes& s, MemoryOf memory) {
  ScanPlan plan = make_plan(s, memory, /*deterministic=*/true);
  int64_t segments = ceil_div(blocks_that_fill(plan.threads), plan.grid(s));
  if (plan_limits().segments) segments = plan_limits().segments;
  segments = std::min(segments, checkpoint_count(s));
  plan.segment_steps =
      ceil_div(checkpoint_count(s), segments) * kCheckpointSteps;
  plan.segments = ceil_div(s.steps, plan.segment_steps);
  return plan;
}

Tensor new_rows(const TreeInputs& in) {
  const ScanSizes& s = in.scan.size;
  return at::empty({s.batch, s.steps, s.channels}, in.scan.a.options());
}

template <typename T, typename Token>
void run_forward(const TreeInputs& in, bool delta_softplus, const Tensor& out) {
  const auto p = make_args<T, Token>(in, delta_softplus);
  const ScanSizes& s = p.scan.size;
  check_offsets(s, widest_token(p.scan));
  const Tensor transitions = new_rows(in), values = new_rows(in);
  T *w = transitions.mutable_data_ptr<T>(),
    *rows = values.mutable_data_ptr<T>();
  void* stream = current_stream();
  check(launch_tree_values<T, Token>(
      p.scan, make_steps_plan(s, &forward_memory<T>), w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, rows, stream));
  check(launch_descend<T>(s, p.parent, p.scan.route, w, rows,
                          out.mutable_data_ptr<T>(), stream));
}

// `grads` has the gradients of the states, in the order of the steps.
template <typename T, typename Token>
void run_backward(const TreeInputs& in, bool delta_softplus,
                  const ScanPlan& plan, const ScanGrads<T>& g, T* grads) {
  const auto p = make_args<T, Token>(in, delta_softplus);
  const ScanSizes& s = p.scan.size;
  check_offsets(s, widest_token(p.scan));
  const Tensor transitions = new_rows(in), values = new_rows(in);
  T *w = transitions.mutable_data_ptr<T>(),
    *rows = values.mutable_data_ptr<T>();
  void* stream = current_stream();
  check(launch_tree_values<T, Token>(
      p.scan, make_steps_plan(s, &forward_memory<T>), w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, rows, stream));
  check(launch_climb<T>(s, p.parent, w, grads, stream));
  check(launch_descend_both<T>(s, p.parent, w, rows, grads, stream));
  check(launch_tree_grads<T, Token>(p.scan, plan, g, w, grads, stream));
}

}  // namespace

Tensor scan_tree(const Tensor& x, const Tensor& dt, const Tensor& A,
                 const Tensor& B, const OptionalTensor& dt_weight,
                 const OptionalTensor& dt_bias, const Tensor& order,
                 bool delta_softplus, std::optional<at::ScalarType> out_dtype) {
  const TreeInputs in =
      prepare_tree(x, dt, A, B, dt_weight, dt_bias, order, out_dtype, true);
  const c10::cuda::CUDAGuard guard(x.device());
  const Tensor out = at::empty(x.sizes(), in.scan.a.options());
  if (!is_empty(in.scan.size))
    dispatch(in.scan.x.scalar_type(), [&](auto t, auto token) {
      run_forward<decltype(t), decltype(token)>(in, delta_softplus, out);
    });
  return out.to(out_dtype.value_or(x.scalar_type()));
}

SixTensors scan_tree_backward(const Tensor& grad, const Tensor& x,
                              const Tensor& dt, const Tensor& A,
                              const Tensor& B, const OptionalTensor& dt_weight,
                              const OptionalTensor& dt_bias,
                              const Tensor& order, bool delta_softplus) {
  const TreeInputs in =
      prepare_tree(x, dt, A, B, dt_weight, dt_bias, order, {}, true);
  check_tree_grad(grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  std::optional<GradTensors> g;
  if (!is_empty(in.scan.size))
    dispatch(in.scan.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      const ScanPlan plan = make_steps_plan(in.scan.size, &backward_memory<T>);
      g.emplace(in.scan, GradParts{1, plan.blocks_per_group,
                                   plan.shares * plan.segments});
      const Tensor grads = grad.to(in.scan.a.scalar_type())
                               .index_select(1, in.scan.routes[0])
                               .contiguous();
      run_backward<T, Token>(in, delta_softplus, plan, g->pointers<T>(grads),
                             grads.mutable_data_ptr<T>());
    });
  return add_up_tree(g, x, dt, A, B, dt_weight, dt_bias);
}

}  // namespace cuda
}  // namespace mmssm
