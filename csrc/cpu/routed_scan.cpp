// The routed selective scan on a CPU: memory, threads, and the kernels' calls.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "../common/inputs.h"
#include "scan_kernels.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

// Into how many shares the routes are split, 1 or 2: with fewer blocks than
// several per thread, the last ones would leave threads idle.
int64_t route_shares(const ScanSizes& s) {
  const int64_t blocks = std::max<int64_t>(1, s.batch * channel_blocks(s));
  const int64_t wanted = 4 * at::get_num_threads();
  if (s.routes < 2 || at::get_num_threads() == 1 || blocks >= wanted) return 1;
  // Not more: a sum needs a map for each share.
  return 2;
}

template <typename T>
void run_forward(const ScanInputs& in, bool delta_softplus, Tensor& out,
                 int64_t shares) {
  const ScanArgs<T> p = make_args<T>(in, delta_softplus);
  const ScanKernels<T>& kernels = scan_kernels<T>();
  const int64_t blocks = channel_blocks(p.size), routes = p.size.routes;
  const bool sum = p.output == ScanOutput::kSum;
  const int64_t share_size = sum ? out.numel() / shares : 0;
  T* result = out.mutable_data_ptr<T>();
  const int64_t tasks = p.size.batch * blocks * shares;
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(forward_scratch(p.size));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t share = i % shares, block = i / shares % blocks;
      kernels.forward(p, result + share * share_size,
                      {i / shares / blocks, block, share * routes / shares,
                       (share + 1) * routes / shares},
                      scratch.data());
    }
  });
}

Tensor forward(const Tensor& x, const Tensor& dt, const Tensor& A,
               const Tensor& B, const optional<Tensor>& C,
               const optional<Tensor>& D, const optional<Tensor>& dt_weight,
               const optional<Tensor>& dt_bias, const Tensor& routes,
               bool delta_softplus, std::string_view output,
               optional<at::ScalarType> out_dtype) {
  TORCH_CHECK(!out_dtype.has_value() || at::isFloatingType(*out_dtype),
              "routed_selective_scan: out_dtype must be floating-point, got ",
              out_dtype.value_or(at::kFloat));
  const ScanInputs in =
      prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias, routes, output);
  const int64_t shares = route_shares(in.size);
  std::vector<int64_t> shape = output_shape(in);
  const bool split_sum = in.output == ScanOutput::kSum && shares > 1;
  if (split_sum) shape.insert(shape.begin(), shares);
  Tensor out = at::zeros(shape, in.x.options());
  if (in.x.scalar_type() == at::kDouble)
    run_forward<double>(in, delta_softplus, out, shares);
  else
    run_forward<float>(in, delta_softplus, out, shares);
  if (split_sum) out = out[0].add(out[1]);
  return out.to(out_dtype.value_or(x.scalar_type()));
}

// Gradients of tensors that all channels of a batch item share (dt, B, C) are
// summed per part; a part is a run of channel blocks of one batch item.
template <typename T>
void run_backward(const ScanInputs& in, bool delta_softplus, const Tensor& grad,
                  std::vector<Tensor>& g, int64_t parts) {
  const ScanArgs<T> p = make_args<T>(in, delta_softplus);
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
  const int64_t blocks = channel_blocks(p.size);
  at::parallel_for(0, p.size.batch * parts, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(backward_scratch(p.size));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / parts, part = i % parts;
      const int64_t first = part * blocks / parts;
      const int64_t last = (part + 1) * blocks / parts;
      for (int64_t block = first; block < last; ++block)
        kernels.backward(p, grads, batch, block, part, scratch.data());
    }
  });
}

Tensor give_back(const Tensor& grad, const optional<Tensor>& like) {
  if (!like.has_value() || !like->defined()) return at::empty({0});
  return grad.reshape(like->sizes()).to(like->scalar_type());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>
backward(const Tensor& grad, const Tensor& x, const Tensor& dt, const Tensor& A,
         const Tensor& B, const optional<Tensor>& C, const optional<Tensor>& D,
         const optional<Tensor>& dt_weight, const optional<Tensor>& dt_bias,
         const Tensor& routes, bool delta_softplus, std::string_view output) {
  const ScanInputs in =
      prepare_inputs(x, dt, A, B, C, D, dt_weight, dt_bias, routes, output);
  const ScanSizes& s = in.size;
  TORCH_CHECK(grad.sizes() == at::IntArrayRef(output_shape(in)),
              "routed_selective_scan: the gradient must have shape ",
              output_shape(in), ", got ", grad.sizes());
  const auto options = in.x.options();
  const int64_t threads = at::get_num_threads();
  const int64_t parts = std::max<int64_t>(
      1, std::min(channel_blocks(s),
                  (threads + s.batch - 1) / std::max<int64_t>(s.batch, 1)));
  const auto shared = [&](int64_t last) {
    return at::zeros({parts, s.batch, s.tokens, s.routes, last}, options);
  };
  const auto summed = [&](int64_t last) {
    return at::zeros({s.batch, s.routes, s.channels, last}, options);
  };
  const bool low_rank = in.dt_weight.defined();
  std::vector<Tensor> g(8);
  g[0] = at::zeros_like(in.x);
  g[1] = low_rank
             ? shared(s.rank)
             : at::zeros({1, s.batch, s.tokens, s.routes, s.channels}, options);
  g[2] = summed(s.states);
  g[3] = shared(s.groups * s.states);
  if (in.c.defined()) g[4] = shared(s.groups * s.states);
  if (in.d.defined()) g[5] = summed(1);
  if (low_rank) g[6] = summed(s.rank);
  if (in.dt_bias.defined()) g[7] = summed(1);
  const Tensor grad_out = grad.to(in.x.scalar_type()).contiguous();
  if (in.x.scalar_type() == at::kDouble)
    run_backward<double>(in, delta_softplus, grad_out, g, parts);
  else
    run_backward<float>(in, delta_softplus, grad_out, g, parts);
  for (int i = 1; i < 8; ++i)
    if (g[i].defined()) g[i] = g[i].sum(0);
  return {give_back(g[0], x),         give_back(g[1], dt),
          give_back(g[2], A),         give_back(g[3], B),
          give_back(g[4], C),         give_back(g[5], D),
          give_back(g[6], dt_weight), give_back(g[7], dt_bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CPU, m) {
  m.impl("routed_selective_scan", &forward);
  m.impl("_routed_selective_scan_backward", &backward);
}

}  // namespace mmssm
