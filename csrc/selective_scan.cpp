// The 1-D scan is the routed scan along the one route 0, 1, 2, ...: a
// composition, so that gradients, autocast and tracing come with it.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "common/op_handles.h"

namespace mmssm {
namespace {

using at::Tensor;

// (B, N, L) or (B, G, N, L) -> (B, L, 1, G, N)
Tensor to_token_major(const Tensor& t, const char* name) {
  TORCH_CHECK(t.dim() == 3 || t.dim() == 4, "selective_scan: ", name,
              " must be (B, N, L) or (B, G, N, L), got ", t.sizes());
  const Tensor grouped = t.dim() == 4 ? t : t.unsqueeze(1);
  return grouped.permute({0, 3, 1, 2}).unsqueeze(2);
}

Tensor selective_scan(const Tensor& u, const Tensor& delta, const Tensor& A,
                      const Tensor& B, const Tensor& C, const OptionalTensor& D,
                      const OptionalTensor& delta_bias, bool delta_softplus) {
  TORCH_CHECK(u.dim() == 3, "selective_scan: u must be (B, D, L), got ",
              u.sizes());
  TORCH_CHECK(delta.sym_sizes() == u.sym_sizes(),
              "selective_scan: delta must "
              "have u's shape ",
              u.sym_sizes(), ", got ", delta.sym_sizes());
  TORCH_CHECK(A.dim() == 2, "selective_scan: A must be (D, N), got ",
              A.sizes());
  const auto one_route = [](const OptionalTensor& t) -> OptionalTensor {
    if (!t.has_value() || !t->defined()) return std::nullopt;
    return t->unsqueeze(0);
  };
  const Tensor routes =
      at::arange(u.sym_size(2), u.options().dtype(at::kInt)).unsqueeze(0);
  const Tensor y = routed_scan_op().call(
      u.transpose(1, 2), delta.transpose(1, 2).unsqueeze(2), A.unsqueeze(0),
      to_token_major(B, "B"), to_token_major(C, "C"), one_route(D),
      std::nullopt, one_route(delta_bias), routes, delta_softplus, "sum",
      std::nullopt);
  return y.transpose(1, 2);
}

}  // namespace

TORCH_LIBRARY_IMPL(mmssm, CompositeImplicitAutograd, m) {
  m.impl("selective_scan", &selective_scan);
}

}  // namespace mmssm
