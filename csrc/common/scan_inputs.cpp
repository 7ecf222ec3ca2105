#include "scan_inputs.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

void check_shape(const Tensor& t, const char* name, at::IntArrayRef want,
                 const char* meaning) {
  TORCH_CHECK(t.sizes() == want, "routed_selective_scan: ", name,
              " must have shape ", meaning, " = ", want, ", got ", t.sizes());
}

// Token tensors keep their strides when the innermost axis is contiguous.
Tensor as_tokens(const Tensor& t, at::ScalarType dtype) {
  const Tensor cast = t.to(dtype);
  return cast.stride(-1) == 1 || cast.size(-1) <= 1 ? cast : cast.contiguous();
}

Tensor as_parameter(const optional<Tensor>& t, at::ScalarType dtype) {
  return t.has_value() && t->defined() ? t->to(dtype).contiguous() : Tensor();
}

void check_devices(const Tensor& x, const optional<Tensor>& other,
                   const char* name) {
  if (!other.has_value() || !other->defined()) return;
  TORCH_CHECK(x.device() == other->device(), "routed_selective_scan: ", name,
              " is on ", other->device(), " but x is on ", x.device(),
              "; move them to one device");
}

// The kernels trust the indices, so a wrong one must be caught here, before
// it is narrowed to 32 bits.
template <typename T>
void check_routes(const Tensor& routes, int64_t tokens) {
  const Tensor flat = routes.contiguous();
  const T* index = flat.const_data_ptr<T>();
  int64_t lowest = 0, highest = -1;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    lowest = std::min<int64_t>(lowest, index[i]);
    highest = std::max<int64_t>(highest, index[i]);
  }
  TORCH_CHECK(lowest >= -1 && highest < tokens,
              "routed_selective_scan: routes must hold token indices from -1 "
              "(a zero token) to L - 1 = ",
              tokens - 1, ", got ", lowest, " to ", highest);
}

}  // namespace

ScanOutput parse_output(std::string_view name) {
  if (name == "sum") return ScanOutput::kSum;
  if (name == "routes") return ScanOutput::kRoutes;
  TORCH_CHECK(name == "states",
              "routed_selective_scan: output must be 'sum', "
              "'routes' or 'states', got '",
              name, "'");
  return ScanOutput::kStates;
}

std::vector<int64_t> output_shape(const ScanInputs& in) {
  const ScanSizes& s = in.size;
  if (in.output == ScanOutput::kSum) return {s.batch, s.tokens, s.channels};
  if (in.output == ScanOutput::kRoutes)
    return {s.batch, s.routes, s.tokens, s.channels};
  return {s.batch, s.routes, s.tokens, s.channels, s.states};
}

std::vector<int64_t> checkpoint_shape(const ScanSizes& s) {
  return {s.batch, s.routes, checkpoint_count(s), s.states, s.channels};
}

void check_backward_inputs(const ScanInputs& in, const Tensor& grad,
                           const Tensor& checkpoints) {
  TORCH_CHECK(grad.sizes() == at::IntArrayRef(output_shape(in)),
              "routed_selective_scan: the gradient must have shape ",
              output_shape(in), ", got ", grad.sizes());
  TORCH_CHECK(checkpoints.sizes() == at::IntArrayRef(checkpoint_shape(in.size)),
              "routed_selective_scan: the checkpoints must have shape ",
              checkpoint_shape(in.size), ", got ", checkpoints.sizes());
  TORCH_CHECK(checkpoints.scalar_type() == in.a.scalar_type(),
              "routed_selective_scan: the checkpoints must be ",
              in.a.scalar_type(), ", got ", checkpoints.scalar_type());
}

