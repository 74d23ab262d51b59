/* See lanes.h. One register; needs FMA and F16C too. */
#include <immintrin.h>

typedef __m256 lanes;

CIRCIUS_INLINE lanes lanes_all(float value) {
    return _mm256_set1_ps(value);
}

CIRCIUS_INLINE lanes lanes_load(const float *from) {
    return _mm256_loadu_ps(from);
}

CIRCIUS_INLINE void lanes_store(float *to, lanes x) {
    _mm256_storeu_ps(to, x);
}

CIRCIUS_INLINE lanes lanes_from_bf16(const uint16_t *from) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

/* Those at even or at odd places of sixteen, which moves nothing between lanes. */
CIRCIUS_INLINE lanes lanes_even_bf16(const uint16_t *from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)from), 16));
}

CIRCIUS_INLINE lanes lanes_odd_bf16(const uint16_t *from) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256((const __m256i *)from), upper));
}

/* Sixteen numbers as those at even and those at odd places. */
CIRCIUS_INLINE void lanes_part(lanes *first, lanes *second) {
    __m256 even = _mm256_shuffle_ps(*first, *second, 0x88), odd = _mm256_shuffle_ps(*first, *second, 0xdd);
    *first = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(even), 0xd8));
    *second = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(odd), 0xd8));
}

CIRCIUS_INLINE lanes lanes_from_fp16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}

CIRCIUS_INLINE lanes lanes_add(lanes a, lanes b) {
    return _mm256_add_ps(a, b);
}

CIRCIUS_INLINE lanes lanes_multiply(lanes a, lanes b) {
    return _mm256_mul_ps(a, b);
}

CIRCIUS_INLINE lanes lanes_subtract(lanes a, lanes b) {
    return _mm256_sub_ps(a, b);
}

CIRCIUS_INLINE lanes lanes_divide(lanes a, lanes b) {
    return _mm256_div_ps(a, b);
}

CIRCIUS_INLINE lanes lanes_absolute(lanes a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

/* The larger of each pair; the second if one is not a number. */
CIRCIUS_INLINE lanes lanes_larger(lanes a, lanes b) {
    return _mm256_max_ps(a, b);
}

/* `value`, or zero where x < limit. */
CIRCIUS_INLINE lanes lanes_zero_where_less(lanes x, lanes limit, lanes value) {
    return _mm256_andnot_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ), value);
}

/* `a` where x >= 0, else `b`. */
CIRCIUS_INLINE lanes lanes_by_sign(lanes x, lanes a, lanes b) {
    return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GE_OQ));
}

/* 2^n, of n + 0x1.8p23 for whole n from -126 to 127. */
CIRCIUS_INLINE lanes lanes_power_of_two(lanes shifted) {
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}

/* a * b + c, rounded once. */
CIRCIUS_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return _mm256_fmadd_ps(a, b, c);
}

/* The sum of each of four, ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)), added to what is in `sums`. */
CIRCIUS_INLINE void lanes_add_sums(lanes a, lanes b, lanes c, lanes d, float *sums) {
    __m256 fours = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    __m128 eights = _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps(fours, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm_loadu_ps(sums), eights));
}
