// A vector of numbers for one instruction set.
//
// Included once per instruction set, inside a file that has set the compiler's
// target, MMSSM_SIMD (the namespace) and MMSSM_VECTOR_BYTES. It builds on the
// vector types of GCC and Clang; other compilers get vectors of one number.
#pragma once

#include "scalar_math.h"

namespace mmssm {
namespace MMSSM_SIMD {

template <typename T>
struct VectorOf;
#if defined(__GNUC__)
#define MMSSM_VECTOR __attribute__((vector_size(MMSSM_VECTOR_BYTES)))
#define MMSSM_UNALIGNED __attribute__((packed))
#define MMSSM_LAMBDA __attribute__((always_inline))
#else
#define MMSSM_VECTOR
#define MMSSM_UNALIGNED
#define MMSSM_LAMBDA
#endif
template <>
struct VectorOf<float> {
  typedef float Type MMSSM_VECTOR;
  typedef int32_t Bits MMSSM_VECTOR;
};
template <>
struct VectorOf<double> {
  typedef double Type MMSSM_VECTOR;
  typedef int64_t Bits MMSSM_VECTOR;
};

template <typename T>
struct Pack {
  typedef typename VectorOf<T>::Type Vector;
  typedef typename VectorOf<T>::Bits Bits;
  static constexpr int kWidth = sizeof(Vector) / sizeof(T);
  Vector v;
  // A vector in memory, anywhere. Not read through memcpy: that may alias
  // everything, and makes the compiler reload what it knows.
  struct MMSSM_UNALIGNED InMemory {
    Vector v;
  };

  Pack() = default;
  // Minus zero, which compilers drop: plus zero would change the sign of -0.
  MMSSM_MEMBER explicit Pack(T number) : v(number - Vector{}) {}

