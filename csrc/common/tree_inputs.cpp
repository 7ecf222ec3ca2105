#include "tree_inputs.h"

namespace mmssm {
namespace {

using at::Tensor;

void check_shape(const Tensor& t, const char* name, at::IntArrayRef want,
                 const char* axes) {
  TORCH_CHECK(t.sizes() == want, "tree_scan: ", name, " must have shape ", axes,
              " = ", want, ", got ", t.sizes());
}

void check_device(const Tensor& x, const Tensor& t, const char* name) {
  TORCH_CHECK(t.device() == x.device(), "tree_scan: ", name, " is on ",
              t.device(), " but x is on ", x.device(),
              "; move them to one device");
}

// The kernels trust it. On a GPU, they check what they need themselves: a check
// here would wait for them.
void check_order(const Tensor& order, int64_t tokens) {
  TORCH_CHECK(
      order.dim() == 2 && order.size(0) == 2 && order.scalar_type() == at::kInt,
      "tree_scan: the order must be (2, L) int32, as tree_order makes "
      "it, got ",
      order.sizes(), " ", order.scalar_type());
  check_shape(order[0], "parents", {tokens}, "(L)");
  TORCH_CHECK(tokens > 0, "tree_scan: a tree needs at least one token");
  if (!order.is_cpu()) return;
  const Tensor whole = order.contiguous();
  const int32_t* token = whole.const_data_ptr<int32_t>();
  const int32_t* parent = token + tokens;
  std::vector<bool> seen(tokens);
  bool good = parent[0] == -1;
  for (int64_t t = 0; t < tokens && good; ++t) {
    good = token[t] >= 0 && token[t] < tokens && !seen[token[t]] &&
           (t == 0 || (parent[t] >= 0 && parent[t] < t));
    if (good) seen[token[t]] = true;
  }
  TORCH_CHECK(good,
              "tree_scan: the order must have every token once, after its "
              "parent; take tree_order(parents)");
}

OptionalTensor with_route(const OptionalTensor& t) {
  return t.has_value() ? OptionalTensor(t->unsqueeze(0)) : std::nullopt;
}

}  // namespace

TreeInputs prepare_tree(const Tensor& x, const Tensor& dt, const Tensor& A,
                        const Tensor& B, const OptionalTensor& dt_weight,
                        const OptionalTensor& dt_bias, const Tensor& order,
                        std::optional<at::ScalarType> out_dtype,
                        bool keep_half) {
  TORCH_CHECK(x.dim() == 3, "tree_scan: x must be (B, L, C), got ", x.sizes());
  const auto type = x.scalar_type();
  TORCH_CHECK(
      type == at::kDouble || type == at::kFloat || type == at::kHalf ||
          type == at::kBFloat16,
      "tree_scan: x must be float64, float32, float16 or bfloat16, got ", type);
  TORCH_CHECK(!out_dtype.has_value() || at::isFloatingType(*out_dtype),
              "tree_scan: out_dtype must be floating-point, got ",
              out_dtype.value_or(at::kFloat));
  const int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
  check_device(x, order, "parents");
  check_order(order, tokens);
  check_shape(A, "A", {channels}, "(C)");
  check_shape(B, "B", {batch, tokens}, "(B, L)");
  const bool low_rank = dt_weight.has_value();
  if (low_rank) {
    const int64_t rank = dt_weight->dim() ? dt_weight->size(-1) : 0;
    check_shape(*dt_weight, "dt_weight", {channels, rank}, "(C, R)");
    TORCH_CHECK(rank > 0, "tree_scan: dt_weight needs at least one column");
    check_shape(dt, "dt", {batch, tokens, rank}, "(B, L, R)");
    check_device(x, *dt_weight, "dt_weight");
  } else {
    check_shape(dt, "dt", {batch, tokens, channels}, "(B, L, C)");
  }
  if (dt_bias.has_value()) {
    check_shape(*dt_bias, "dt_bias", {channels}, "(C)");
    check_device(x, *dt_bias, "dt_bias");
  }
  check_device(x, dt, "dt");
  check_device(x, A, "A");
  check_device(x, B, "B");
  return {prepare_inputs(x, dt.unsqueeze(2), A.unsqueeze(0).unsqueeze(2),
                         B.unsqueeze(2).unsqueeze(3), {}, {},
                         with_route(dt_weight), with_route(dt_bias),
                         order.slice(0, 0, 1), "states", out_dtype, keep_half),
          order[1].contiguous()};
}

void check_tree_grad(const Tensor& grad, const Tensor& x) {
  check_shape(grad, "grad", x.sizes(), "(B, L, C)");
  check_device(x, grad, "grad");
}

SixTensors add_up_tree(const std::optional<GradTensors>& g, const Tensor& x,
                       const Tensor& dt, const Tensor& A, const Tensor& B,
                       const OptionalTensor& dt_weight,
                       const OptionalTensor& dt_bias) {
  const auto all = add_up(g, x, dt, A, B, {}, {}, dt_weight, dt_bias);
  return {std::get<0>(all), std::get<1>(all), std::get<2>(all),
          std::get<3>(all), std::get<6>(all), std::get<7>(all)};
}

}  // namespace mmssm
