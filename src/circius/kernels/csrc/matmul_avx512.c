/* Blocks of up to eight rows by two tiles. VNNI multiplies unsigned codes by signed activations and adds four products
 * at a time to 32 bits. Codes of 8 bits are made unsigned by adding 128; what that adds is taken off where the sums
 * start, as is the 8 of symmetric 4 bits. For a few rows codes are taken from the matrix as they are; for many, those
 * of 4 bits are unpacked first, a stretch at a time. */
#include <immintrin.h>

#include "matmul.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = CIRCIUS_ROWS_AVX512,
    TILES = CIRCIUS_MOST_TILES,
    BLOCK_UNITS = 16,    /* units whose codes are used for all rows while they are near */
    ROWS_TO_UNPACK = 17, /* from so many rows on, codes of 4 bits are unpacked first */
    AHEAD = 2048         /* bytes of codes to fetch ahead */
};

/* A stretch of neighbouring tiles, as it lies in the matrix or unpacked. */
struct stretch {
    const uint8_t *codes[TILES];
    const uint16_t *scales[TILES]; /* of the tile's first group */
    const uint16_t *mins[TILES];
    int scale_type;
    int64_t group_units;
    int64_t unit; /* the first */
    int n_units;
    const __m512i *unpacked[TILES]; /* two registers for each step of eight inputs */
};

/* The rows of a block (see circius_activations) from the first unit of the stretch on, and where their results go. */
struct rows {
    const int8_t *codes;
    const float *scales, *shifts;
    const int32_t *starts;
    float *y;
};

INLINE __m512i all_of(const int8_t *four_bytes) {
    int32_t value;
    __builtin_memcpy(&value, four_bytes, sizeof value);
    return _mm512_set1_epi32(value);
}

INLINE __m512 widen(const uint16_t *halves, int type) {
    __m256i sixteen = _mm256_loadu_si256((const __m256i *)halves);
    if (type == CIRCIUS_FLOAT16)
        return _mm512_cvtph_ps(sixteen);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
}

/* Inputs 0..3 of a step of 4 bits, and 4..7. */
INLINE void unpack_step(const uint8_t *codes, __m512i *to) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i both = _mm512_loadu_si512(codes);
    to[0] = _mm512_and_si512(both, mask);
    to[1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
}

/* The two registers of eight inputs, as unsigned bytes. */
INLINE void load_weights(const struct stretch *w, int t, int64_t step, int bits, int unpacked, __m512i *to) {
    if (unpacked) {
        to[0] = _mm512_load_si512(w->unpacked[t] + 2 * step);
        to[1] = _mm512_load_si512(w->unpacked[t] + 2 * step + 1);
        return;
    }
    const uint8_t *codes = w->codes[t] + step * CIRCIUS_STEP_BYTES * bits / 4;
    _mm_prefetch((const char *)(codes + AHEAD), _MM_HINT_T0);
    if (bits == 4) {
        unpack_step(codes, to);
    } else {
        const __m512i top = _mm512_set1_epi8((char)0x80); /* flipping it adds 128 */
        _mm_prefetch((const char *)(codes + AHEAD + CIRCIUS_STEP_BYTES), _MM_HINT_T0);
        to[0] = _mm512_xor_si512(_mm512_loadu_si512(codes), top);
        to[1] = _mm512_xor_si512(_mm512_loadu_si512(codes + CIRCIUS_STEP_BYTES), top);
    }
}

/* A unit's sums times its scales, added to what is in y. */
INLINE void finish_unit(const struct stretch *w, const struct rows *x, int u, int64_t group, int n_rows, int n_tiles,
                        int has_mins, __m512i sums[ROWS][TILES]) {
    for (int t = 0; t < n_tiles; t++) {
        const __m512 scales = widen(w->scales[t] + group * CIRCIUS_TILE, w->scale_type);
        const __m512 mins =
            has_mins ? widen(w->mins[t] + group * CIRCIUS_TILE, w->scale_type) : _mm512_setzero_ps();
        for (int r = 0; r < n_rows; r++) {
            float *at = x->y + r * CIRCIUS_Y_STRIDE + t * CIRCIUS_TILE;
            __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(x->scales[u * n_rows + r]));
            __m512 y = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sums[r][t]), _mm512_load_ps(at));
            if (has_mins)
                y = _mm512_fmadd_ps(mins, _mm512_set1_ps(x->shifts[u * n_rows + r]), y);
            _mm512_store_ps(at, y);
        }
    }
}

/* One stretch for `n_rows` rows. All arguments but the first two are constants where this is called. */
INLINE void multiply(const struct stretch *stretch, const struct rows *rows, int n_rows, int n_tiles, int bits,
                     int has_mins, int unpacked) {
    const struct stretch w = *stretch;
    const struct rows x = *rows;
    const int n_steps = CIRCIUS_UNIT / 8;
    int64_t group = w.unit / w.group_units, left = w.group_units - w.unit % w.group_units;
    for (int u = 0; u < w.n_units; u++) {
        __m512i sums[ROWS][TILES];
        for (int r = 0; r < n_rows; r++) {
            /* -8 times the sum of the activations, or -128 times. */
            __m512i start = _mm512_setzero_si512();
            if (!has_mins)
                start = _mm512_set1_epi32(x.starts[u * n_rows + r] * (bits == 4 ? 1 : 16));
            for (int t = 0; t < n_tiles; t++)
                sums[r][t] = start;
        }
        for (int s = 0; s < n_steps; s++) {
            __m512i weights[TILES][2];
            for (int t = 0; t < n_tiles; t++)
                load_weights(&w, t, (int64_t)u * n_steps + s, bits, unpacked, weights[t]);
            for (int r = 0; r < n_rows; r++) {
                const int8_t *a = x.codes + (int64_t)(u * n_rows + r) * CIRCIUS_UNIT + 8 * s;
                const __m512i first = all_of(a), second = all_of(a + 4);
                for (int t = 0; t < n_tiles; t++) {
                    sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], weights[t][0], first);
                    sums[r][t] = _mm512_dpbusd_epi32(sums[r][t], weights[t][1], second);
                }
            }
        }
        finish_unit(&w, &x, u, group, n_rows, n_tiles, has_mins, sums);
        if (--left == 0) {
            group++;
            left = w.group_units;
        }
    }
}