ScanInputs prepare_inputs(const Tensor& x, const Tensor& dt, const Tensor& A,
                          const Tensor& B, const optional<Tensor>& C,
                          const optional<Tensor>& D,
                          const optional<Tensor>& dt_weight,
                          const optional<Tensor>& dt_bias, const Tensor& routes,
                          std::string_view output,
                          optional<at::ScalarType> out_dtype, bool keep_half) {
  ScanInputs in;
  ScanSizes& s = in.size;
  in.output = parse_output(output);
  TORCH_CHECK(!out_dtype.has_value() || at::isFloatingType(*out_dtype),
              "routed_selective_scan: out_dtype must be floating-point, got ",
              out_dtype.value_or(at::kFloat));
  const bool states_only = in.output == ScanOutput::kStates;
  TORCH_CHECK(x.dim() == 3, "routed_selective_scan: x must be (B, L, C), got ",
              x.sizes());
  TORCH_CHECK(routes.dim() == 2,
              "routed_selective_scan: routes must be "
              "(K, T), got ",
              routes.sizes());
  TORCH_CHECK(
      routes.scalar_type() == at::kInt || routes.scalar_type() == at::kLong,
      "routed_selective_scan: routes must be int32 or int64, got ",
      routes.scalar_type());
  const auto type = x.scalar_type();
  TORCH_CHECK(type == at::kDouble || type == at::kFloat || type == at::kHalf ||
                  type == at::kBFloat16,
              "routed_selective_scan: x must be float64, float32, float16 or "
              "bfloat16, got ",
              type);
  TORCH_CHECK(A.dim() == 3, "routed_selective_scan: A must be (K, C, N), got ",
              A.sizes());
  TORCH_CHECK(B.dim() == 4 || B.dim() == 5,
              "routed_selective_scan: B must be "
              "(B, L, K, N) or (B, L, K, G, N), got ",
              B.sizes());
  s.batch = x.size(0);
  s.tokens = x.size(1);
  s.channels = x.size(2);
  s.routes = routes.size(0);
  s.steps = routes.size(1);
  s.states = A.size(2);
  s.groups = B.dim() == 5 ? B.size(3) : 1;
  const bool low_rank = dt_weight.has_value() && dt_weight->defined();
  s.rank = low_rank ? dt_weight->size(-1) : 0;
  TORCH_CHECK(s.groups > 0 && s.channels % s.groups == 0,
              "routed_selective_scan: ", s.channels,
              " channels do not divide "
              "into ",
              s.groups, " groups");
  TORCH_CHECK(
      !low_rank || s.rank > 0,
      "routed_selective_scan: dt_weight needs at least one column, got ",
      dt_weight->sizes());
  TORCH_CHECK(s.states > 0,
              "routed_selective_scan: A needs at least one "
              "state, got ",
              A.sizes());
  check_shape(A, "A", {s.routes, s.channels, s.states}, "(K, C, N)");
  const std::vector<int64_t> plain = {s.batch, s.tokens, s.routes, s.states};
  const std::vector<int64_t> grouped = {s.batch, s.tokens, s.routes, s.groups,
                                        s.states};
  check_shape(B, "B", B.dim() == 5 ? grouped : plain, "(B, L, K, [G,] N)");
  check_shape(dt, "dt",
              {s.batch, s.tokens, s.routes, low_rank ? s.rank : s.channels},
              low_rank ? "(B, L, K, R)" : "(B, L, K, C)");
  const bool has_c = C.has_value() && C->defined();
  const bool has_d = D.has_value() && D->defined();
  TORCH_CHECK(states_only != has_c,
              "routed_selective_scan: output='states' "
              "takes no C, every other output needs it");
  TORCH_CHECK(!(states_only && has_d),
              "routed_selective_scan: output='states' takes no D");
  if (has_c)
    check_shape(*C, "C", B.dim() == 5 ? grouped : plain, "(B, L, K, [G,] N)");
  if (has_d) check_shape(*D, "D", {s.routes, s.channels}, "(K, C)");
  if (low_rank)
    check_shape(*dt_weight, "dt_weight", {s.routes, s.channels, s.rank},
                "(K, C, R)");
  if (dt_bias.has_value() && dt_bias->defined())
    check_shape(*dt_bias, "dt_bias", {s.routes, s.channels}, "(K, C)");
  check_devices(x, dt, "dt");
  check_devices(x, A, "A");
  check_devices(x, B, "B");
  check_devices(x, C, "C");
  check_devices(x, D, "D");
  check_devices(x, dt_weight, "dt_weight");
  check_devices(x, dt_bias, "dt_bias");
  check_devices(x, routes, "routes");
  if (routes.is_cpu() && routes.scalar_type() == at::kInt)
    check_routes<int32_t>(routes, s.tokens);
  else if (routes.is_cpu())
    check_routes<int64_t>(routes, s.tokens);

  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto like_x = [&](const Tensor& t) {
    return t.scalar_type() == x.scalar_type();
  };
  const bool keep = keep_half && at::isReducedFloatingType(x.scalar_type()) &&
                    like_x(dt) && like_x(B) && (!has_c || like_x(*C));
  const auto token_dtype = keep ? x.scalar_type() : dtype;
  in.x = x.to(token_dtype).contiguous();
  in.dt = as_tokens(dt, token_dtype);
  in.b = as_tokens(B.dim() == 5 ? B : B.unsqueeze(3), token_dtype);
  if (has_c)
    in.c = as_tokens(C->dim() == 5 ? *C : C->unsqueeze(3), token_dtype);
  in.a = as_parameter(A, dtype);
  in.d = as_parameter(D, dtype);
  in.dt_weight = as_parameter(dt_weight, dtype);
  in.dt_bias = as_parameter(dt_bias, dtype);
  // Narrowed without wrapping: on a device only the kernel sees a wrong index.
  const bool may_wrap = !routes.is_cpu() && routes.scalar_type() == at::kLong;
  in.routes = (may_wrap ? routes.clamp(-2, s.tokens) : routes)
                  .to(at::kInt)
                  .contiguous();
  return in;
}

}  // namespace mmssm
