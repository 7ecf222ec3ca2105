// The loops for processors with AVX-512. System headers come before the
// target is set: their inline functions must stay runnable everywhere.
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                               \
    __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#endif
#define MMSSM_SIMD avx512
#define MMSSM_VECTOR_BYTES 64
#include "cpu_ops.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
