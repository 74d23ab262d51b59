/* Eight numbers each of sixteen keys turned round: shared by AVX2 and AVX-512. */
#include <immintrin.h>

#include "attention_numbers.h"

/* Eight 16-bit numbers of one key. */
ALWAYS __m128i load_eight(int format, const char *from) {
    if (format == CIRCIUS_I8)
        return _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)from));
    return _mm_loadu_si128((const __m128i *)from);
}

ALWAYS void turn_narrow(const int format, const char *from, int64_t stride, __m256i *to) {
    /* Every address is one of four and none, one, two or three strides: few registers hold them all. */
    const char *fours[4] = {from, from + 4 * stride, from + 8 * stride, from + 12 * stride};
    __m256i r[8], s[8];
    _Pragma("GCC unroll 8") for (int i = 0; i < 8; i++)
        r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_eight(format, fours[i / 4] + i % 4 * stride)),
                                       load_eight(format, fours[i / 4 + 2] + i % 4 * stride), 1);
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { /* pairs of keys */
        s[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        s[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    _Pragma("GCC unroll 2") for (int i = 0; i < 2; i++) { /* fours */
        r[4 * i] = _mm256_unpacklo_epi32(s[4 * i], s[4 * i + 2]);
        r[4 * i + 1] = _mm256_unpackhi_epi32(s[4 * i], s[4 * i + 2]);
        r[4 * i + 2] = _mm256_unpacklo_epi32(s[4 * i + 1], s[4 * i + 3]);
        r[4 * i + 3] = _mm256_unpackhi_epi32(s[4 * i + 1], s[4 * i + 3]);
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { /* eights */
        _mm256_storeu_si256(to + 2 * i, _mm256_unpacklo_epi64(r[i], r[i + 4]));
        _mm256_storeu_si256(to + 2 * i + 1, _mm256_unpackhi_epi64(r[i], r[i + 4]));
    }
}

ALWAYS void turn_wide(const char *from, int64_t stride, float *to) {
    _Pragma("GCC unroll 2") for (int half = 0; half < 16; half += 8) {
        __m256 r[8], s[8];
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) { /* keys 0..3 below, 4..7 above; numbers 0..3, then 4..7 */
            const float *low = (const float *)(from + (half + i) * stride);
            const float *high = (const float *)(from + (half + 4) * stride + i * stride);
            r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1);
            r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low + 4)), _mm_loadu_ps(high + 4), 1);
        }
        _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4) {
            s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
            s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
            s[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
            s[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        }
        _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4) {
            float *at = to + 16 * i + half;
            _mm256_storeu_ps(at, _mm256_shuffle_ps(s[i], s[i + 2], 0x44));
            _mm256_storeu_ps(at + 16, _mm256_shuffle_ps(s[i], s[i + 2], 0xee));
            _mm256_storeu_ps(at + 32, _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44));
            _mm256_storeu_ps(at + 48, _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee));
        }
    }
}

/* Eight numbers of sixteen keys at `stride` bytes from each other, as (8, 16) numbers that v16_load_turned reads: codes
 * take 16 bits, all others what they have. */
ALWAYS void turn_eight(const int format, const char *from, int64_t stride, char *to) {
    if (format == CIRCIUS_F32)
        turn_wide(from, stride, (float *)to);
    else
        turn_narrow(format, from, stride, (__m256i *)to);
}

ALWAYS void v16_store_as(int format, char *to, int64_t index, v16 x) {
    if (format == CIRCIUS_F32)
        v16_store((float *)to + index, x);
    else
        _mm256_storeu_si256((__m256i *)(to + 2 * index), format == CIRCIUS_F16 ? v16_to_f16(x) : v16_to_bf16(x));
}
