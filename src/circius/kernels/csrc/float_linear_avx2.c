/* Codes become numbers where they stand in their 32 bits, which spares the shifts: one "and", one conversion and one
 * multiply-add for eight outputs and one input. Memory takes about as long at one row. */
#include <immintrin.h>

#include "float_linear.h"

#define INLINE static inline __attribute__((always_inline))

enum { AHEAD = 2048 /* bytes of codes to fetch ahead */ };

INLINE __m256 widen(const uint16_t *halves, int type) {
    __m128i eight = _mm_loadu_si128((const __m128i *)halves);
    if (type == CIRCIUS_FLOAT16)
        return _mm256_cvtph_ps(eight);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
}

/* The codes of one unit times the inputs of each row, into sums[row][half of the tile][of the even or the odd steps].
 * The last are apart so that an addition does not wait for the one before. */
INLINE void add_unit(const uint8_t *codes, const float *inputs, int n_rows, int bits,
                     __m256 sums[CIRCIUS_FLOAT_ROWS][2][2]) {
    const int per_word = 32 / bits, n_steps = CIRCIUS_UNIT / per_word;
    for (int s = 0; s < n_steps; s++) {
        __m256i words[2];
        for (int h = 0; h < 2; h++) {
            words[h] = _mm256_loadu_si256((const __m256i *)(codes + s * CIRCIUS_STEP_BYTES + 32 * h));
            if (bits == 8) /* without sign, 128 too large */
                words[h] = _mm256_xor_si256(words[h], _mm256_set1_epi32((int)0x80808080u));
        }
        for (int k = 0; k < per_word; k++) {
            const __m256i mask = _mm256_set1_epi32((int)(((1u << bits) - 1) << (k * bits)));
            __m256 numbers[2];
            for (int h = 0; h < 2; h++)
                numbers[h] = _mm256_cvtepi32_ps(k == per_word - 1 ? _mm256_srli_epi32(words[h], 32 - bits)
                                                                  : _mm256_and_si256(words[h], mask));
            for (int r = 0; r < n_rows; r++) {
                const __m256 input = _mm256_broadcast_ss(inputs + r * CIRCIUS_UNIT + s * per_word + k);
                for (int h = 0; h < 2; h++)
                    sums[r][h][s % 2] = _mm256_fmadd_ps(numbers[h], input, sums[r][h][s % 2]);
            }
        }
    }
}

INLINE void multiply(const struct circius_matrix *matrix, int64_t tile, const struct circius_float_rows *rows,
                     int64_t at, int n_rows, int bits, int has_mins, float *out) {
    const int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, group_units = matrix->group / CIRCIUS_UNIT;
    const int unit_bytes = CIRCIUS_UNIT * CIRCIUS_TILE * bits / 8;
    const __m256 zero = _mm256_set1_ps(has_mins ? 0.0f : bits == 4 ? 8.0f : 128.0f);
    const uint8_t *codes = matrix->codes + tile * n_units * unit_bytes;
    int64_t group = tile * (n_units / group_units) * CIRCIUS_TILE, left = group_units;
    __m256 y[CIRCIUS_FLOAT_ROWS][2];
    for (int r = 0; r < n_rows; r++)
        y[r][0] = y[r][1] = _mm256_setzero_ps();
    for (int64_t u = 0; u < n_units; u++, codes += unit_bytes, at += n_rows) {
        for (int line = 0; line < unit_bytes; line += 64)
            _mm_prefetch((const char *)(codes + AHEAD + line), _MM_HINT_T0);
        __m256 sums[CIRCIUS_FLOAT_ROWS][2][2];
        for (int r = 0; r < n_rows; r++)
            for (int h = 0; h < 2; h++)
                sums[r][h][0] = sums[r][h][1] = _mm256_setzero_ps();
        add_unit(codes, rows->inputs + at * CIRCIUS_UNIT, n_rows, bits, sums);
        for (int h = 0; h < 2; h++) {
            const __m256 scales = widen(matrix->scales + group + 8 * h, matrix->scale_type);
            for (int r = 0; r < n_rows; r++) {
                const __m256 all = _mm256_set1_ps(rows->sums[at + r]);
                __m256 sum = _mm256_fnmadd_ps(zero, all, _mm256_add_ps(sums[r][h][0], sums[r][h][1]));
                y[r][h] = _mm256_fmadd_ps(scales, sum, y[r][h]);
                if (has_mins)
                    y[r][h] = _mm256_fmadd_ps(widen(matrix->mins + group + 8 * h, matrix->scale_type), all, y[r][h]);
            }
        }
        if (--left == 0) {
            group += CIRCIUS_TILE;
            left = group_units;
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < 2; h++)
            _mm256_storeu_ps(out + r * CIRCIUS_TILE + 8 * h, y[r][h]);
}

void circius_float_tile_avx2(const struct circius_matrix *matrix, int64_t tile, const struct circius_float_rows *rows,
                             int64_t at, int n_rows, float *y) {
    int kind = matrix->bits == 8 ? 2 : matrix->mins ? 1 : 0;
    switch (2 * kind + n_rows - 1) {
    case 0: multiply(matrix, tile, rows, at, 1, 4, 0, y); break;
    case 1: multiply(matrix, tile, rows, at, 2, 4, 0, y); break;
    case 2: multiply(matrix, tile, rows, at, 1, 4, 1, y); break;
    case 3: multiply(matrix, tile, rows, at, 2, 4, 1, y); break;
    case 4: multiply(matrix, tile, rows, at, 1, 8, 0, y); break;
    default: multiply(matrix, tile, rows, at, 2, 8, 0, y);
    }
}
