// Scalar maths shared by the CPU kernels and the CUDA kernels.
//
// The float versions are branch-free, so that a compiler turns a loop over
// channels into vector instructions. Everything has internal linkage: the same
// header is compiled for several instruction sets, and a shared symbol could
// hand one set's code to a processor that lacks it.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define MMSSM_MEMBER inline __host__ __device__
#elif defined(__GNUC__)
#define MMSSM_MEMBER inline __attribute__((always_inline))
#else
#define MMSSM_MEMBER inline
#endif
#define MMSSM_INLINE static MMSSM_MEMBER

namespace mmssm {

MMSSM_INLINE float bits_to_float(int32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

MMSSM_INLINE int32_t float_to_bits(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

MMSSM_INLINE double fast_exp(double x) { return exp(x); }

// e^x to 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial in
// r (fitted for the least relative error, 3e-9, with p(0) = p'(0) = 1), and
// 2^n put together from bits. Below -86.99 the result is 0, above 88.72
// infinity.
MMSSM_INLINE float fast_exp(float x) {
  const float magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to integers
  const float lowest = -87.33654f, highest = 88.9f;
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const int32_t exponent = float_to_bits(shifted) - float_to_bits(magic);
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  float p = 1.381453825e-3f;
  p = p * r + 8.368745446e-3f;
  p = p * r + 4.166838899e-2f;
  p = p * r + 1.666652113e-1f;
  p = p * r + 4.999999404e-1f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  // 2^n in two factors: n may be 128, whose own bits would be infinity's.
  return p * bits_to_float((exponent + 126) << 23) * 2.f;
}

MMSSM_INLINE double log1p_unit(double x) { return log1p(x); }

// log(1 + x) for x in [0, 1], through 2 atanh(x / (2 + x)): small x keep their
// relative accuracy.
MMSSM_INLINE float log1p_unit(float x) {
  const float s = x / (2.f + x);
  const float q = s * s;
  float p = 2.f / 15.f;
  p = p * q + 2.f / 13.f;
  p = p * q + 2.f / 11.f;
  p = p * q + 2.f / 9.f;
  p = p * q + 2.f / 7.f;
  p = p * q + 2.f / 5.f;
  p = p * q + 2.f / 3.f;
  return s * (p * q + 2.f);
}

// softplus(x) = log(1 + e^x), without overflow.
template <typename T>
MMSSM_INLINE T softplus(T x) {
  const T magnitude = x < T(0) ? -x : x;
  return (x > T(0) ? x : T(0)) + log1p_unit(fast_exp(-magnitude));
}

// d softplus / dx, the logistic function.
template <typename T>
MMSSM_INLINE T softplus_slope(T x) {
  const T magnitude = x < T(0) ? -x : x;
  const T e = fast_exp(-magnitude);
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

}  // namespace mmssm
