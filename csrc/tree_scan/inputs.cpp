#include "inputs.h"

namespace mmssm {
namespace {

using at::Tensor;

// The kernels trust it. On a GPU, they check what they need themselves: a check
// here would wait for them.
void check_order(const Tensor& order, int64_t length) {
  TORCH_CHECK(
      order.dim() == 2 && order.size(0) == 2 && order.scalar_type() == at::kInt,
      "tree_scan: the order must be (2, L) int32, as tree_order makes "
      "it, got ",
      order.sizes(), " ", order.scalar_type());
  check_shape(kTreeScan, "parents", order[0], {length}, "(L)");
  TORCH_CHECK(length > 0, "tree_scan: a tree needs at least one token");
  if (!order.is_cpu()) return;
  const Tensor whole = order.contiguous();
  const int32_t* token = whole.const_data_ptr<int32_t>();
  const int32_t* parent = token + length;
  std::vector<bool> seen(length);
  bool good = parent[0] == -1;
  for (int64_t t = 0; t < length && good; ++t) {
    good = token[t] >= 0 && token[t] < length && !seen[token[t]] &&
           (t == 0 || (parent[t] >= 0 && parent[t] < t));
    if (good) seen[token[t]] = true;
  }
  TORCH_CHECK(good,
              "tree_scan: the order must have every token once, after its "
              "parent; take tree_order(parents)");
}

void check_shapes(const TreeCall& call) {
  const Tensor& x = call.x;
  const int64_t batch = x.size(0), length = x.size(1), channels = x.size(2);
  const auto check = [&](const char* name, const OptionalTensor& t,
                         at::IntArrayRef want, const char* axes) {
    check_input(kTreeScan, name, x, t, want, axes);
  };
  check("A", call.A, {channels}, "(C)");
  check("B", call.B, {batch, length}, "(B, L)");
  check("dt_bias", call.dt_bias, {channels}, "(C)");
  if (!given(call.dt_weight))
    return check("dt", call.dt, {batch, length, channels}, "(B, L, C)");
  const int64_t dt_rank = call.dt_weight->dim() ? call.dt_weight->size(-1) : 0;
  check("dt_weight", call.dt_weight, {channels, dt_rank}, "(C, R)");
  TORCH_CHECK(dt_rank > 0, "tree_scan: dt_weight needs at least one column");
  check("dt", call.dt, {batch, length, dt_rank}, "(B, L, R)");
}

OptionalTensor with_route(const OptionalTensor& t) {
  return given(t) ? OptionalTensor(t->unsqueeze(0)) : std::nullopt;
}

}  // namespace

// By name: an argument that the routed scan gets must not move the others.
ScanCall TreeCall::as_scan() const {
  ScanCall scan;
  scan.x = x;
  scan.dt = dt.unsqueeze(2);
  scan.A = A.unsqueeze(0).unsqueeze(2);
  scan.B = B.unsqueeze(2).unsqueeze(3);
  scan.dt_weight = with_route(dt_weight);
  scan.dt_bias = with_route(dt_bias);
  scan.routes = order.slice(0, 0, 1);
  scan.delta_softplus = delta_softplus;
  scan.output = "states";
  scan.op = kTreeScan;
  return scan;
}

TreeInputs prepare(const TreeCall& call, bool keep_half) {
  const Tensor& x = call.x;
  TORCH_CHECK(x.dim() == 3, "tree_scan: x must be (B, L, C), got ", x.sizes());
  check_token_dtype(kTreeScan, x);
  check_device(kTreeScan, "parents", x, call.order);
  check_order(call.order, x.size(1));
  check_shapes(call);
  return {prepare(call.as_scan(), keep_half), call.order[1].contiguous()};
}

void check_grad(const TreeCall& call, const Tensor& grad) {
  check_input(kTreeScan, "grad", call.x, grad, call.x.sizes(), "(B, L, C)");
}

TreeGradients add_up(const std::optional<GradTensors>& g,
                     const TreeCall& call) {
  const auto like = [](const Tensor& grad, const OptionalTensor& input) {
    return given(input) ? grad.reshape(input->sizes()) : grad;
  };
  const auto all = add_up(g, call.as_scan());
  return {like(std::get<0>(all), call.x),
          like(std::get<1>(all), call.dt),
          like(std::get<2>(all), call.A),
          like(std::get<3>(all), call.B),
          like(std::get<6>(all), call.dt_weight),
          like(std::get<7>(all), call.dt_bias)};
}

}  // namespace mmssm
