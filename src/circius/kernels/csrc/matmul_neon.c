/* Blocks of up to four rows by one tile, with the dot product of signed bytes: four outputs of four inputs at a time,
 * added to 32 bits. Codes are taken from the matrix as they are. */
#include <arm_neon.h>
#include <stddef.h>

#include "matmul.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = CIRCIUS_ROWS_NEON,
    QUARTERS = CIRCIUS_TILE / 4,
    BLOCK_UNITS = 32 /* units whose codes are used for all rows while they are near */
};

/* A stretch of one tile. */
struct stretch {
    const uint8_t *codes;
    const uint16_t *scales; /* of the tile's first group */
    const uint16_t *mins;
    int scale_type;
    int64_t group_units;
    int64_t unit; /* the first */
    int n_units;
};

/* The rows of a block (see circius_activations) from the first unit of the stretch on, and where their results go. */
struct rows {
    const int8_t *codes;
    const float *scales, *shifts;
    const int32_t *starts;
    float *y;
};

INLINE float32x4_t widen(const uint16_t *halves, int type) {
    uint16x4_t four = vld1_u16(halves);
    if (type == CIRCIUS_FLOAT16)
        return vcvt_f32_f16(vreinterpret_f16_u16(four));
    return vreinterpretq_f32_u32(vshll_n_u16(four, 16));
}

/* The lane of `a` to multiply by must be written as a number. */
#define ADD_FOUR(weights, lane)                                                                                        \
    for (int q = 0; q < QUARTERS; q++)                                                                                 \
        for (int r = 0; r < n_rows; r++)                                                                               \
            sums[r][q] = vdotq_laneq_s32(sums[r][q], weights[q], a[r], lane);

/* The sixteen inputs of two steps of 4 bits, or of four steps of 8 bits. */
INLINE void add_sixteen(const uint8_t *codes, const int8x16_t *a, int n_rows, int bits,
                        int32x4_t sums[ROWS][QUARTERS]) {
    if (bits == 4) {
        const uint8x16_t mask = vdupq_n_u8(15);
        int8x16_t low[2][QUARTERS], high[2][QUARTERS];
        for (int s = 0; s < 2; s++)
            for (int q = 0; q < QUARTERS; q++) {
                uint8x16_t both = vld1q_u8(codes + s * CIRCIUS_STEP_BYTES + 16 * q);
                low[s][q] = vreinterpretq_s8_u8(vandq_u8(both, mask));
                high[s][q] = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
            }
        ADD_FOUR(low[0], 0)
        ADD_FOUR(high[0], 1)
        ADD_FOUR(low[1], 2)
        ADD_FOUR(high[1], 3)
    } else {
        int8x16_t weights[4][QUARTERS];
        for (int s = 0; s < 4; s++)
            for (int q = 0; q < QUARTERS; q++)
                weights[s][q] = vreinterpretq_s8_u8(vld1q_u8(codes + s * CIRCIUS_STEP_BYTES + 16 * q));
        ADD_FOUR(weights[0], 0)
        ADD_FOUR(weights[1], 1)
        ADD_FOUR(weights[2], 2)
        ADD_FOUR(weights[3], 3)
    }
}

/* A unit's sums times its scales, added to what is in y. */
INLINE void finish_unit(const struct stretch *w, const struct rows *x, int u, int64_t group, int n_rows, int has_mins,
                        int32x4_t sums[ROWS][QUARTERS]) {
    for (int q = 0; q < QUARTERS; q++) {
        const int64_t at = group * CIRCIUS_TILE + 4 * q;
        const float32x4_t scales = widen(w->scales + at, w->scale_type);
        const float32x4_t mins = has_mins ? widen(w->mins + at, w->scale_type) : scales;
        for (int r = 0; r < n_rows; r++) {
            float *to = x->y + r * CIRCIUS_Y_STRIDE + 4 * q;
            float32x4_t scale = vmulq_n_f32(scales, x->scales[u * n_rows + r]);
            float32x4_t y = vfmaq_f32(vld1q_f32(to), scale, vcvtq_f32_s32(sums[r][q]));
            if (has_mins)
                y = vfmaq_f32(y, mins, vdupq_n_f32(x->shifts[u * n_rows + r]));
            vst1q_f32(to, y);
        }
    }
}

