#include "fusion_inputs.h"

namespace mmssm {
namespace {

using at::Tensor;
using std::optional;

void check_shape(const Tensor& t, const char* name, at::IntArrayRef want,
                 const char* axes) {
  TORCH_CHECK(t.sizes() == want, "state_fusion: ", name, " must have shape ",
              axes, " = ", want, ", got ", t.sizes());
}

void check_like_x(const Tensor& x, const Tensor& t, const char* name) {
  TORCH_CHECK(t.device() == x.device(), "state_fusion: ", name, " is on ",
              t.device(), ", x is on ", x.device());
  TORCH_CHECK(at::isFloatingType(t.scalar_type()), "state_fusion: ", name,
              " must be floating-point, got ", t.scalar_type());
}

}  // namespace

FusionInputs prepare_fusion(const Tensor& x, const Tensor& taps,
                            const optional<Tensor>& C,
                            const optional<Tensor>& D,
                            const optional<Tensor>& u, bool keep_half) {
  TORCH_CHECK(x.dim() == 4 && x.size(1) > 0 && x.size(2) > 0,
              "state_fusion: x must be a map (B, H, W, C) with at least one "
              "token, got ",
              x.sizes());
  const auto type = x.scalar_type();
  TORCH_CHECK(type == at::kDouble || type == at::kFloat || type == at::kHalf ||
                  type == at::kBFloat16,
              "state_fusion: x must be float64, float32, float16 or bfloat16, "
              "got ",
              type);
  FusionInputs in;
  in.size = {x.size(0), x.size(1), x.size(2), x.size(3)};
  check_shape(taps, "taps", {kTaps, x.size(3)}, "(25, C)");
  check_like_x(x, taps, "taps");
  TORCH_CHECK(
      C.has_value() == D.has_value() && C.has_value() == u.has_value(),
      "state_fusion: a read-out takes C, D and u; give all three or none");
  if (C.has_value()) {
    check_shape(*C, "C", x.sizes().slice(0, 3), "(B, H, W)");
    check_shape(*D, "D", {x.size(3)}, "(C)");
    check_shape(*u, "u", x.sizes(), "(B, H, W, C)");
    check_like_x(x, *C, "C");
    check_like_x(x, *D, "D");
    check_like_x(x, *u, "u");
  }
  const auto dtype = type == at::kDouble ? at::kDouble : at::kFloat;
  const bool alike =
      !C.has_value() || (C->scalar_type() == type && u->scalar_type() == type);
  const auto map_dtype =
      keep_half && alike && at::isReducedFloatingType(type) ? type : dtype;
  in.x = x.to(map_dtype).contiguous();
  in.taps = taps.to(dtype).contiguous();
  if (C.has_value()) {
    in.c = C->to(map_dtype).contiguous();
    in.d = D->to(dtype).contiguous();
    in.u = u->to(map_dtype).contiguous();
  }
  return in;
}

void check_fusion_grad(const Tensor& grad, const Tensor& x) {
  check_shape(grad, "grad", x.sizes(), "(B, H, W, C)");
  check_like_x(x, grad, "grad");
}

}  // namespace mmssm
