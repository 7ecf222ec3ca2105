#include "inputs.h"

namespace mmssm {
namespace {

using at::Tensor;

ScanOutput parse_output(const ScanCall& call) {
  if (call.output == "sum") return ScanOutput::kSum;
  if (call.output == "routes") return ScanOutput::kRoutes;
  TORCH_CHECK(call.output == "states", call.op,
              ": output must be 'sum', 'routes' or 'states', got '",
              call.output, "'");
  return ScanOutput::kStates;
}

// Of tensors whose numbers of dimensions are right.
ScanSizes read_sizes(const ScanCall& call) {
  const auto& [x, A, B, routes] = std::tie(call.x, call.A, call.B, call.routes);
  TORCH_CHECK(x.dim() == 3, call.op, ": x must be (B, L, C), got ", x.sizes());
  TORCH_CHECK(routes.dim() == 2, call.op, ": routes must be (K, T), got ",
              routes.sizes());
  TORCH_CHECK(A.dim() == 3, call.op, ": A must be (K, C, N), got ", A.sizes());
  TORCH_CHECK(B.dim() == 4 || B.dim() == 5, call.op,
              ": B must be (B, L, K, N) or (B, L, K, G, N), got ", B.sizes());
  ScanSizes s;
  s.batch = x.size(0);
  s.length = x.size(1);
  s.channels = x.size(2);
  s.routes = routes.size(0);
  s.seq_len = routes.size(1);
  s.d_state = A.size(2);
  s.groups = B.dim() == 5 ? B.size(3) : 1;
  TORCH_CHECK(!given(call.dt_weight) || call.dt_weight->dim() == 3, call.op,
              ": dt_weight must be (K, C, R), got ", call.dt_weight->sizes());
  s.dt_rank = given(call.dt_weight) ? call.dt_weight->size(2) : 0;
  TORCH_CHECK(s.groups > 0 && s.channels % s.groups == 0, call.op, ": ",
              s.channels, " channels do not divide into ", s.groups, " groups");
  TORCH_CHECK(!given(call.dt_weight) || s.dt_rank > 0, call.op,
              ": dt_weight needs at least one column, got ",
              call.dt_weight->sizes());
  TORCH_CHECK(s.d_state > 0, call.op, ": A needs at least one state, got ",
              A.sizes());
  return s;
}

void check_shapes(const ScanCall& call, const ScanSizes& s) {
  const auto check = [&](const char* name, const OptionalTensor& t,
                         at::IntArrayRef want, const char* axes) {
    check_input(call.op, name, call.x, t, want, axes);
  };
  std::vector<int64_t> weights = {s.batch, s.length, s.routes, s.d_state};
  if (call.B.dim() == 5) weights.insert(weights.begin() + 3, s.groups);
  const bool low_rank = given(call.dt_weight);
  check("A", call.A, {s.routes, s.channels, s.d_state}, "(K, C, N)");
  check("B", call.B, weights, "(B, L, K, [G,] N)");
  check("C", call.C, weights, "(B, L, K, [G,] N)");
  check("dt", call.dt,
        {s.batch, s.length, s.routes, low_rank ? s.dt_rank : s.channels},
        low_rank ? "(B, L, K, R)" : "(B, L, K, C)");
  check("D", call.D, {s.routes, s.channels}, "(K, C)");
  check("dt_weight", call.dt_weight, {s.routes, s.channels, s.dt_rank},
        "(K, C, R)");
  check("dt_bias", call.dt_bias, {s.routes, s.channels}, "(K, C)");
}

// The kernels trust the indices, so a wrong one must be caught here, before
// it is narrowed to 32 bits.
template <typename T>
void check_indices(const ScanCall& call) {
  const int64_t length = call.x.size(1);
  const Tensor flat = call.routes.contiguous();
  const T* index = flat.const_data_ptr<T>();
  int64_t lowest = 0, highest = -1;
  for (int64_t i = 0; i < flat.numel(); ++i) {
    lowest = std::min<int64_t>(lowest, index[i]);
    highest = std::max<int64_t>(highest, index[i]);
  }
  TORCH_CHECK(lowest >= -1 && highest < length, call.op,
              ": routes must hold token indices from -1 (a zero token) to L - "
              "1 = ",
              length - 1, ", got ", lowest, " to ", highest);
}

// On a GPU only the kernels see the indices: a check here would wait for them.
void check_routes(const ScanCall& call) {
  const Tensor& routes = call.routes;
  TORCH_CHECK(
      routes.scalar_type() == at::kInt || routes.scalar_type() == at::kLong,
      call.op, ": routes must be int32 or int64, got ", routes.scalar_type());
  check_device(call.op, "routes", call.x, routes);
  if (!routes.is_cpu()) return;
  if (routes.scalar_type() == at::kInt)
    check_indices<int32_t>(call);
  else
    check_indices<int64_t>(call);
}

// Token tensors keep their strides when the innermost axis is contiguous.
Tensor as_tokens(const Tensor& t, at::ScalarType dtype) {
  const Tensor cast = t.to(dtype);
  return cast.stride(-1) == 1 || cast.size(-1) <= 1 ? cast : cast.contiguous();
}

// B and C with a group axis.
Tensor as_weights(const OptionalTensor& t, at::ScalarType dtype) {
  if (!given(t)) return {};
  return as_tokens(t->dim() == 5 ? *t : t->unsqueeze(3), dtype);
}

Tensor as_parameter(const OptionalTensor& t, at::ScalarType dtype) {
  return given(t) ? t->to(dtype).contiguous() : Tensor();
}

// Narrowed without wrapping: on a device only the kernel sees a wrong index.
Tensor as_indices(const Tensor& routes, int64_t length) {
  const bool may_wrap = !routes.is_cpu() && routes.scalar_type() == at::kLong;
  return (may_wrap ? routes.clamp(-2, length) : routes)
      .to(at::kInt)
      .contiguous();
}

// (B, K, checkpoints, N, C)
std::vector<int64_t> checkpoint_shape(const ScanSizes& s) {
  return {s.batch, s.routes, checkpoint_count(s), s.d_state, s.channels};
}

}  // namespace

std::vector<int64_t> output_shape(const ScanInputs& in) {
  const ScanSizes& s = in.size;
  if (in.output == ScanOutput::kSum) return {s.batch, s.length, s.channels};
  if (in.output == ScanOutput::kRoutes)
    return {s.batch, s.routes, s.length, s.channels};
  return {s.batch, s.routes, s.length, s.channels, s.d_state};
}

Tensor new_checkpoints(const ScanInputs& in, bool keep) {
  return at::empty(keep ? checkpoint_shape(in.size) : std::vector<int64_t>{0},
                   in.a.options());
}

void check_backward(const ScanCall& call, const ScanInputs& in,
                    const Tensor& grad, const Tensor& checkpoints) {
  check_input(call.op, "grad", call.x, grad, output_shape(in), "of the result");
  check_input(call.op, "checkpoints", call.x, checkpoints,
              checkpoint_shape(in.size), "(B, K, ceil(T / 64), N, C)");
  TORCH_CHECK(checkpoints.scalar_type() == in.a.scalar_type(), call.op,
              ": checkpoints must be ", in.a.scalar_type(), ", got ",
              checkpoints.scalar_type());
}

ScanInputs prepare(const ScanCall& call, bool keep_half) {
  ScanInputs in;
  in.output = parse_output(call);
  in.delta_softplus = call.delta_softplus;
  check_token_dtype(call.op, call.x);
  in.size = read_sizes(call);
  const bool states_only = in.output == ScanOutput::kStates;
  TORCH_CHECK(states_only != given(call.C), call.op,
              ": output='states' takes no C, every other output needs it");
  TORCH_CHECK(!(states_only && given(call.D)), call.op,
              ": output='states' takes no D");
  check_shapes(call, in.size);
  check_routes(call);

  const auto type = call.x.scalar_type();
  const auto dtype = type == at::kDouble ? at::kDouble : at::kFloat;
  const bool alike = call.dt.scalar_type() == type &&
                     call.B.scalar_type() == type &&
                     (!given(call.C) || call.C->scalar_type() == type);
  const bool keep = keep_half && at::isReducedFloatingType(type) && alike;
  const auto token_dtype = keep ? type : dtype;
  in.x = call.x.to(token_dtype).contiguous();
  in.dt = as_tokens(call.dt, token_dtype);
  in.b = as_weights(call.B, token_dtype);
  in.c = as_weights(call.C, token_dtype);
  in.a = as_parameter(call.A, dtype);
  in.d = as_parameter(call.D, dtype);
  in.dt_weight = as_parameter(call.dt_weight, dtype);
  in.dt_bias = as_parameter(call.dt_bias, dtype);
  in.routes = as_indices(call.routes, in.size.length);
  return in;
}

}  // namespace mmssm