/* One stretch for `n_rows` rows. All arguments but the first two are constants where this is called. */
INLINE void multiply(const struct stretch *stretch, const struct rows *rows, int n_rows, int bits, int has_mins) {
    const struct stretch w = *stretch;
    const struct rows x = *rows;
    const int half_bytes = 16 * CIRCIUS_TILE * bits / 8;
    int64_t group = w.unit / w.group_units, left = w.group_units - w.unit % w.group_units;
    for (int u = 0; u < w.n_units; u++) {
        int32x4_t sums[ROWS][QUARTERS];
        for (int r = 0; r < n_rows; r++)
            for (int q = 0; q < QUARTERS; q++)
                sums[r][q] = vdupq_n_s32(bits == 4 && !has_mins ? x.starts[u * n_rows + r] : 0);
        for (int half = 0; half < 2; half++) {
            int8x16_t a[ROWS];
            for (int r = 0; r < n_rows; r++)
                a[r] = vld1q_s8(x.codes + (int64_t)(u * n_rows + r) * CIRCIUS_UNIT + 16 * half);
            add_sixteen(w.codes + (int64_t)(2 * u + half) * half_bytes, a, n_rows, bits, sums);
        }
        finish_unit(&w, &x, u, group, n_rows, has_mins, sums);
        if (--left == 0) {
            group++;
            left = w.group_units;
        }
    }
}

/* `n_rows` is 1, 2 or 4. */
typedef void (*multiply_function)(const struct stretch *w, const struct rows *x, int n_rows);

#define MULTIPLY(name, bits, has_mins)                                                                                 \
    static void name(const struct stretch *w, const struct rows *x, int n_rows) {                                      \
        switch (n_rows) {                                                                                              \
        case 1: multiply(w, x, 1, bits, has_mins); break;                                                              \
        case 2: multiply(w, x, 2, bits, has_mins); break;                                                              \
        default: multiply(w, x, 4, bits, has_mins);                                                                    \
        }                                                                                                              \
    }

MULTIPLY(symmetric4, 4, 0)
MULTIPLY(minima4, 4, 1)
MULTIPLY(symmetric8, 8, 0)

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

static void one_tile(const struct circius_matrix *matrix, int64_t tile, const struct circius_activations *rows,
                     int64_t row, int n_rows, float *y) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, n_groups = matrix->n_inputs / matrix->group;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * matrix->bits / 8;
    multiply_function function = matrix->bits == 8 ? symmetric8 : matrix->mins ? minima4 : symmetric4;
    for (int r = 0; r < n_rows; r++)
        for (int q = 0; q < QUARTERS; q++)
            vst1q_f32(y + r * CIRCIUS_Y_STRIDE + 4 * q, vdupq_n_f32(0.0f));
    for (int64_t unit = 0; unit < n_units; unit += BLOCK_UNITS) {
        const struct stretch stretch = {
            .codes = matrix->codes + (tile * n_units + unit) * unit_bytes,
            .scales = matrix->scales + tile * n_groups * CIRCIUS_TILE,
            .mins = matrix->mins ? matrix->mins + tile * n_groups * CIRCIUS_TILE : NULL,
            .scale_type = matrix->scale_type,
            .group_units = matrix->group / CIRCIUS_UNIT,
            .unit = unit,
            .n_units = (int)(n_units - unit < BLOCK_UNITS ? n_units - unit : BLOCK_UNITS),
        };
        for (int r = 0, count; r < n_rows; r += count) {
            count = circius_rows_at_once(n_rows - r, ROWS);
            struct rows here = rows_at(rows, row + r, count, unit, y + r * CIRCIUS_Y_STRIDE);
            function(&stretch, &here, count);
        }
    }
}

void circius_tiles_neon(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                        const struct circius_activations *rows, int64_t row, int n_rows, float *y) {
    for (int t = 0; t < n_tiles; t++)
        one_tile(matrix, tile + t, rows, row, n_rows, y + t * CIRCIUS_TILE);
}
