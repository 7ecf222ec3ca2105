// The routed selective scan on a CPU: memory, threads, and the kernels' calls.
#include <torch/library.h>

#include "../common/scan_grads.h"
#include "scan_kernels.h"
#include "scan_split.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

// Adds to `out`, (maps, like the result).
template <typename T>
void run_forward(const ScanArgs<T>& p, Tensor& out, const Split& split) {
  const ScanKernels<T>& kernels = scan_kernels<T>();
  T* result = out.mutable_data_ptr<T>();
  const int64_t map_size = out.numel() / out.size(0);
  run_tasks<T>(split, kernels.forward_scratch(p.size, split.largest_part()),
               [&](int64_t task, T* scratch) {
                 T* map = result + split.map_of(task) % out.size(0) * map_size;
                 kernels.forward(p, map, split.work(task), scratch);
               });
}

// The result and, if asked for, the checkpoints.
std::pair<Tensor, Tensor> run(const ScanInputs& in, bool delta_softplus,
                              at::ScalarType out_dtype, bool with_checkpoints) {
  const Split split(in.size);
  // Only in a sum do routes meet.
  std::vector<int64_t> shape = output_shape(in);
  shape.insert(shape.begin(), in.output == ScanOutput::kSum ? split.maps : 1);
  Tensor out = at::zeros(shape, in.x.options()), checkpoints;
  if (with_checkpoints)
    checkpoints = at::empty(checkpoint_shape(in.size), in.x.options());
  if (in.x.scalar_type() == at::kDouble)
    run_forward(make_args<double>(in, delta_softplus, checkpoints), out, split);
  else
    run_forward(make_args<float>(in, delta_softplus, checkpoints), out, split);
  return {sum_of_parts(out).to(out_dtype), checkpoints};
}

Tensor forward(const Tensor& x, const Tensor& dt, const Tensor& A,
               const Tensor& B, const optional<Tensor>& C,
               const optional<Tensor>& D, const optional<Tensor>& dt_weight,
               const optional<Tensor>& dt_bias, const Tensor& routes,
               bool delta_softplus, std::string_view output,
               optional<at::ScalarType> out_dtype) {
  const ScanInputs in = prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias,
                                       routes, output, out_dtype);
  return run(in, delta_softplus, out_dtype.value_or(x.scalar_type()), false)
      .first;
}

std::tuple<Tensor, Tensor> forward_with_checkpoints(
    const Tensor& x, const Tensor& dt, const Tensor& A, const Tensor& B,
    const optional<Tensor>& C, const optional<Tensor>& D,
    const optional<Tensor>& dt_weight, const optional<Tensor>& dt_bias,
    const Tensor& routes, bool delta_softplus, std::string_view output,
    optional<at::ScalarType> out_dtype) {
  const ScanInputs in = prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias,
                                       routes, output, out_dtype);
  return run(in, delta_softplus, out_dtype.value_or(x.scalar_type()), true);
}

template <typename T>
void run_backward(const ScanArgs<T>& p, const Tensor& grad,
                  const GradTensors& g, const Split& split) {
  const ScanKernels<T>& kernels = scan_kernels<T>();
  const ScanGrads<T> grads = g.pointers<T>(grad);
  const int64_t map_size = g.x.numel() / g.x.size(0);
  run_tasks<T>(split, kernels.backward_scratch(p.size, split.largest_part()),
               [&](int64_t task, T* scratch) {
                 ScanGrads<T> own = grads;
                 own.x += split.map_of(task) * map_size;
                 kernels.backward(p, own, split.work(task),
                                  split.group_of(task), split.part_of(task),
                                  scratch);
               });
}

EightTensors backward(const Tensor& grad, const Tensor& checkpoints,
                      const Tensor& x, const Tensor& dt, const Tensor& A,
                      const Tensor& B, const optional<Tensor>& C,
                      const optional<Tensor>& D,
                      const optional<Tensor>& dt_weight,
                      const optional<Tensor>& dt_bias, const Tensor& routes,
                      bool delta_softplus, std::string_view output) {
  const ScanInputs in =
      prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias, routes, output, {});
  check_backward_inputs(in, grad, checkpoints);
  const Split split(in.size);
  const GradTensors g(in, {split.maps, split.parts, split.groups});
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  const Tensor saved = checkpoints.contiguous();
  if (in.x.scalar_type() == at::kDouble)
    run_backward(make_args<double>(in, delta_softplus, saved), grad_out, g,
                 split);
  else
    run_backward(make_args<float>(in, delta_softplus, saved), grad_out, g,
                 split);
  return add_up(g, x, dt, A, B, C, D, dt_weight, dt_bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  m.impl("routed_selective_scan", &forward);
  m.impl("_routed_selective_scan_forward", &forward_with_checkpoints);
  m.impl("_routed_selective_scan_backward", &backward);
}

}  // namespace mmssm
