// Checks that the ops' inputs share. A message begins with the op's name.
#pragma once

#include <ATen/ATen.h>

#include <optional>

namespace mmssm {

using OptionalTensor = std::optional<at::Tensor>;

inline bool given(const OptionalTensor& t) {
  return t.has_value() && t->defined();
}

// `axes` says what the dimensions are, as in the schemas' comments.
inline void check_shape(const char* op, const char* name,
                        const OptionalTensor& t, at::IntArrayRef want,
                        const char* axes) {
  if (!given(t)) return;
  TORCH_CHECK(t->sizes() == want, op, ": ", name, " must have shape ", axes,
              " = ", want, ", got ", t->sizes());
}

inline void check_device(const char* op, const char* name, const at::Tensor& x,
                         const OptionalTensor& t) {
  if (!given(t)) return;
  TORCH_CHECK(t->device() == x.device(), op, ": ", name, " is on ", t->device(),
              " but x is on ", x.device(), "; move them to one device");
}

// The ops would take complex values by their real parts.
inline void check_real(const char* op, const char* name,
                       const OptionalTensor& t) {
  if (!given(t)) return;
  TORCH_CHECK(!t->is_complex(), op, ": ", name, " must be real, got ",
              t->scalar_type(), "; pass ", name,
              ".real to drop its imaginary part");
}

// What a scan asks of a tensor that comes with x.
inline void check_input(const char* op, const char* name, const at::Tensor& x,
                        const OptionalTensor& t, at::IntArrayRef want,
                        const char* axes) {
  check_shape(op, name, t, want, axes);
  check_real(op, name, t);
  check_device(op, name, x, t);
}

inline void check_token_dtype(const char* op, const at::Tensor& x) {
  const auto type = x.scalar_type();
  TORCH_CHECK(type == at::kDouble || type == at::kFloat || type == at::kHalf ||
                  type == at::kBFloat16,
              op, ": x must be float64, float32, float16 or bfloat16, got ",
              type);
}

inline void check_out_dtype(const char* op,
                            std::optional<at::ScalarType> dtype) {
  TORCH_CHECK(!dtype.has_value() || at::isFloatingType(*dtype), op,
              ": out_dtype must be floating-point, got ",
              dtype.value_or(at::kFloat));
}

// A scan's sums can pass 65504, float16's largest number.
inline at::ScalarType result_dtype(std::optional<at::ScalarType> out_dtype,
                                   const at::Tensor& x) {
  const auto type = x.scalar_type();
  return out_dtype.value_or(type == at::kHalf ? at::kFloat : type);
}

}  // namespace mmssm
