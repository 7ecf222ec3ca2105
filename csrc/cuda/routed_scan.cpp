// The routed selective scan on a CUDA device: memory and launches.
#include "routed_scan.h"

#include <ATen/Context.h>
#include <c10/cuda/CUDAGuard.h>

#include "../common/scan_grads.h"
#include "device.h"
#include "scan_plan.h"

namespace mmssm {
namespace cuda {
namespace {

using at::Tensor;
using std::optional;

bool is_empty(const ScanSizes& s) {
  return s.batch == 0 || s.routes == 0 || s.steps == 0 || s.channels == 0;
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
    state = at::empty({s.batch, s.routes, plan.segments, s.states, s.channels},
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
void run_forward(const ScanArgs<T, Token>& p, const Tensor& out,
                 const at::TensorOptions& options) {
  check_offsets(p.size, widest_token(p));
  // Training must not fail in backward for what is known here.
  if (p.checkpoints) check_memory(p.size, &backward_memory<T>);
  const ScanPlan plan =
      make_plan(p.size, &forward_memory<T>,
                at::globalContext().deterministicAlgorithms());
  const CarryTensors tensors(p.size, plan, options);
  const Carry<T> carry = tensors.pointers<T>();
  void* stream = current_stream();
  if (plan.segments > 1) {
    check(launch_forward<T, Token>(p, plan, carry, nullptr, ForwardKind::kCarry,
                                   stream));
    check(launch_combine<T>(p.size, plan.segments, p.a, carry, false, stream));
  }
  const auto kind = p.output == ScanOutput::kStates ? ForwardKind::kStates
                                                    : ForwardKind::kSum;
  launch_routes(plan, [&](const ScanPlan& part) {
    return launch_forward<T, Token>(p, part, carry, data<T>(out), kind, stream);
  });
}

// The result and, if asked for, the checkpoints.
std::pair<Tensor, Tensor> run(const ScanInputs& in, bool delta_softplus,
                              at::ScalarType out_dtype, bool with_checkpoints) {
  const c10::cuda::CUDAGuard guard(in.x.device());
  const auto options = in.a.options();
  Tensor out = at::zeros(output_shape(in), options), checkpoints;
  if (with_checkpoints)
    checkpoints = at::empty(checkpoint_shape(in.size), options);
  if (!is_empty(in.size))
    dispatch(in.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      run_forward(make_args<T, Token>(in, delta_softplus, checkpoints), out,
                  options);
    });
  return {out.to(out_dtype), checkpoints};
}

}  // namespace

Tensor forward(const Tensor& x, const Tensor& dt, const Tensor& A,
               const Tensor& B, const OptionalTensor& C,
               const OptionalTensor& D, const OptionalTensor& dt_weight,
               const OptionalTensor& dt_bias, const Tensor& routes,
               bool delta_softplus, std::string_view output,
               optional<at::ScalarType> out_dtype) {
  const ScanInputs in = prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias,
                                       routes, output, out_dtype, true);
  return run(in, delta_softplus, out_dtype.value_or(x.scalar_type()), false)
      .first;
}

std::tuple<Tensor, Tensor> forward_with_checkpoints(
    const Tensor& x, const Tensor& dt, const Tensor& A, const Tensor& B,
    const OptionalTensor& C, const OptionalTensor& D,
    const OptionalTensor& dt_weight, const OptionalTensor& dt_bias,
    const Tensor& routes, bool delta_softplus, std::string_view output,
    optional<at::ScalarType> out_dtype) {
  const ScanInputs in = prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias,
                                       routes, output, out_dtype, true);
  return run(in, delta_softplus, out_dtype.value_or(x.scalar_type()), true);
}

namespace {

template <typename T, typename Token>
void run_backward(const ScanArgs<T, Token>& p, const ScanPlan& plan,
                  const ScanGrads<T>& grads, const at::TensorOptions& options) {
  check_offsets(p.size, widest_token(p));
  const CarryTensors tensors(p.size, plan, options);
  const Carry<T> carry = tensors.pointers<T>();
  void* stream = current_stream();
  if (plan.segments > 1) {
    check(launch_backward_carry<T, Token>(p, plan, carry, grads.out, stream));
    check(launch_combine<T>(p.size, plan.segments, p.a, carry, true, stream));
  }
  launch_routes(plan, [&](const ScanPlan& part) {
    return launch_backward<T, Token>(p, part, carry, grads, stream);
  });
}

}  // namespace

EightTensors backward(const Tensor& grad, const Tensor& checkpoints,
                      const Tensor& x, const Tensor& dt, const Tensor& A,
                      const Tensor& B, const OptionalTensor& C,
                      const OptionalTensor& D, const OptionalTensor& dt_weight,
                      const OptionalTensor& dt_bias, const Tensor& routes,
                      bool delta_softplus, std::string_view output) {
  const ScanInputs in = prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias,
                                       routes, output, {}, true);
  check_backward_inputs(in, grad, checkpoints);
  const c10::cuda::CUDAGuard guard(x.device());
  optional<GradTensors> g;
  const Tensor grad_out = grad.to(in.a.scalar_type()).contiguous();
  const Tensor saved = checkpoints.contiguous();
  if (!is_empty(in.size))
    dispatch(in.x.scalar_type(), [&](auto t, auto token) {
      using T = decltype(t);
      using Token = decltype(token);
      const ScanPlan plan =
          make_plan(in.size, &backward_memory<T>,
                    at::globalContext().deterministicAlgorithms());
      g.emplace(
          in, GradParts{1, plan.blocks_per_group, plan.shares * plan.segments});
      run_backward(make_args<T, Token>(in, delta_softplus, saved), plan,
                   g->pointers<T>(grad_out), in.a.options());
    });
  return add_up(g, x, dt, A, B, C, D, dt_weight, dt_bias);
}

}  // namespace cuda
}  // namespace mmssm
