// The routed selective scan on a CPU: memory, threads, and the kernels' calls.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>
#include <thread>

#include "../common/scan_grads.h"
#include "scan_kernels.h"
#include "scratch.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

// How the work of one call is shared out: the batch into `groups` of items,
// channel blocks into `parts`, and, if that is too little for all threads,
// routes into `shares`. As few tasks as keep every thread busy: a task with all
// of a token's channels reads each row of memory once, one with several items
// reads parameters once.
//
// Shares of one group and part add to the same tokens. With enough groups and
// parts for all threads they take turns on one map; else each share has a map
// of its own, and the maps are added up.
struct Split {
  int64_t batch, blocks, routes, groups = 1, parts = 1, shares = 1, maps = 1;

  explicit Split(const ScanSizes& s)
      : batch(s.batch), blocks(channel_blocks(s)), routes(s.routes) {
    const int64_t threads = at::get_num_threads();
    while (!balanced(threads) && groups < batch) ++groups;
    while (!balanced(threads) && parts < blocks) ++parts;
    if (balanced(threads) || places() == 0) return;
    if (places() > threads) {
      shares = std::min<int64_t>(routes, 2);
    } else {
      shares = std::min(routes, (threads + places() - 1) / places());
      maps = shares;
    }
    shares = std::max<int64_t>(shares, 1);
    maps = std::max<int64_t>(maps, 1);
  }
  bool balanced(int64_t threads) const {
    return (tasks() % threads == 0 && batch % groups == 0 &&
            blocks % parts == 0) ||
           tasks() >= 4 * threads;
  }
  int64_t places() const { return groups * parts; }
  int64_t tasks() const { return places() * shares; }
  int64_t largest_part() const { return (blocks + parts - 1) / parts; }
  int64_t group_of(int64_t task) const { return task / parts % groups; }
  int64_t part_of(int64_t task) const { return task % parts; }
  int64_t map_of(int64_t task) const { return task / places() % maps; }
  ScanWork work(int64_t task) const {
    const int64_t group = group_of(task), part = part_of(task),
                  share = task / places();
    return {group * batch / groups,  (group + 1) * batch / groups,
            part * blocks / parts,   (part + 1) * blocks / parts,
            share * routes / shares, (share + 1) * routes / shares};
  }
};

// Calls run(task, scratch) for every task on all threads. Tasks that add to the
// same tokens of the same map run one after another, in order, so that the sum
// is the same every time.
template <typename T, typename Run>
void run_tasks(const Split& split, int64_t scratch_size, const Run& run) {
  const int64_t lines = split.places() * split.maps;
  std::atomic<int64_t> next{0};
  std::vector<std::atomic<int64_t>> done(lines);
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    T* scratch = scratch_of_thread<T>(scratch_size);
    for (int64_t i; (i = next++) < split.tasks();) {
      std::atomic<int64_t>& before = done[i % lines];
      // The task before it is under way on another thread, if not done.
      while (before.load(std::memory_order_acquire) < i / lines)
        std::this_thread::yield();
      run(i, scratch);
      before.fetch_add(1, std::memory_order_release);
    }
  });
}

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
