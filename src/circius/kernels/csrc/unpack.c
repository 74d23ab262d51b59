#include "unpack.h"

#include "cpu.h"

typedef void (*unpack_function)(const struct circius_matrix *matrix, int64_t tile, int n_rows, int type, void *out,
                                int64_t at, int64_t stride);

struct unpacking {
    unpack_function unpack_tile;
    const struct circius_matrix *matrix;
    int64_t tile, n_tiles, stride;
    int type;
    void *out;
    struct circius_tickets tiles;
};

static float wide(const struct circius_matrix *matrix, const uint16_t *numbers, int64_t at) {
    return matrix->scale_type == CIRCIUS_FLOAT16 ? circius_widen_fp16(numbers[at]) : circius_widen_bf16(numbers[at]);
}

/* The codes of one unit of one output, in the order of the inputs; those of symmetric 4 bits minus 8. */
static void unit_codes(const struct circius_matrix *matrix, const uint8_t *codes, int32_t *to) {
    if (matrix->bits == 8) {
        for (int i = 0; i < CIRCIUS_UNIT; i++)
            to[i] = (int8_t)codes[i / 4 * CIRCIUS_STEP_BYTES + i % 4];
        return;
    }
    int32_t zero = matrix->mins ? 0 : 8;
    for (int step = 0; step < CIRCIUS_UNIT / 8; step++)
        for (int i = 0; i < 4; i++) {
            uint8_t both = codes[step * CIRCIUS_STEP_BYTES + i];
            to[8 * step + i] = (both & 15) - zero;
            to[8 * step + 4 + i] = (both >> 4) - zero;
        }
}

static void write_unit(const struct circius_matrix *matrix, const int32_t *codes, float scale, float min, int type,
                       void *out, int64_t at) {
    float values[CIRCIUS_UNIT];
    for (int i = 0; i < CIRCIUS_UNIT; i++)
        values[i] = (float)codes[i] * scale;
    for (int i = 0; i < CIRCIUS_UNIT && matrix->mins; i++)
        values[i] += min;
    if (type == CIRCIUS_FLOAT32)
        memcpy((float *)out + at, values, sizeof values);
    else
        for (int i = 0; i < CIRCIUS_UNIT; i++)
            ((uint16_t *)out)[at + i] = circius_narrow_bf16(values[i]);
}

static void unpack_tile_portable(const struct circius_matrix *matrix, int64_t tile, int n_rows, int type, void *out,
                                 int64_t at, int64_t stride) {
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT, n_groups = matrix->n_inputs / matrix->group;
    int64_t unit_bytes = (int64_t)CIRCIUS_UNIT * CIRCIUS_TILE * matrix->bits / 8;
    for (int o = 0; o < n_rows; o++)
        for (int64_t u = 0; u < n_units; u++) {
            int64_t group = (tile * n_groups + u * CIRCIUS_UNIT / matrix->group) * CIRCIUS_TILE + o;
            int32_t codes[CIRCIUS_UNIT];
            unit_codes(matrix, matrix->codes + (tile * n_units + u) * unit_bytes + 4 * o, codes);
            write_unit(matrix, codes, wide(matrix, matrix->scales, group),
                       matrix->mins ? wide(matrix, matrix->mins, group) : 0.0f, type, out,
                       at + o * stride + u * CIRCIUS_UNIT);
        }
}

static void unpack_work(void *pointer, int worker, int n_workers) {
    struct unpacking *job = pointer;
    (void)worker, (void)n_workers;
    for (int64_t i; (i = circius_take(&job->tiles)) < job->n_tiles;) {
        int64_t tile = job->tile + i, left = job->matrix->n_outputs - tile * CIRCIUS_TILE;
        int n_rows = left < CIRCIUS_TILE ? (int)left : CIRCIUS_TILE;
        job->unpack_tile(job->matrix, tile, n_rows, job->type, job->out, i * CIRCIUS_TILE * job->stride, job->stride);
    }
}

static unpack_function choose_function(void) {
#if defined(__x86_64__)
    if (circius_isa() == CIRCIUS_AVX2 || circius_isa() == CIRCIUS_AVX512)
        return circius_unpack_tile_avx2;
#endif
    return unpack_tile_portable;
}

int circius_unpack(const struct circius_matrix *matrix, int64_t tile, int64_t n_tiles, int type, void *out,
                   int64_t stride, int n_workers) {
    if (circius_check_matrix(matrix) || !out || tile < 0 || n_tiles < 0 || stride < matrix->n_inputs ||
        tile + n_tiles > (matrix->n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE ||
        (type != CIRCIUS_FLOAT32 && type != CIRCIUS_BFLOAT16))
        return CIRCIUS_BAD_ARGUMENT;
    struct unpacking job = {
        .unpack_tile = choose_function(),
        .matrix = matrix,
        .tile = tile,
        .n_tiles = n_tiles,
        .stride = stride,
        .type = type,
        .out = out,
    };
    circius_parallel(unpack_work, &job, n_workers);
    return CIRCIUS_OK;
}
