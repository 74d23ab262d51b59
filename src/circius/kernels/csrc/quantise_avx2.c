#include <immintrin.h>
#include <math.h>

#include "matmul.h"

/* One unit. `starts` gets two 16-bit numbers, since the products of codes are added up in pairs of neighbouring inputs:
 * -8 times the sum of the inputs 0 and 1 of every four, and of the inputs 2 and 3. */
void circius_quantise_avx2(const float *x, const struct circius_activations *to, int64_t at) {
    int8_t *codes = to->codes + at * CIRCIUS_UNIT;
    const __m256i no_sign = _mm256_set1_epi32(0x7fffffff);
    __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8);
    __m256 x2 = _mm256_loadu_ps(x + 16), x3 = _mm256_loadu_ps(x + 24);
    /* As whole numbers, where what is not finite is above all numbers. */
    __m256i most = _mm256_max_epi32(_mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(x0), no_sign),
                                                     _mm256_and_si256(_mm256_castps_si256(x1), no_sign)),
                                    _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(x2), no_sign),
                                                     _mm256_and_si256(_mm256_castps_si256(x3), no_sign)));
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    uint32_t greatest = (uint32_t)_mm_cvtsi128_si32(half);
    float amax = circius_from_bits(greatest);
    float inverse = 127.0f / amax;
    float scale = greatest < 0x7f800000u ? amax / 127.0f : NAN;
    if (greatest >= 0x7f800000u || circius_to_bits(inverse) >= 0x7f800000u)
        x0 = x1 = x2 = x3 = _mm256_setzero_ps(), inverse = 0.0f;

    __m256 factor = _mm256_set1_ps(inverse);
    __m256i a01 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x0, factor)),
                                     _mm256_cvtps_epi32(_mm256_mul_ps(x1, factor)));
    __m256i a23 = _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x2, factor)),
                                     _mm256_cvtps_epi32(_mm256_mul_ps(x3, factor)));
    /* Packing works inside 128-bit halves, so fours are put in order afterwards. */
    __m256i a = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a01, a23), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)codes, a);
    if (to->wide) { /* bytes 0 1 2 3 as 16-bit numbers 0 2 1 3: the even ones, then the odd ones */
        int16_t *wide = to->wide + at * CIRCIUS_UNIT;
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8), odd = _mm256_srai_epi16(a, 8);
        __m256i low = _mm256_unpacklo_epi32(even, odd), high = _mm256_unpackhi_epi32(even, odd);
        _mm256_storeu_si256((__m256i *)wide, _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256((__m256i *)(wide + 16), _mm256_permute2x128_si256(low, high, 0x31));
    }
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), a);
    __m128i sums = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0x4e));
    sums = _mm_add_epi16(sums, _mm_shuffle_epi32(sums, 0xb1));
    int32_t sum = _mm_cvtsi128_si32(_mm_madd_epi16(sums, _mm_set1_epi16(1)));
    to->scales[at] = scale;
    to->shifts[at] = scale * (float)sum;
    to->starts[at] = _mm_cvtsi128_si32(_mm_mullo_epi16(sums, _mm_set1_epi16(-8)));
}
