// The tree scan on a CPU: memory, threads, and the kernels' calls.
#include "../routed_selective_scan/cpu_threads.h"
#include "cpu_kernels.h"
#include "inputs.h"

namespace mmssm {
namespace {

using at::Tensor;

template <typename T>
const TreeKernels<T>& kernels() {
  static const TreeKernels<T> best = MMSSM_BEST_SET(tree_kernels<T>);
  return best;
}

template <typename T>
void run_fwd(const TreeArgs<T>& p, const Tensor& out) {
  const auto& fwd = kernels<T>().fwd;
  const Split split(p.scan.size);
  T* result = out.mutable_data_ptr<T>();
  const int64_t size = fwd(p, result, split.largest_work(), nullptr);
  run_tasks<T>(split, size, [&](int64_t task, T* scratch) {
    fwd(p, result, split.work(task), scratch);
  });
}

Tensor forward(const TreeCall& call, std::optional<at::ScalarType> out_dtype) {
  check_out_dtype(kTreeScan, out_dtype);
  const TreeInputs in = prepare(call);
  const Tensor out = at::empty(call.x.sizes(), in.scan.x.options());
  if (out.scalar_type() == at::kDouble)
    run_fwd(make_args<double>(in), out);
  else
    run_fwd(make_args<float>(in), out);
  return out.to(result_dtype(out_dtype, call.x));
}

template <typename T>
void run_bwd(const TreeArgs<T>& p, const ScanGrads<T>& grads,
             const Split& split) {
  const auto& bwd = kernels<T>().bwd;
  const int64_t size = bwd(p, grads, split.largest_work(), 0, 0, nullptr);
  run_tasks<T>(split, size, [&](int64_t task, T* scratch) {
    bwd(p, grads, split.work(task), split.batch_part_of(task),
        split.part_of(task), scratch);
  });
}

TreeGradients backward(const Tensor& grad, const TreeCall& call) {
  const TreeInputs in = prepare(call);
  check_grad(call, grad);
  const Split split(in.scan.size);
  const GradTensors g(in.scan, {split.maps, split.parts, split.batch_parts});
  const Tensor grad_out = grad.to(in.scan.x.scalar_type()).contiguous();
  if (in.scan.x.scalar_type() == at::kDouble)
    run_bwd(make_args<double>(in), g.pointers<double>(grad_out), split);
  else
    run_bwd(make_args<float>(in), g.pointers<float>(grad_out), split);
  return add_up(g, call);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  register_tree_scan<&forward, &backward>(m, TreeCallTypes());
}

}  // namespace mmssm
