// Under autocast the tokens stay as they come, 16-bit or not (dt, B and C
// follow x), and the parameters are float32: the kernels keep the state and
// all maths in float32, which is what 16-bit training needs not to overflow.
#include <ATen/autocast_mode.h>
#include <torch/library.h>

#include "../common/op_handles.h"

namespace mmssm {
namespace {

using at::Tensor;

template <c10::DispatchKey key>
Tensor routed_selective_scan(const Tensor& x, const Tensor& dt, const Tensor& A,
                             const Tensor& B, const OptionalTensor& C,
                             const OptionalTensor& D,
                             const OptionalTensor& dt_weight,
                             const OptionalTensor& dt_bias,
                             const Tensor& routes, bool delta_softplus,
                             std::string_view output,
                             std::optional<at::ScalarType> out_dtype) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(key);
  const auto tokens = x.scalar_type();
  const auto parameters = tokens == at::kDouble ? at::kDouble : at::kFloat;
  const auto cast = [](const OptionalTensor& t, at::ScalarType to) {
    return t.has_value() && t->defined() ? OptionalTensor(t->to(to)) : t;
  };
  return routed_scan_op().call(
      x, dt.to(tokens), A.to(parameters), B.to(tokens), cast(C, tokens),
      cast(D, parameters), cast(dt_weight, parameters),
      cast(dt_bias, parameters), routes, delta_softplus, output, out_dtype);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, AutocastCPU, m) {
  m.impl("routed_selective_scan",
         &routed_selective_scan<c10::DispatchKey::AutocastCPU>);
}

TORCH_LIBRARY_IMPL(mmssm, AutocastCUDA, m) {
  m.impl("routed_selective_scan",
         &routed_selective_scan<c10::DispatchKey::AutocastCUDA>);
}

}  // namespace mmssm
