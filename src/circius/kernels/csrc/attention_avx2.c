/* Attention with AVX2, FMA and F16C: sixteen floats are two registers. */
#include <immintrin.h>
#include <math.h>
#include <stddef.h>

#include "attention_kernels.h"

#define MOST_ROWS 6
#define ALWAYS static inline __attribute__((always_inline))

typedef struct {
    __m256 a, b;
} v16;

#define BOTH(OP, x, y) ((v16){OP((x).a, (y).a), OP((x).b, (y).b)})

ALWAYS v16 v16_zero(void) { return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ALWAYS v16 v16_set1(float x) { __m256 v = _mm256_set1_ps(x); return (v16){v, v}; }
ALWAYS v16 v16_load(const float *from) { return (v16){_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
ALWAYS void v16_store(float *to, v16 x) { _mm256_storeu_ps(to, x.a); _mm256_storeu_ps(to + 8, x.b); }
ALWAYS v16 v16_add(v16 x, v16 y) { return BOTH(_mm256_add_ps, x, y); }
ALWAYS v16 v16_sub(v16 x, v16 y) { return BOTH(_mm256_sub_ps, x, y); }
ALWAYS v16 v16_mul(v16 x, v16 y) { return BOTH(_mm256_mul_ps, x, y); }
ALWAYS v16 v16_div(v16 x, v16 y) { return BOTH(_mm256_div_ps, x, y); }
ALWAYS v16 v16_max(v16 x, v16 y) { return BOTH(_mm256_max_ps, x, y); }
ALWAYS v16 v16_fma(v16 x, v16 y, v16 z) {
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
ALWAYS float v16_first(v16 x) { return _mm256_cvtss_f32(x.a); }

/* r * 2^(the whole number in the low bits of `shifted`) */
ALWAYS v16 v16_exp2_scale(v16 r, v16 shifted) {
    __m256i a = _mm256_slli_epi32(_mm256_castps_si256(shifted.a), 23);
    __m256i b = _mm256_slli_epi32(_mm256_castps_si256(shifted.b), 23);
    return (v16){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(r.a), a)),
                 _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(r.b), b))};
}

/* `value`, but 0 where x < limit; a NaN stays. */
ALWAYS v16 v16_zero_below(v16 x, float limit, v16 value) {
    __m256 least = _mm256_set1_ps(limit);
    return (v16){_mm256_and_ps(_mm256_cmp_ps(x.a, least, _CMP_NLT_UQ), value.a),
                 _mm256_and_ps(_mm256_cmp_ps(x.b, least, _CMP_NLT_UQ), value.b)};
}

/* Lanes `from` to `to` of x, minus infinity elsewhere. */
ALWAYS v16 v16_only(v16 x, int from, int to) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), eight = _mm256_set1_epi32(8);
    __m256i low = _mm256_set1_epi32(from - 1), high = _mm256_set1_epi32(to);
    __m256 outside = _mm256_set1_ps(-__builtin_inff());
    __m256i a = _mm256_and_si256(_mm256_cmpgt_epi32(lane, low), _mm256_cmpgt_epi32(high, lane));
    lane = _mm256_add_epi32(lane, eight);
    __m256i b = _mm256_and_si256(_mm256_cmpgt_epi32(lane, low), _mm256_cmpgt_epi32(high, lane));
    return (v16){_mm256_blendv_ps(outside, x.a, _mm256_castsi256_ps(a)),
                 _mm256_blendv_ps(outside, x.b, _mm256_castsi256_ps(b))};
}

ALWAYS float v16_highest(v16 x) {
    __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Halves are added to halves: lane i to lane i + 8, then + 4, + 2, + 1. */
ALWAYS float v16_sum(v16 x) {
    __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* The second operand of min and max survives if it is NaN. */
ALWAYS __m128i f16_of(__m256 x) {
    __m256 most = _mm256_set1_ps(65504.0f), least = _mm256_set1_ps(-65504.0f);
    return _mm256_cvtps_ph(_mm256_max_ps(least, _mm256_min_ps(most, x)), _MM_FROUND_TO_NEAREST_INT);
}

ALWAYS __m256i v16_to_f16(v16 x) { return _mm256_set_m128i(f16_of(x.b), f16_of(x.a)); }

ALWAYS __m256i bf16_of(__m256 x) {
    __m256i bits = _mm256_castps_si256(x), one = _mm256_set1_epi32(1);
    __m256i is_odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    __m256i nearest = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), is_odd);
    __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(nearest, nan, is_nan), 16);
}

ALWAYS __m256i v16_to_bf16(v16 x) { /* packing works inside 128-bit halves, so they are put in order */
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(bf16_of(x.a), bf16_of(x.b)), 0xd8);
}

ALWAYS __m256 eight_as(int format, const char *from, int64_t index) {
    if (format == CIRCIUS_F32)
        return _mm256_loadu_ps((const float *)from + index);
    if (format == CIRCIUS_I8)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(from + index))));
    __m128i halves = _mm_loadu_si128((const __m128i *)(from + 2 * index));
    if (format == CIRCIUS_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

ALWAYS v16 v16_load_as(int format, const char *from, int64_t index) {
    return (v16){eight_as(format, from, index), eight_as(format, from, index + 8)};
}

/* Vector `index` of what turn_eight wrote. */
ALWAYS v16 v16_load_turned(int format, const char *from, int index) {
    if (format != CIRCIUS_I8)
        return v16_load_as(format, from, 16 * index);
    const __m128i *codes = (const __m128i *)from + 2 * index;
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(codes))),
                 _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(codes + 1)))};
}

#include "attention_x86.h"

#include "attention_body.h"

const struct circius_attention_kernels circius_attention_avx2 = {attend, round_row};
