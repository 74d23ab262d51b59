/* Attention with AVX-512: sixteen floats are one register, and there are thirty-two of them. */
#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "attention_kernels.h"

#define MOST_ROWS 12
#define ALWAYS static inline __attribute__((always_inline))

typedef __m512 v16;

ALWAYS v16 v16_zero(void) { return _mm512_setzero_ps(); }
ALWAYS v16 v16_set1(float x) { return _mm512_set1_ps(x); }
ALWAYS v16 v16_load(const float *from) { return _mm512_loadu_ps(from); }
ALWAYS void v16_store(float *to, v16 x) { _mm512_storeu_ps(to, x); }
ALWAYS v16 v16_add(v16 x, v16 y) { return _mm512_add_ps(x, y); }
ALWAYS v16 v16_sub(v16 x, v16 y) { return _mm512_sub_ps(x, y); }
ALWAYS v16 v16_mul(v16 x, v16 y) { return _mm512_mul_ps(x, y); }
ALWAYS v16 v16_div(v16 x, v16 y) { return _mm512_div_ps(x, y); }
ALWAYS v16 v16_max(v16 x, v16 y) { return _mm512_max_ps(x, y); }
ALWAYS v16 v16_fma(v16 x, v16 y, v16 z) { return _mm512_fmadd_ps(x, y, z); }
ALWAYS float v16_first(v16 x) { return _mm512_cvtss_f32(x); }

/* r * 2^(the whole number in the low bits of `shifted`) */
ALWAYS v16 v16_exp2_scale(v16 r, v16 shifted) {
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(r), power));
}

/* `value`, but 0 where x < limit; a NaN stays. */
ALWAYS v16 v16_zero_below(v16 x, float limit, v16 value) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(limit), _CMP_NLT_UQ), value);
}

/* Lanes `from` to `to` of x, minus infinity elsewhere. */
ALWAYS v16 v16_only(v16 x, int from, int to) {
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 inside = _mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(from)) &
                       _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(to));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), inside, x);
}

ALWAYS float v16_highest(v16 x) {
    __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Halves are added to halves: lane i to lane i + 8, then + 4, + 2, + 1. */
ALWAYS float v16_sum(v16 x) {
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The second operand of min and max survives if it is NaN. */
ALWAYS __m256i v16_to_f16(v16 x) {
    v16 inside = _mm512_max_ps(_mm512_set1_ps(-65504.0f), _mm512_min_ps(_mm512_set1_ps(65504.0f), x));
    return _mm512_cvtps_ph(inside, _MM_FROUND_TO_NEAREST_INT);
}

ALWAYS __m256i v16_to_bf16(v16 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i is_odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i nearest = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), is_odd);
    __m512i nan = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __m512i chosen = _mm512_mask_mov_epi32(nearest, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16));
}

ALWAYS v16 v16_load_as(int format, const char *from, int64_t index) {
    if (format == CIRCIUS_F32)
        return v16_load((const float *)from + index);
    if (format == CIRCIUS_I8)
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from + index))));
    __m256i halves = _mm256_loadu_si256((const __m256i *)(from + 2 * index));
    if (format == CIRCIUS_F16)
        return _mm512_cvtph_ps(halves);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

/* Vector `index` of what turn_eight wrote. */
ALWAYS v16 v16_load_turned(int format, const char *from, int index) {
    if (format != CIRCIUS_I8)
        return v16_load_as(format, from, 16 * index);
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)from + index)));
}

#include "attention_x86.h"

#include "attention_body.h"

const struct circius_attention_kernels circius_attention_avx512 = {attend, round_row};
