#include "inputs.h"

namespace mmssm {
namespace {

using at::Tensor;

constexpr const char* kOp = "state_fusion";

void check_like_x(const Tensor& x, const char* name, const Tensor& t) {
  check_device(kOp, name, x, t);
  TORCH_CHECK(at::isFloatingType(t.scalar_type()), kOp, ": ", name,
              " must be floating-point, got ", t.scalar_type());
}

void check_inputs(const FusionCall& call) {
  const Tensor& x = call.x;
  TORCH_CHECK(x.dim() == 4 && x.size(1) > 0 && x.size(2) > 0, kOp,
              ": x must be a map (B, H, W, C) with at least one token, got ",
              x.sizes());
  check_token_dtype(kOp, x);
  const auto check = [&](const char* name, const Tensor& t,
                         at::IntArrayRef want, const char* axes) {
    check_shape(kOp, name, t, want, axes);
    check_like_x(x, name, t);
  };
  check("taps", call.taps, {kTaps, x.size(3)}, "(25, C)");
  TORCH_CHECK(given(call.C) == given(call.D) && given(call.C) == given(call.u),
              kOp, ": a read-out takes C, D and u; give all three or none");
  if (!given(call.C)) return;
  check("C", *call.C, x.sizes().slice(0, 3), "(B, H, W)");
  check("D", *call.D, {x.size(3)}, "(C)");
  check("u", *call.u, x.sizes(), "(B, H, W, C)");
}

}  // namespace

FusionInputs prepare(const FusionCall& call, bool keep_half) {
  check_inputs(call);
  const Tensor& x = call.x;
  const bool readout = given(call.C);
  const auto type = x.scalar_type();
  const auto dtype = type == at::kDouble ? at::kDouble : at::kFloat;
  const bool alike = !readout || (call.C->scalar_type() == type &&
                                  call.u->scalar_type() == type);
  const bool keep = keep_half && alike && at::isReducedFloatingType(type);
  const auto map_dtype = keep ? type : dtype;
  FusionInputs in;
  in.size = {x.size(0), x.size(1), x.size(2), x.size(3)};
  in.x = x.to(map_dtype).contiguous();
  in.taps = call.taps.to(dtype).contiguous();
  if (readout) {
    in.c = call.C->to(map_dtype).contiguous();
    in.d = call.D->to(dtype).contiguous();
    in.u = call.u->to(map_dtype).contiguous();
  }
  return in;
}

void check_grad(const FusionCall& call, const Tensor& grad) {
  check_shape(kOp, "grad", grad, call.x.sizes(), "(B, H, W, C)");
  check_like_x(call.x, "grad", grad);
}

}  // namespace mmssm
