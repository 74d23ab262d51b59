/* Four outputs of a unit at a time: their codes are transposed, so that those of one output lie together. */
#include <immintrin.h>

#include "unpack.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256 widen_number(const struct circius_matrix *matrix, uint16_t number) {
    return _mm256_set1_ps(matrix->scale_type == CIRCIUS_FLOAT16 ? circius_widen_fp16(number)
                                                                : circius_widen_bf16(number));
}

/* Rows of four 32-bit numbers to columns. */
INLINE void transpose(__m128i *x) {
    __m128i low01 = _mm_unpacklo_epi32(x[0], x[1]), low23 = _mm_unpacklo_epi32(x[2], x[3]);
    __m128i high01 = _mm_unpackhi_epi32(x[0], x[1]), high23 = _mm_unpackhi_epi32(x[2], x[3]);
    x[0] = _mm_unpacklo_epi64(low01, low23);
    x[1] = _mm_unpackhi_epi64(low01, low23);
    x[2] = _mm_unpacklo_epi64(high01, high23);
    x[3] = _mm_unpackhi_epi64(high01, high23);
}

/* The nearest of 16 bits, ties to even; there is nothing here that is not a number. */
INLINE __m128i narrow_bf16(__m256 x) {
    __m256i bits = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}

/* Sixteen codes of one output, as bytes without sign but for 8 bits, to numbers. */
INLINE void write_sixteen(__m128i codes, __m256 scale, __m256 min, int bits, int has_mins, int type, void *out,
                          int64_t at) {
    for (int half = 0; half < 2; half++, at += 8, codes = _mm_srli_si128(codes, 8)) {
        __m256i whole = bits == 8 ? _mm256_cvtepi8_epi32(codes) : _mm256_cvtepu8_epi32(codes);
        if (bits == 4 && !has_mins)
            whole = _mm256_sub_epi32(whole, _mm256_set1_epi32(8));
        __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), scale);
        if (has_mins)
            values = _mm256_add_ps(values, min);
        if (type == CIRCIUS_FLOAT32)
            _mm256_storeu_ps((float *)out + at, values);
        else
            _mm_storeu_si128((__m128i *)((uint16_t *)out + at), narrow_bf16(values));
    }
}

/* Outputs `first` to `first` + 3 of a unit, whose scales are at `group` + 0 to 15; output `first` + r goes to
 * `at` + r * stride. */
INLINE void unpack_four(const struct circius_matrix *matrix, const uint8_t *codes, int first, int64_t group, int n_rows,
                        int bits, int has_mins, int type, void *out, int64_t at, int64_t stride) {
    const __m128i mask = _mm_set1_epi8(15);
    __m128i bytes[8];
    for (int s = 0; s < bits; s++)
        bytes[s] = _mm_loadu_si128((const __m128i *)(codes + s * CIRCIUS_STEP_BYTES + 4 * first));
    transpose(bytes);
    if (bits == 8)
        transpose(bytes + 4);
    for (int r = 0; r < 4; r++) {
        if (first + r >= n_rows)
            return;
        __m128i low = bytes[r], high;
        if (bits == 8) {
            high = bytes[4 + r];
        } else { /* the halves of every four bytes are eight inputs */
            __m128i firsts = _mm_and_si128(bytes[r], mask), seconds = _mm_and_si128(_mm_srli_epi16(bytes[r], 4), mask);
            low = _mm_unpacklo_epi32(firsts, seconds);
            high = _mm_unpackhi_epi32(firsts, seconds);
        }
        __m256 scale = widen_number(matrix, matrix->scales[group + first + r]), min = scale;
        if (has_mins)
            min = widen_number(matrix, matrix->mins[group + first + r]);
        write_sixteen(low, scale, min, bits, has_mins, type, out, at + r * stride);
        write_sixteen(high, scale, min, bits, has_mins, type, out, at + r * stride + 16);
    }
}

INLINE void unpack_tile(const struct circius_matrix *matrix, int64_t tile, int n_rows, int bits, int has_mins, int type,
                        void *out, int64_t at, int64_t stride) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, n_groups = matrix->n_inputs / matrix->group;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * bits / 8;
    /* Four outputs for all units, then the next four: each output is written from its beginning to its end. */
    for (int first = 0; first < n_rows; first += 4)
        for (int64_t u = 0; u < n_units; u++) {
            int64_t group = (tile * n_groups + u * CIRCIUS_UNIT / matrix->group) * CIRCIUS_TILE;
            unpack_four(matrix, matrix->codes + (tile * n_units + u) * unit_bytes, first, group, n_rows, bits, has_mins,
                        type, out, at + first * stride + u * CIRCIUS_UNIT, stride);
        }
}

void circius_unpack_tile_avx2(const struct circius_matrix *matrix, int64_t tile, int n_rows, int type, void *out,
                              int64_t at, int64_t stride) {
    if (matrix->bits == 8)
        unpack_tile(matrix, tile, n_rows, 8, 0, type, out, at, stride);
    else if (matrix->mins)
        unpack_tile(matrix, tile, n_rows, 4, 1, type, out, at, stride);
    else
        unpack_tile(matrix, tile, n_rows, 4, 0, type, out, at, stride);
}
