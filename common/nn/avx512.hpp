#pragma once

#if defined(__x86_64__)

#include <c10/util/BFloat16.h>
#include <immintrin.h>

#include <cstdint>

// For functions that are called only where has_avx512() says so.
#define ASTROCLIP_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))

namespace astroclip::nn {

// AVX-512 with conversions to bfloat16: Zen 4, Cooper Lake, Sapphire Rapids and later.
inline bool has_avx512()
{
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bf16");
}

inline constexpr std::int64_t lanes = 16;  // float32 values of a vector

// Fetches n values into the cache next but one.
inline void fetch(const float* values, std::int64_t n)
{
    for (std::int64_t i = 0; i < n; i += lanes) {
        _mm_prefetch(values + i, _MM_HINT_T1);
    }
}

inline __mmask16 first_lanes(std::int64_t n) { return n >= lanes ? 0xffff : (1U << n) - 1; }

// exp(x), x <= 0, as 2^exponent · factor, to 2e-7 of its value: factor = exp(r), r = x - exponent · ln 2, by
// its Taylor series (|r| <= ln2/2; ln 2 in two parts, of which the first times an exponent is exact). 0 below
// -690. NaN stays NaN: of two operands the maximum of AVX-512 gives the second if one is NaN.
struct Power {
    __m512 factor, exponent;
};
ASTROCLIP_AVX512 inline Power power_of_e(__m512 x)
{
    const auto t = _mm512_max_ps(_mm512_set1_ps(-690.0F), x);
    const auto n = _mm512_roundscale_ps(_mm512_mul_ps(t, _mm512_set1_ps(1.44269504F)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    auto r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375F), t);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4F), r);
    auto y = _mm512_set1_ps(1.38888889e-3F);  // 1/6!, 1/5!, …
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(8.33333333e-3F));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(4.16666667e-2F));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.66666667e-1F));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0.5F));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0F));
    return {_mm512_fmadd_ps(y, r, _mm512_set1_ps(1.0F)), n};
}
ASTROCLIP_AVX512 inline __m512 exp_of(__m512 x)
{
    const auto power = power_of_e(x);
    return _mm512_scalef_ps(power.factor, power.exponent);
}

// 16 values as bfloat16, rounded to nearest, and back.
ASTROCLIP_AVX512 inline __m256i to_bfloat16(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
ASTROCLIP_AVX512 inline __m512 from_bfloat16(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

// 16 values of either type, in memory.
ASTROCLIP_AVX512 inline void store(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
ASTROCLIP_AVX512 inline void store(at::BFloat16* to, __m512 x)
{
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), to_bfloat16(x));
}
ASTROCLIP_AVX512 inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }
ASTROCLIP_AVX512 inline __m512 load(const at::BFloat16* from)
{
    return from_bfloat16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

}  // namespace astroclip::nn

#endif
