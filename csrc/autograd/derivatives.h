// What the ops' gradients share: which derivatives there are and are wanted.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <string>

#include "../common/op_handles.h"

namespace mmssm {

inline bool has_tangent(const at::Tensor& t) {
  return t.defined() && t._fw_grad(/*level=*/0).defined();
}
inline bool has_tangent(const OptionalTensor& t) {
  return t.has_value() && has_tangent(*t);
}
// Without this, forward mode would silently find no derivative.
template <typename... Tensors>
void refuse_tangents(const std::string& op, const Tensors&... tensors) {
  TORCH_CHECK(!(has_tangent(tensors) || ...), op,
              " has no forward-mode derivative; use ", op,
              "_reference if you need one");
}
// Without this, the gradient of a gradient would silently be zero.
inline void refuse_second_derivative(const std::string& op) {
  TORCH_CHECK(false, op, " has no second derivative; use ", op,
              "_reference if you need one");
}

inline bool requires_grad(const at::Tensor& t) { return t.requires_grad(); }
inline bool requires_grad(const OptionalTensor& t) {
  return t.has_value() && t->requires_grad();
}
template <typename... Tensors>
bool needs_gradient(const Tensors&... tensors) {
  return at::GradMode::is_enabled() && (requires_grad(tensors) || ...);
}

}  // namespace mmssm