  static MMSSM_MEMBER Pack of(const Vector& vector) {
    Pack p;
    p.v = vector;
    return p;
  }
  static MMSSM_MEMBER Pack load(const T* from) {
    return of(reinterpret_cast<const InMemory*>(from)->v);
  }
  MMSSM_MEMBER void store(T* to) const {
    reinterpret_cast<InMemory*>(to)->v = v;
  }
};

template <typename T>
MMSSM_INLINE Pack<T> operator+(const Pack<T>& a, const Pack<T>& b) {
  return Pack<T>::of(a.v + b.v);
}
template <typename T>
MMSSM_INLINE Pack<T> operator-(const Pack<T>& a, const Pack<T>& b) {
  return Pack<T>::of(a.v - b.v);
}
template <typename T>
MMSSM_INLINE Pack<T> operator*(const Pack<T>& a, const Pack<T>& b) {
  return Pack<T>::of(a.v * b.v);
}
template <typename T>
MMSSM_INLINE Pack<T> operator/(const Pack<T>& a, const Pack<T>& b) {
  return Pack<T>::of(a.v / b.v);
}
template <typename T>
MMSSM_INLINE Pack<T> at_least(const Pack<T>& x, const Pack<T>& low) {
  return Pack<T>::of(low.v > x.v ? low.v : x.v);
}
template <typename T>
MMSSM_INLINE Pack<T> at_most(const Pack<T>& x, const Pack<T>& high) {
  return Pack<T>::of(high.v < x.v ? high.v : x.v);
}
template <typename T>
MMSSM_INLINE Pack<T> magnitude(const Pack<T>& x) {
  return Pack<T>::of(x.v < typename Pack<T>::Vector{} ? -x.v : x.v);
}
template <typename T>
MMSSM_INLINE Pack<T> if_negative(const Pack<T>& x, const Pack<T>& then,
                                 const Pack<T>& otherwise) {
  return Pack<T>::of(x.v < typename Pack<T>::Vector{} ? then.v : otherwise.v);
}

#if defined(__GNUC__)
MMSSM_INLINE Pack<float> half_power_of_two(const Pack<float>& rounded) {
  typedef Pack<float>::Bits Bits;
  const Bits zero = (Bits)Pack<float>(kRounder).v;
  return Pack<float>::of(
      (Pack<float>::Vector)(((Bits)rounded.v - zero + 126) << 23));
}
#else
MMSSM_INLINE Pack<float> half_power_of_two(const Pack<float>& rounded) {
  return Pack<float>::of(mmssm::half_power_of_two(rounded.v));
}
#endif

// What the processor does in one instruction and a compiler does not find.
#if MMSSM_VECTOR_BYTES == 64  // AVX-512
MMSSM_INLINE Pack<float> at_least(const Pack<float>& x,
                                  const Pack<float>& low) {
  return Pack<float>::of(_mm512_max_ps(low.v, x.v));
}
MMSSM_INLINE Pack<float> at_most(const Pack<float>& x,
                                 const Pack<float>& high) {
  return Pack<float>::of(_mm512_min_ps(high.v, x.v));
}
MMSSM_INLINE Pack<float> magnitude(const Pack<float>& x) {
  return Pack<float>::of(_mm512_abs_ps(x.v));
}
MMSSM_INLINE Pack<float> times_power_of_two(const Pack<float>& p,
                                            const Pack<float>& n,
                                            const Pack<float>&) {
  return Pack<float>::of(_mm512_scalef_ps(p.v, n.v));
}
#elif MMSSM_VECTOR_BYTES == 32  // AVX2
MMSSM_INLINE Pack<float> at_least(const Pack<float>& x,
                                  const Pack<float>& low) {
  return Pack<float>::of(_mm256_max_ps(low.v, x.v));
}
MMSSM_INLINE Pack<float> at_most(const Pack<float>& x,
                                 const Pack<float>& high) {
  return Pack<float>::of(_mm256_min_ps(high.v, x.v));
}
MMSSM_INLINE Pack<float> magnitude(const Pack<float>& x) {
  return Pack<float>::of(_mm256_andnot_ps(_mm256_set1_ps(-0.f), x.v));
}
#endif

// No fast vector exponential in double precision: it is for tests.
MMSSM_INLINE Pack<double> fast_exp(const Pack<double>& x) {
  double lanes[Pack<double>::kWidth];
  x.store(lanes);
  for (double& lane : lanes) lane = exp(lane);
  return Pack<double>::load(lanes);
}
MMSSM_INLINE Pack<double> log1p_unit(const Pack<double>& x) {
  double lanes[Pack<double>::kWidth];
  x.store(lanes);
  for (double& lane : lanes) lane = log1p(lane);
  return Pack<double>::load(lanes);
}

// [a0 + a1, a2 + a3, ..., b0 + b1, ...]: sums of neighbors.
template <typename T>
MMSSM_INLINE Pack<T> add_neighbors(const Pack<T>& a, const Pack<T>& b) {
  constexpr int width = Pack<T>::kWidth;
#if defined(__GNUC__) && !defined(__clang__)
  typedef typename Pack<T>::Bits Bits;
  Bits even, odd;
  for (int i = 0; i < width; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
  return Pack<T>::of(__builtin_shuffle(a.v, b.v, even) +
                     __builtin_shuffle(a.v, b.v, odd));
#else
  T from[2 * width], to[width];
  a.store(from);
  b.store(from + width);
  for (int i = 0; i < width; ++i) to[i] = from[2 * i] + from[2 * i + 1];
  return Pack<T>::load(to);
#endif
}

// Sums over the lanes of kWidth rows at once, in row order.
template <typename T, int kRows>
struct RowSums {
  static MMSSM_MEMBER Pack<T> of(const Pack<T>* rows) {
    Pack<T> half[kRows / 2];
    for (int i = 0; i < kRows / 2; ++i)
      half[i] = add_neighbors(rows[2 * i], rows[2 * i + 1]);
    return RowSums<T, kRows / 2>::of(half);
  }
};
template <typename T>
struct RowSums<T, 1> {
  static MMSSM_MEMBER Pack<T> of(const Pack<T>* rows) { return rows[0]; }
};

template <typename T>
static MMSSM_MEMBER Pack<T> sum_rows(const T* rows) {
  typedef Pack<T> V;
  V group[V::kWidth];
  for (int i = 0; i < V::kWidth; ++i) group[i] = V::load(rows + i * V::kWidth);
  return RowSums<T, V::kWidth>::of(group);
}

}  // namespace MMSSM_SIMD
}  // namespace mmssm
