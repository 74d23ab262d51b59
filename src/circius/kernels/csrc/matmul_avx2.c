/* Blocks of four rows by one tile. Codes of 4 bits are multiplied as unsigned bytes by signed ones: a sum over a whole
 * unit stays below 2^15, so it is widened once a unit. Products of 8 bits would not fit, so both sides are widened to
 * 16 bits first. For a few rows codes are taken from the matrix as they are; for many, a stretch of them is unpacked
 * first. */
#include <immintrin.h>
#include <stddef.h>

#include "matmul.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = CIRCIUS_ROWS_AVX2,
    BLOCK_UNITS = 32,     /* units whose codes are used for all rows while they are near */
    ROWS_TO_UNPACK = 8,   /* from so many rows on, codes are unpacked first */
    AHEAD = 2048          /* bytes of codes to fetch ahead */
};

/* What a kernel reads of a stretch of one tile: either as it lies in the matrix or unpacked. */
struct stretch {
    const uint8_t *codes; /* behind them lie those of the next stretch, which are fetched meanwhile */
    int64_t n_bytes;
    const uint16_t *scales; /* of the tile's first group */
    const uint16_t *mins;
    int scale_type;
    int64_t group_units;
    int64_t unit; /* the first */
    int n_units;
    const __m256i *unpacked; /* NULL, or four registers for each step of eight inputs (4 bits) or four (8 bits) */
    const float *wide_scales, *wide_mins; /* with that, sixteen for each unit */
};

/* The rows of a block (see circius_activations) from the first unit of the stretch on, and where their results go. */
struct rows {
    const int8_t *codes;
    const int16_t *wide;
    const float *scales, *shifts;
    const int32_t *starts;
    float *y;
};

INLINE __m256i all_of(const void *four_bytes) {
    int32_t value;
    __builtin_memcpy(&value, four_bytes, sizeof value);
    return _mm256_set1_epi32(value);
}

INLINE __m256 widen(const uint16_t *halves, int type) {
    __m128i eight = _mm_loadu_si128((const __m128i *)halves);
    if (type == CIRCIUS_FLOAT16)
        return _mm256_cvtph_ps(eight);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
}

/* The four registers of a step. 4 bits: inputs 0..3 of outputs 0..7 and of outputs 8..15, then inputs 4..7 of each.
 * 8 bits, widened to 16: inputs 0 and 2 of outputs 0..7 and of outputs 8..15, then inputs 1 and 3 of each. */
INLINE void unpack_step(const uint8_t *codes, int bits, __m256i *to) {
    __m256i low = _mm256_loadu_si256((const __m256i *)codes), high = _mm256_loadu_si256((const __m256i *)(codes + 32));
    if (bits == 4) {
        const __m256i mask = _mm256_set1_epi8(15);
        to[0] = _mm256_and_si256(low, mask);
        to[1] = _mm256_and_si256(high, mask);
        to[2] = _mm256_and_si256(_mm256_srli_epi16(low, 4), mask);
        to[3] = _mm256_and_si256(_mm256_srli_epi16(high, 4), mask);
    } else {
        to[0] = _mm256_srai_epi16(_mm256_slli_epi16(low, 8), 8);
        to[1] = _mm256_srai_epi16(_mm256_slli_epi16(high, 8), 8);
        to[2] = _mm256_srai_epi16(low, 8);
        to[3] = _mm256_srai_epi16(high, 8);
    }
}

INLINE void add_products(__m256i *sum, __m256i weights, __m256i a, int bits) {
    if (bits == 4)
        *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(weights, a));
    else
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, a));
    /* Left to itself gcc adds the products up in another order, and runs out of registers. */
    __asm__("" : "+x"(*sum));
}

