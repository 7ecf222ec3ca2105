// Math shared by the CPU kernels and the CUDA kernels.
//
// The formulas are templates: a number is a float, or a CPU's vector of floats
// (simd.h) that brings the same few operations. They are branch-free.
// Everything has internal linkage: the same header is compiled for several
// instruction sets, and a shared symbol could hand one set's code to a
// processor that lacks it.
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

// What a formula asks of a number besides + - * /. Where x is not a number,
// so is each result.
template <typename T>
MMSSM_INLINE T at_least(T x, T low) {
  return low > x ? low : x;
}
template <typename T>
MMSSM_INLINE T at_most(T x, T high) {
  return high < x ? high : x;
}
template <typename T>
MMSSM_INLINE T magnitude(T x) {
  return x < T(0) ? -x : x;
}
template <typename T>
MMSSM_INLINE T if_negative(T x, T then, T otherwise) {
  return x < T(0) ? then : otherwise;
}

constexpr float kRounder = 12582912.f;  // 1.5 * 2^23: adding it rounds

// 2^(n - 1) for the integer n in [-126, 128] of which `rounded` is
// kRounder + n: n sits in the low bits.
MMSSM_INLINE float half_power_of_two(float rounded) {
  const float rounder = kRounder;
  int32_t bits, zero;
  memcpy(&bits, &rounded, sizeof(bits));
  memcpy(&zero, &rounder, sizeof(zero));
  const int32_t power = int32_t(uint32_t(bits - zero + 126) << 23);
  float value;
  memcpy(&value, &power, sizeof(value));
  return value;
}

// p 2^n, in two factors: n may be 128, whose own bits would be infinity's.
template <typename V>
MMSSM_INLINE V times_power_of_two(V p, V, V rounded) {
  return p * half_power_of_two(rounded) * V(2.f);
}

MMSSM_INLINE double fast_exp(double x) { return exp(x); }

// e^x to 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, a degree-6 polynomial in
// r (fitted for the least relative error, 3e-9, with p(0) = p'(0) = 1), and
// 2^n. Below -86.99 the result may be 0, above 88.72 it is infinity.
template <typename V>
MMSSM_INLINE V fast_exp(V x) {
  x = at_most(at_least(x, V(-87.33654f)), V(88.9f));
  const V rounded = x * V(1.44269504f) + V(kRounder);
  const V n = rounded - V(kRounder);
  V r = x - n * V(0.693359375f);
  r = r + n * V(2.12194440e-4f);
  V p = V(1.381453825e-3f);
  p = p * r + V(8.368745446e-3f);
  p = p * r + V(4.166838899e-2f);
  p = p * r + V(1.666652113e-1f);
  p = p * r + V(4.999999404e-1f);
  p = p * r + V(1.f);
  p = p * r + V(1.f);
  return times_power_of_two(p, n, rounded);
}

#if defined(__CUDA_ARCH__)
// A GPU has 2^x as one instruction, to 2 ulp; results below 2^-126 are 0 there
// too. The product's rounding costs |x| / 2^24.
MMSSM_INLINE float fast_exp(float x) {
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x * 1.44269504f));
  return value;
}
#endif

MMSSM_INLINE double log1p_unit(double x) { return log1p(x); }

// log(1 + x) for x in [0, 1] to 2 ulp: x p(x), p of degree 9 fitted for the
// least relative error, 5e-9; small x keep their relative accuracy, and there
// is no division.
template <typename V>
MMSSM_INLINE V log1p_unit(V x) {
  V p = V(-3.244009e-3f);
  p = p * x + V(1.985139e-2f);
  p = p * x + V(-5.6959398e-2f);
  p = p * x + V(1.0603641e-1f);
  p = p * x + V(-1.5305585e-1f);
  p = p * x + V(1.9675936e-1f);
  p = p * x + V(-2.4954133e-1f);
  p = p * x + V(3.3329964e-1f);
  p = p * x + V(-4.9999902e-1f);
  p = p * x + V(1.f);
  return x * p;
}

// softplus(x) = log(1 + e^x), without overflow.
template <typename V>
MMSSM_INLINE V softplus(V x) {
  return at_least(x, V(0)) + log1p_unit(fast_exp(V(0) - magnitude(x)));
}

template <typename V>
MMSSM_INLINE V quotient(V a, V b) {
  return a / b;
}
#if defined(__CUDA_ARCH__)
// To 2 ulp for b in [1, 2]: the exact division is a call on a GPU.
MMSSM_INLINE float quotient(float a, float b) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
  return a * inverse;
}
#endif

// softplus(x) and its derivative, the logistic function.
template <typename V>
MMSSM_INLINE V softplus_and_slope(V x, V& slope) {
  const V e = fast_exp(V(0) - magnitude(x));
  slope = quotient(if_negative(x, e, V(1)), V(1) + e);
  return at_least(x, V(0)) + log1p_unit(e);
}

}  // namespace mmssm