#define FOR_EACH_COUNT(n_tiles, ...)                                                                                   \
    switch (n_rows) {                                                                                                  \
    case 1: multiply(w, x, 1, n_tiles, __VA_ARGS__); break;                                                            \
    case 2: multiply(w, x, 2, n_tiles, __VA_ARGS__); break;                                                            \
    case 4: multiply(w, x, 4, n_tiles, __VA_ARGS__); break;                                                            \
    default: multiply(w, x, 8, n_tiles, __VA_ARGS__);                                                                  \
    }

/* `n_rows` is 1, 2, 4 or 8. */
typedef void (*multiply_function)(const struct stretch *w, const struct rows *x, int n_rows, int n_tiles);

#define MULTIPLY(name, bits, has_mins, unpacked)                                                                       \
    static void name(const struct stretch *w, const struct rows *x, int n_rows, int n_tiles) {                         \
        if (n_tiles == 1)                                                                                              \
            FOR_EACH_COUNT(1, bits, has_mins, unpacked)                                                                \
        else                                                                                                           \
            FOR_EACH_COUNT(2, bits, has_mins, unpacked)                                                                \
    }

MULTIPLY(symmetric4_direct, 4, 0, 0)
MULTIPLY(symmetric4_unpacked, 4, 0, 1)
MULTIPLY(minima4_direct, 4, 1, 0)
MULTIPLY(minima4_unpacked, 4, 1, 1)
MULTIPLY(symmetric8_direct, 8, 0, 0)

enum { BLOCK_REGISTERS = BLOCK_UNITS * 2 * CIRCIUS_UNIT / 8 };

static void unpack_stretch(struct stretch *w, int n_tiles, __m512i to[TILES][BLOCK_REGISTERS]) {
    for (int t = 0; t < n_tiles; t++) {
        for (int step = 0; step < w->n_units * CIRCIUS_UNIT / 8; step++) {
            const uint8_t *codes = w->codes[t] + (int64_t)step * CIRCIUS_STEP_BYTES;
            _mm_prefetch((const char *)(codes + AHEAD), _MM_HINT_T0);
            unpack_step(codes, to[t] + 2 * step);
        }
        w->unpacked[t] = to[t];
    }
}

static struct rows rows_at(const struct circius_activations *rows, int64_t row, int n_rows, int64_t unit, float *y) {
    int64_t at = row * (rows->n_inputs / CIRCIUS_UNIT) + unit * n_rows;
    return (struct rows){
        .codes = rows->codes + at * CIRCIUS_UNIT,
        .scales = rows->scales + at,
        .shifts = rows->shifts + at,
        .starts = rows->starts + at,
        .y = y,
    };
}

static void point_at_tiles(struct stretch *to, const struct circius_matrix *matrix, int64_t tile, int n_tiles) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, n_groups = matrix->n_inputs / matrix->group;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * matrix->bits / 8;
    for (int t = 0; t < n_tiles; t++) {
        int64_t group = (tile + t) * n_groups * CIRCIUS_TILE;
        to->codes[t] = matrix->codes + ((tile + t) * n_units + to->unit) * unit_bytes;
        to->scales[t] = matrix->scales + group;
        to->mins[t] = matrix->mins ? matrix->mins + group : NULL;
    }
}

void circius_tiles_avx512(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                          const struct circius_activations *rows, int64_t row, int n_rows, float *y) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT;
    int unpacks = n_rows >= ROWS_TO_UNPACK && matrix->bits == 4;
    multiply_function function = matrix->bits == 8 ? symmetric8_direct
                                 : matrix->mins    ? (unpacks ? minima4_unpacked : minima4_direct)
                                                   : (unpacks ? symmetric4_unpacked : symmetric4_direct);
    _Alignas(64) __m512i buffer[TILES][BLOCK_REGISTERS];
    for (int r = 0; r < n_rows; r++)
        for (int t = 0; t < n_tiles; t++)
            _mm512_store_ps(y + r * CIRCIUS_Y_STRIDE + t * CIRCIUS_TILE, _mm512_setzero_ps());
    for (int64_t unit = 0; unit < n_units; unit += BLOCK_UNITS) {
        struct stretch stretch = {
            .scale_type = matrix->scale_type,
            .group_units = matrix->group / CIRCIUS_UNIT,
            .unit = unit,
            .n_units = (int)(n_units - unit < BLOCK_UNITS ? n_units - unit : BLOCK_UNITS),
        };
        point_at_tiles(&stretch, matrix, tile, n_tiles);
        if (unpacks)
            unpack_stretch(&stretch, n_tiles, buffer);
        for (int r = 0, count; r < n_rows; r += count) {
            count = circius_rows_at_once(n_rows - r, ROWS);
            struct rows here = rows_at(rows, row + r, count, unit, y + r * CIRCIUS_Y_STRIDE);
            function(&stretch, &here, count, n_tiles);
        }
    }
}