/* A unit's sums times its scales, added to y. */
INLINE void finish_unit(const struct stretch *w, const struct rows *x, int u, int64_t group, int n_rows, int bits,
                        int has_mins, int unpacked, __m256i sums[ROWS][2], __m256 y[ROWS][2]) {
    for (int h = 0; h < 2; h++) {
        const int64_t at = CIRCIUS_TILE * u + 8 * h;
        __m256 scales = unpacked ? _mm256_load_ps(w->wide_scales + at)
                                 : widen(w->scales + group * CIRCIUS_TILE + 8 * h, w->scale_type);
        __m256 mins = scales;
        if (has_mins)
            mins = unpacked ? _mm256_load_ps(w->wide_mins + at)
                            : widen(w->mins + group * CIRCIUS_TILE + 8 * h, w->scale_type);
        for (int r = 0; r < n_rows; r++) {
            __m256i whole = bits == 4 ? _mm256_madd_epi16(sums[r][h], _mm256_set1_epi16(1)) : sums[r][h];
            __m256 scale = _mm256_mul_ps(scales, _mm256_set1_ps(x->scales[u * n_rows + r]));
            y[r][h] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(whole), y[r][h]);
            if (has_mins)
                y[r][h] = _mm256_fmadd_ps(mins, _mm256_set1_ps(x->shifts[u * n_rows + r]), y[r][h]);
        }
    }
}

/* One stretch of one tile for `n_rows` rows. All arguments but the first two are constants where this is called. */
INLINE void multiply(const struct stretch *stretch, const struct rows *rows, int n_rows, int bits, int has_mins,
                     int unpacked) {
    const struct stretch w = *stretch;
    const struct rows x = *rows;
    const int n_steps = CIRCIUS_UNIT * bits / 32, step_inputs = 32 / bits;
    int64_t group = w.unit / w.group_units, left = w.group_units - w.unit % w.group_units;
    __m256 y[ROWS][2];
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < 2; h++)
            y[r][h] = _mm256_load_ps(x.y + r * CIRCIUS_Y_STRIDE + 8 * h);
    for (int u = 0; u < w.n_units; u++) {
        __m256i sums[ROWS][2];
        for (int r = 0; r < n_rows; r++)
            sums[r][0] = sums[r][1] =
                bits == 4 && !has_mins ? _mm256_set1_epi32(x.starts[u * n_rows + r]) : _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int s = 0; s < n_steps; s++) {
            const int64_t step = (int64_t)u * n_steps + s;
            __m256i weights[4];
            if (unpacked) {
                _mm_prefetch((const char *)(w.codes + w.n_bytes + step * CIRCIUS_STEP_BYTES), _MM_HINT_T0);
                for (int i = 0; i < 4; i++)
                    weights[i] = _mm256_load_si256(w.unpacked + 4 * step + i);
            } else {
                const uint8_t *codes = w.codes + step * CIRCIUS_STEP_BYTES;
                _mm_prefetch((const char *)(codes + AHEAD), _MM_HINT_T0);
                unpack_step(codes, bits, weights);
            }
            for (int r = 0; r < n_rows; r++) {
                const int64_t at = (int64_t)(u * n_rows + r) * CIRCIUS_UNIT + s * step_inputs;
                const void *a = bits == 4 ? (const void *)(x.codes + at) : (const void *)(x.wide + at);
                const __m256i first = all_of(a), second = all_of((const char *)a + 4);
                add_products(&sums[r][0], weights[0], first, bits);
                add_products(&sums[r][1], weights[1], first, bits);
                add_products(&sums[r][0], weights[2], second, bits);
                add_products(&sums[r][1], weights[3], second, bits);
            }
        }
        finish_unit(&w, &x, u, group, n_rows, bits, has_mins, unpacked, sums, y);
        if (--left == 0) {
            group++;
            left = w.group_units;
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < 2; h++)
            _mm256_store_ps(x.y + r * CIRCIUS_Y_STRIDE + 8 * h, y[r][h]);
}

#define FOR_EACH_COUNT(...)                                                                                            \
    switch (n_rows) {                                                                                                  \
    case 1: multiply(w, x, 1, __VA_ARGS__); break;                                                                     \
    case 2: multiply(w, x, 2, __VA_ARGS__); break;                                                                     \
    default: multiply(w, x, 4, __VA_ARGS__);                                                                           \
    }

typedef void (*multiply_function)(const struct stretch *w, const struct rows *x, int n_rows);

#define MULTIPLY(name, bits, has_mins)                                                                                 \
    static void name##_direct(const struct stretch *w, const struct rows *x, int n_rows) {                             \
        FOR_EACH_COUNT(bits, has_mins, 0)                                                                              \
    }                                                                                                                  \
    static void name##_unpacked(const struct stretch *w, const struct rows *x, int n_rows) {                           \
        FOR_EACH_COUNT(bits, has_mins, 1)                                                                              \
    }

