// The tree scan on a CPU: memory, threads, and the kernels' calls.
#include <torch/library.h>

#include "../common/tree_inputs.h"
#include "scan_split.h"
#include "tree_kernels.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

template <typename T>
void run_forward(const TreeArgs<T>& p, const Tensor& out) {
  const TreeKernels<T>& kernels = tree_kernels<T>();
  const Split split(p.scan.size);
  T* result = out.mutable_data_ptr<T>();
  run_tasks<T>(split,
               kernels.forward_scratch(p.scan.size, split.largest_part()),
               [&](int64_t task, T* scratch) {
                 kernels.forward(p, result, split.work(task), scratch);
               });
}

Tensor forward(const Tensor& x, const Tensor& dt, const Tensor& A,
               const Tensor& B, const optional<Tensor>& dt_weight,
               const optional<Tensor>& dt_bias, const Tensor& order,
               bool delta_softplus, optional<at::ScalarType> out_dtype) {
  const TreeInputs in =
      prepare_tree(x, dt, A, B, dt_weight, dt_bias, order, out_dtype);
  const Tensor out = at::empty(x.sizes(), in.scan.x.options());
  if (out.scalar_type() == at::kDouble)
    run_forward(make_args<double>(in, delta_softplus), out);
  else
    run_forward(make_args<float>(in, delta_softplus), out);
  return out.to(out_dtype.value_or(x.scalar_type()));
}

template <typename T>
void run_backward(const TreeArgs<T>& p, const ScanGrads<T>& grads,
                  const Split& split) {
  const TreeKernels<T>& kernels = tree_kernels<T>();
  run_tasks<T>(
      split, kernels.backward_scratch(p.scan.size, split.largest_part()),
      [&](int64_t task, T* scratch) {
        kernels.backward(p, grads, split.work(task), split.group_of(task),
                         split.part_of(task), scratch);
      });
}

SixTensors backward(const Tensor& grad, const Tensor& x, const Tensor& dt,
                    const Tensor& A, const Tensor& B,
                    const optional<Tensor>& dt_weight,
                    const optional<Tensor>& dt_bias, const Tensor& order,
                    bool delta_softplus) {
  const TreeInputs in =
      prepare_tree(x, dt, A, B, dt_weight, dt_bias, order, {});
  check_tree_grad(grad, x);
  const Split split(in.scan.size);
  const GradTensors g(in.scan, {split.maps, split.parts, split.groups});
  const Tensor grad_out = grad.to(in.scan.x.scalar_type()).contiguous();
  if (in.scan.x.scalar_type() == at::kDouble)
    run_backward(make_args<double>(in, delta_softplus),
                 g.pointers<double>(grad_out), split);
  else
    run_backward(make_args<float>(in, delta_softplus),
                 g.pointers<float>(grad_out), split);
  return add_up_tree(g, x, dt, A, B, dt_weight, dt_bias);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  m.impl("tree_scan", &forward);
  m.impl("_tree_scan_backward", &backward);
}

}  // namespace mmssm
