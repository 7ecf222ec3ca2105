// The routed selective scan on a CPU: memory, threads, and the kernels' calls.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../common/inputs.h"
#include "scan_kernels.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

// How the work of one call is shared out: the routes of each batch item into
// `shares`, its channel blocks into `parts`.
struct Split {
  int64_t batch, shares, parts, blocks, routes;
  int64_t tasks() const { return batch * shares * parts; }
  int64_t share_of(int64_t task) const { return task % shares; }
  int64_t part_of(int64_t task) const { return task / shares % parts; }
  ScanWork work(int64_t task) const {
    const int64_t share = share_of(task), part = part_of(task);
    return {task / shares / parts, part * blocks / parts,
            (part + 1) * blocks / parts, share * routes / shares,
            (share + 1) * routes / shares};
  }
};

// With fewer blocks than several per thread, the last ones would leave threads
// idle: then routes are shared out too. Into two shares, not more: a sum over
// routes needs a map for each.
int64_t route_shares(const ScanSizes& s) {
  const int64_t blocks = std::max<int64_t>(1, s.batch * channel_blocks(s));
  const int64_t threads = at::get_num_threads();
  return s.routes < 2 || threads == 1 || blocks >= 4 * threads ? 1 : 2;
}

template <typename T>
void run_forward(const ScanArgs<T>& p, Tensor& out, const Split& split) {
  const ScanKernels<T>& kernels = scan_kernels<T>();
  const int64_t map = p.output == ScanOutput::kSum ? out.numel() : 0;
  T* result = out.mutable_data_ptr<T>();
  at::parallel_for(0, split.tasks(), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(kernels.forward_scratch(p.size));
    for (int64_t i = begin; i < end; ++i)
      kernels.forward(p, result + split.share_of(i) * (map / split.shares),
                      split.work(i), scratch.data());
  });
}

// The result and, if asked for, the checkpoints.
std::pair<Tensor, Tensor> run(const ScanInputs& in, bool delta_softplus,
                              at::ScalarType out_dtype, bool with_checkpoints) {
  const ScanSizes& s = in.size;
  const int64_t blocks = channel_blocks(s), shares = route_shares(s);
  const Split split{s.batch, shares, blocks, blocks, s.routes};
  std::vector<int64_t> shape = output_shape(in);
  const bool split_sum = in.output == ScanOutput::kSum && shares > 1;
  if (split_sum) shape.insert(shape.begin(), shares);
  Tensor out = at::zeros(shape, in.x.options()), checkpoints;
  if (with_checkpoints)
    checkpoints = at::empty(checkpoint_shape(s), in.x.options());
  if (in.x.scalar_type() == at::kDouble)
    run_forward(make_args<double>(in, delta_softplus, checkpoints), out, split);
  else
    run_forward(make_args<float>(in, delta_softplus, checkpoints), out, split);
  if (split_sum) out = out[0].add_(out[1]);
  return {out.to(out_dtype), checkpoints};
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
                  std::vector<Tensor>& g, const Split& split) {
  const ScanKernels<T>& kernels = scan_kernels<T>();
  const auto data = [](const Tensor& t) -> T* {
    return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
  };
  const ScanGrads<T> grads{grad.const_data_ptr<T>(),
                           data(g[0]),
                           data(g[1]),
                           data(g[3]),
                           data(g[4]),
                           data(g[2]),
                           data(g[5]),
                           data(g[6]),
                           data(g[7])};
  at::parallel_for(0, split.tasks(), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(kernels.backward_scratch(p.size));
    for (int64_t i = begin; i < end; ++i)
      kernels.backward(p, grads, split.work(i), split.share_of(i),
                       split.part_of(i), scratch.data());
  });
}

Tensor give_back(const Tensor& grad, const optional<Tensor>& like) {
  if (!like.has_value() || !like->defined()) return at::empty({0});
  return grad.reshape(like->sizes()).to(like->scalar_type());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
backward(const Tensor& grad, const Tensor& checkpoints, const Tensor& x,
         const Tensor& dt, const Tensor& A, const Tensor& B,
         const optional<Tensor>& C, const optional<Tensor>& D,
         const optional<Tensor>& dt_weight, const optional<Tensor>& dt_bias,
         const Tensor& routes, bool delta_softplus, std::string_view output) {
  const ScanInputs in =
      prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias, routes, output, {});
  const ScanSizes& s = in.size;
  check_backward_inputs(in, grad, checkpoints);
  const auto options = in.x.options();
  const int64_t threads = at::get_num_threads(), shares = route_shares(s);
  const int64_t items = std::max<int64_t>(1, s.batch * shares);
  const int64_t parts = std::max<int64_t>(
      1, std::min(channel_blocks(s), (threads + items - 1) / items));
  const Split split{s.batch, shares, parts, channel_blocks(s), s.routes};
  const auto shared = [&](int64_t last) {
    return at::zeros({parts, s.batch, s.tokens, s.routes, last}, options);
  };
  const auto per_channel = [&](int64_t last) {
    return at::zeros({s.batch, s.routes, s.channels, last}, options);
  };
  const bool low_rank = in.dt_weight.defined();
  std::vector<Tensor> g(8);
  g[0] = at::zeros({shares, s.batch, s.tokens, s.channels}, options);
  g[1] = low_rank
             ? shared(s.rank)
             : at::zeros({1, s.batch, s.tokens, s.routes, s.channels}, options);
  g[2] = per_channel(s.states);
  g[3] = shared(s.groups * s.states);
  if (in.c.defined()) g[4] = shared(s.groups * s.states);
  if (in.d.defined()) g[5] = per_channel(1);
  if (low_rank) g[6] = per_channel(s.rank);
  if (in.dt_bias.defined()) g[7] = per_channel(1);
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  const Tensor saved = checkpoints.contiguous();
  if (in.x.scalar_type() == at::kDouble)
    run_backward(make_args<double>(in, delta_softplus, saved), grad_out, g,
                 split);
  else
    run_backward(make_args<float>(in, delta_softplus, saved), grad_out, g,
                 split);
  for (Tensor& sums : g)
    if (sums.defined()) sums = sums.size(0) == 1 ? sums[0] : sums.sum(0);
  return {give_back(g[0], x),         give_back(g[1], dt),
          give_back(g[2], A),         give_back(g[3], B),
          give_back(g[4], C),         give_back(g[5], D),
          give_back(g[6], dt_weight), give_back(g[7], dt_bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  m.impl("routed_selective_scan", &forward);
  m.impl("_routed_selective_scan_forward", &forward_with_checkpoints);
  m.impl("_routed_selective_scan_backward", &backward);
}

}  // namespace mmssm
