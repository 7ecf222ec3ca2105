// The routed selective scan on a CPU: memory, threads, and the kernels' calls.
#include "cpu_threads.h"
#include "grads.h"

namespace mmssm {
namespace {

using at::Tensor;

template <typename T>
const ScanKernels<T>& kernels() {
  static const ScanKernels<T> best = MMSSM_BEST_SET(scan_kernels<T>);
  return best;
}

// Adds to `out`, (maps, like the result).
template <typename T>
void run_fwd(const ScanArgs<T>& p, Tensor& out, const Split& split) {
  const auto& fwd = kernels<T>().fwd;
  T* result = out.mutable_data_ptr<T>();
  const int64_t map_size = out.numel() / out.size(0);
  const int64_t size = fwd(p, result, split.largest_work(), nullptr);
  run_tasks<T>(split, size, [&](int64_t task, T* scratch) {
    T* map = result + split.map_of(task) % out.size(0) * map_size;
    fwd(p, map, split.work(task), scratch);
  });
}

std::tuple<Tensor, Tensor> forward(const ScanCall& call,
                                   std::optional<at::ScalarType> out_dtype,
                                   bool keep_checkpoints) {
  check_out_dtype(call.op, out_dtype);
  const ScanInputs in = prepare(call);
  const Split split(in.size);
  // Only in a sum do several routes add to one place.
  std::vector<int64_t> shape = output_shape(in);
  shape.insert(shape.begin(), in.output == ScanOutput::kSum ? split.maps : 1);
  Tensor out = at::zeros(shape, in.x.options());
  const Tensor checkpoints = new_checkpoints(in, keep_checkpoints);
  if (in.x.scalar_type() == at::kDouble)
    run_fwd(make_args<double>(in, checkpoints), out, split);
  else
    run_fwd(make_args<float>(in, checkpoints), out, split);
  return {sum_of_parts(out).to(result_dtype(out_dtype, call.x)), checkpoints};
}

template <typename T>
void run_bwd(const ScanArgs<T>& p, const Tensor& grad, const GradTensors& g,
             const Split& split) {
  const auto& bwd = kernels<T>().bwd;
  const ScanGrads<T> grads = g.pointers<T>(grad);
  const int64_t map_size = g.x.numel() / g.x.size(0);
  const int64_t size = bwd(p, grads, split.largest_work(), 0, 0, nullptr);
  run_tasks<T>(split, size, [&](int64_t task, T* scratch) {
    ScanGrads<T> own = grads;
    own.x += split.map_of(task) * map_size;
    bwd(p, own, split.work(task), split.batch_part_of(task),
        split.part_of(task), scratch);
  });
}

ScanGradients backward(const Tensor& grad, const Tensor& checkpoints,
                       const ScanCall& call) {
  const ScanInputs in = prepare(call);
  check_backward(call, in, grad, checkpoints);
  const Split split(in.size);
  const GradTensors g(in, {split.maps, split.parts, split.batch_parts});
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  const Tensor saved = checkpoints.contiguous();
  if (in.x.scalar_type() == at::kDouble)
    run_bwd(make_args<double>(in, saved), grad_out, g, split);
  else
    run_bwd(make_args<float>(in, saved), grad_out, g, split);
  return add_up(g, call);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  register_scan<&forward, &backward>(m, ScanCallTypes());
}

}  // namespace mmssm
