// The routed selective scan on a CUDA device: memory and launches.
#include <ATen/Context.h>
#include <c10/cuda/CUDAGuard.h>

#include "../common/cuda_device.h"
#include "cuda_plan.h"
#include "grads.h"

namespace mmssm {
namespace cuda {
namespace {

using at::Tensor;

bool is_empty(const ScanSizes& s) {
  return s.batch == 0 || s.routes == 0 || s.seq_len == 0 || s.channels == 0;
}

template <typename T>
T* data(const Tensor& t) {
  return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
}

// Memory for what goes between segments; nothing for one.
struct CarryTensors {
  Tensor state, steps;

  CarryTensors(const ScanSizes& s, const ScanPlan& plan,
               const at::TensorOptions& options) {
    if (plan.segments == 1) return;
    state = at::empty({s.batch, s.routes, plan.segments, s.d_state, s.channels},
                      options);
    steps = at::empty({s.batch, s.routes, plan.segments, s.channels}, options);
  }
  template <typename T>
  Carry<T> pointers() const {
    return {data<T>(state), data<T>(steps)};
  }
};

// One launch for all routes, or one after the other for each: routes that pass
// the same token then add to it in a fixed order.
template <typename Launch>
void launch_routes(ScanPlan plan, const Launch& launch) {
  if (!plan.ordered) return check(launch(plan));
  const int64_t routes = plan.routes;
  plan.routes = 1;
  for (plan.first_route = 0; plan.first_route < routes; ++plan.first_route)
    check(launch(plan));
}

template <typename T, typename Token>
void run_fwd(const char* op, const ScanArgs<T, Token>& p, const Tensor& out,
             const at::TensorOptions& options) {
  check_offsets(op, p.size, widest_token(p));
  // Training must not fail in backward for what is known here.
  if (p.checkpoints) check_memory(op, p.size, &bwd_memory<T>);
  const ScanPlan plan =
      make_plan(op, p.size, &fwd_memory<T>,
                at::globalContext().deterministicAlgorithms());
  const CarryTensors tensors(p.size, plan, options);
  const Carry<T> carry = tensors.pointers<T>();
  void* stream = current_stream();
  if (plan.segments > 1) {
    check(
        launch_fwd<T, Token>(p, plan, carry, nullptr, FwdKind::kCarry, stream));
    check(launch_combine<T>(p.size, plan.segments, p.a, carry, false, stream));
  }
  const auto kind =
      p.output == ScanOutput::kStates ? FwdKind::kStates : FwdKind::kSum;
  launch_routes(plan, [&](const ScanPlan& part) {
    return launch_fwd<T, Token>(p, part, carry, data<T>(out), kind, stream);
  });
}

std::tuple<Tensor, Tensor> forward(const ScanCall& call,
                                   std::optional<at::ScalarType> out_dtype,
                                   bool keep_checkpoints) {
  check_out_dtype(call.op, out_dtype);
  const ScanInputs in = prepare(call, /*keep_half=*/true);
  const c10::cuda::CUDAGuard guard(in.x.device());
  const auto options = in.a.options();
  const Tensor out = at::zeros(output_shape(in), options);
  const Tensor checkpoints = new_checkpoints(in, keep_checkpoints);
  if (!is_empty(in.size))
    dispatch(in.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      run_fwd(call.op, make_args<T, Token>(in, checkpoints), out, options);
    });
  return {out.to(result_dtype(out_dtype, call.x)), checkpoints};
}

template <typename T, typename Token>
void run_bwd(const char* op, const ScanArgs<T, Token>& p, const ScanPlan& plan,
             const ScanGrads<T>& grads, const at::TensorOptions& options) {
  check_offsets(op, p.size, widest_token(p));
  const CarryTensors tensors(p.size, plan, options);
  const Carry<T> carry = tensors.pointers<T>();
  void* stream = current_stream();
  if (plan.segments > 1) {
    check(launch_bwd_carry<T, Token>(p, plan, carry, grads.out, stream));
    check(launch_combine<T>(p.size, plan.segments, p.a, carry, true, stream));
  }
  launch_routes(plan, [&](const ScanPlan& part) {
    return launch_bwd<T, Token>(p, part, carry, grads, stream);
  });
}

ScanGradients backward(const Tensor& grad, const Tensor& checkpoints,
                       const ScanCall& call) {
  const ScanInputs in = prepare(call, /*keep_half=*/true);
  check_backward(call, in, grad, checkpoints);
  const c10::cuda::CUDAGuard guard(in.x.device());
  std::optional<GradTensors> g;
  const Tensor grad_out = grad.to(in.a.scalar_type()).contiguous();
  const Tensor saved = checkpoints.contiguous();
  if (!is_empty(in.size))
    dispatch(in.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      const ScanPlan plan =
          make_plan(call.op, in.size, &bwd_memory<T>,
                    at::globalContext().deterministicAlgorithms());
      g.emplace(
          in, GradParts{1, plan.blocks_per_group, plan.shares * plan.segments});
      run_bwd(call.op, make_args<T, Token>(in, saved), plan,
              g->pointers<T>(grad_out), in.a.options());
    });
  return add_up(g, call);
}

}  // namespace
}  // namespace cuda

TORCH_LIBRARY_IMPL(MMSSM_LIBRARY, MMSSM_CUDA_KEY, m) {
  register_scan<&cuda::forward, &cuda::backward>(m, ScanCallTypes());
}

}  // namespace mmssm