MULTIPLY(symmetric4, 4, 0)
MULTIPLY(minima4, 4, 1)
MULTIPLY(symmetric8, 8, 0)

struct buffer {
    _Alignas(64) __m256i codes[BLOCK_UNITS * 32]; /* 8 bits need eight steps of four registers for a unit */
    float scales[BLOCK_UNITS * CIRCIUS_TILE];
    float mins[BLOCK_UNITS * CIRCIUS_TILE];
};

static void unpack_stretch(struct stretch *w, int bits, struct buffer *to) {
    const int n_steps = w->n_units * CIRCIUS_UNIT * bits / 32;
    for (int step = 0; step < n_steps; step++) {
        const uint8_t *codes = w->codes + (int64_t)step * CIRCIUS_STEP_BYTES;
        if (bits == 4)
            unpack_step(codes, 4, to->codes + 4 * step);
        else
            unpack_step(codes, 8, to->codes + 4 * step);
    }
    for (int u = 0; u < w->n_units; u++) {
        int64_t group = (w->unit + u) / w->group_units * CIRCIUS_TILE;
        for (int h = 0; h < 2; h++) {
            _mm256_store_ps(to->scales + CIRCIUS_TILE * u + 8 * h, widen(w->scales + group + 8 * h, w->scale_type));
            if (w->mins)
                _mm256_store_ps(to->mins + CIRCIUS_TILE * u + 8 * h, widen(w->mins + group + 8 * h, w->scale_type));
        }
    }
    w->unpacked = to->codes;
    w->wide_scales = to->scales;
    w->wide_mins = to->mins;
}

static struct rows rows_at(const struct circius_activations *rows, int64_t row, int n_rows, int64_t unit, float *y) {
    int64_t at = row * (rows->n_inputs / CIRCIUS_UNIT) + unit * n_rows;
    return (struct rows){
        .codes = rows->codes + at * CIRCIUS_UNIT,
        .wide = rows->wide ? rows->wide + at * CIRCIUS_UNIT : NULL,
        .scales = rows->scales + at,
        .shifts = rows->shifts + at,
        .starts = rows->starts + at,
        .y = y,
    };
}

static void one_tile(const struct circius_matrix *matrix, int64_t tile, const struct circius_activations *rows,
                     int64_t row, int n_rows, float *y) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, n_groups = matrix->n_inputs / matrix->group;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * matrix->bits / 8;
    int unpacks = n_rows >= ROWS_TO_UNPACK;
    multiply_function function = matrix->bits == 8 ? (unpacks ? symmetric8_unpacked : symmetric8_direct)
                                 : matrix->mins    ? (unpacks ? minima4_unpacked : minima4_direct)
                                                   : (unpacks ? symmetric4_unpacked : symmetric4_direct);
    struct buffer buffer;
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < 2; h++)
            _mm256_store_ps(y + r * CIRCIUS_Y_STRIDE + 8 * h, _mm256_setzero_ps());
    for (int64_t unit = 0; unit < n_units; unit += BLOCK_UNITS) {
        struct stretch stretch = {
            .codes = matrix->codes + (tile * n_units + unit) * unit_bytes,
            .scales = matrix->scales + tile * n_groups * CIRCIUS_TILE,
            .mins = matrix->mins ? matrix->mins + tile * n_groups * CIRCIUS_TILE : NULL,
            .scale_type = matrix->scale_type,
            .group_units = matrix->group / CIRCIUS_UNIT,
            .unit = unit,
            .n_units = (int)(n_units - unit < BLOCK_UNITS ? n_units - unit : BLOCK_UNITS),
        };
        stretch.n_bytes = stretch.n_units * unit_bytes;
        if (unpacks)
            unpack_stretch(&stretch, matrix->bits, &buffer);
        for (int r = 0, count; r < n_rows; r += count) {
            count = circius_rows_at_once(n_rows - r, ROWS);
            struct rows here = rows_at(rows, row + r, count, unit, y + r * CIRCIUS_Y_STRIDE);
            function(&stretch, &here, count);
        }
    }
}

void circius_tiles_avx2(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                        const struct circius_activations *rows, int64_t row, int n_rows, float *y) {
    for (int t = 0; t < n_tiles; t++)
        one_tile(matrix, tile + t, rows, row, n_rows, y + t * CIRCIUS_TILE);
}
