#include <math.h>

#include "half.h"
#include "matmul.h"

static float wide_scale(const struct circius_matrix *matrix, const uint16_t *scales, int64_t at) {
    return matrix->scale_type == CIRCIUS_FLOAT16 ? circius_widen_fp16(scales[at]) : circius_widen_bf16(scales[at]);
}

/* sum(code * a) of one unit for the sixteen outputs, without what the start takes off. */
static void add_unit4(const uint8_t *codes, const int8_t *a, int32_t *sums) {
    for (int step = 0; step < CIRCIUS_UNIT / 8; step++, codes += CIRCIUS_STEP_BYTES, a += 8)
        for (int o = 0; o < CIRCIUS_TILE; o++)
            for (int i = 0; i < 4; i++)
                sums[o] += (codes[4 * o + i] & 15) * a[i] + (codes[4 * o + i] >> 4) * a[4 + i];
}

static void add_unit8(const int8_t *codes, const int8_t *a, int32_t *sums) {
    for (int step = 0; step < CIRCIUS_UNIT / 4; step++, codes += CIRCIUS_STEP_BYTES, a += 4)
        for (int o = 0; o < CIRCIUS_TILE; o++)
            for (int i = 0; i < 4; i++)
                sums[o] += codes[4 * o + i] * a[i];
}

static void add_unit(const struct circius_matrix *matrix, int64_t tile, int64_t u,
                     const struct circius_activations *rows, int64_t row, float *y) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * matrix->bits / 8;
    const uint8_t *codes = matrix->codes + (tile * n_units + u) * unit_bytes;
    const int8_t *a = rows->codes + row * rows->n_inputs + u * CIRCIUS_UNIT;
    int64_t at = row * n_units + u;
    int32_t start = matrix->bits == 4 && !matrix->mins ? rows->starts[at] : 0;
    int32_t sums[CIRCIUS_TILE];
    for (int o = 0; o < CIRCIUS_TILE; o++)
        sums[o] = start;
    if (matrix->bits == 4)
        add_unit4(codes, a, sums);
    else
        add_unit8((const int8_t *)codes, a, sums);
    int64_t group = (tile * (matrix->n_inputs / matrix->group) + u * CIRCIUS_UNIT / matrix->group) * CIRCIUS_TILE;
    for (int o = 0; o < CIRCIUS_TILE; o++) {
        float scale = wide_scale(matrix, matrix->scales, group + o) * rows->scales[at];
        y[o] = fmaf(scale, (float)sums[o], y[o]);
        if (matrix->mins)
            y[o] = fmaf(wide_scale(matrix, matrix->mins, group + o), rows->shifts[at], y[o]);
    }
}

void circius_tiles_portable(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                            const struct circius_activations *rows, int64_t row, int n_rows, float *y) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT;
    for (int t = 0; t < n_tiles; t++)
        for (int r = 0; r < n_rows; r++) {
            float *here = y + r * CIRCIUS_Y_STRIDE + t * CIRCIUS_TILE;
            for (int o = 0; o < CIRCIUS_TILE; o++)
                here[o] = 0.0f;
            for (int64_t u = 0; u < n_units; u++)
                add_unit(matrix, tile + t, u, rows, row + r, here);
        }
}
