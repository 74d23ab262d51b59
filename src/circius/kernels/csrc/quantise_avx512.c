#include <immintrin.h>
#include <math.h>

#include "matmul.h"

void circius_quantise_avx512(const float *x, const struct circius_activations *to, int64_t at) {
    int8_t *codes = to->codes + at * CIRCIUS_UNIT;
    const __m512i no_sign = _mm512_set1_epi32(0x7fffffff);
    __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
    /* As whole numbers, where what is not finite is above all numbers. */
    uint32_t greatest = (uint32_t)_mm512_reduce_max_epi32(_mm512_max_epi32(
        _mm512_and_si512(_mm512_castps_si512(x0), no_sign), _mm512_and_si512(_mm512_castps_si512(x1), no_sign)));
    float amax = circius_from_bits(greatest);
    float inverse = 127.0f / amax;
    float scale = greatest < 0x7f800000u ? amax / 127.0f : NAN;
    if (greatest >= 0x7f800000u || circius_to_bits(inverse) >= 0x7f800000u)
        x0 = x1 = _mm512_setzero_ps(), inverse = 0.0f;
    __m512 factor = _mm512_set1_ps(inverse);
    __m512i a0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, factor)), a1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, factor));
    _mm_storeu_si128((__m128i *)codes, _mm512_cvtepi32_epi8(a0));
    _mm_storeu_si128((__m128i *)(codes + 16), _mm512_cvtepi32_epi8(a1));
    int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a0, a1));
    to->scales[at] = scale;
    to->shifts[at] = scale * (float)sum;
    to->starts[at] = -8 * sum;
}
