#include "float_linear.h"

#include "cpu.h"
#include "scratch.h"

typedef void (*tile_function)(const struct circius_matrix *matrix, int64_t tile, const struct circius_float_rows *rows,
                              int64_t at, int n_rows, float *y);

struct float_job {
    tile_function multiply_tile;
    const struct circius_product *product;
    struct circius_float_rows rows;
    int64_t n_rows;
    struct circius_tickets tiles;
};

static tile_function choose_function(void) {
#if defined(__x86_64__)
    if (circius_isa() == CIRCIUS_AVX2 || circius_isa() == CIRCIUS_AVX512)
        return circius_float_tile_avx2;
#endif
    return NULL;
}

int circius_has_float_linear(void) {
    return choose_function() != NULL;
}

static int rows_at_once(int64_t left) {
    return left < CIRCIUS_FLOAT_ROWS ? (int)left : CIRCIUS_FLOAT_ROWS;
}

/* One unit in the order of the bits of its codes: of 4 bits, 0 4 1 5 2 6 3 7 of every eight; of 8, as they are. The
 * topmost of 32 bits are shifted down by the kernel, since where they stand they would be a sign. */
static void arrange_unit(const float *x, int bits, float *inputs, float *sum) {
    int per_word = 32 / bits;
    float total = 0.0f;
    for (int i = 0; i < CIRCIUS_UNIT; i += per_word) {
        float factor = 1.0f;
        for (int k = 0; k < per_word; k++, factor /= (float)(1 << bits)) {
            int input = bits == 4 ? k / 2 + k % 2 * 4 : k;
            inputs[i + k] = x[i + input] * (k == per_word - 1 ? 1.0f : factor);
            total += x[i + k];
        }
    }
    *sum = total;
}

static void arrange(const float *x, int64_t x_stride, const struct float_job *job) {
    const struct circius_matrix *matrix = &job->product->matrix;
    int64_t n_units = matrix->n_inputs / CIRCIUS_UNIT;
    for (int64_t first = 0; first < job->n_rows; first += CIRCIUS_FLOAT_ROWS) {
        int n_rows = rows_at_once(job->n_rows - first);
        for (int64_t u = 0; u < n_units; u++)
            for (int r = 0; r < n_rows; r++) {
                int64_t at = first * n_units + u * n_rows + r;
                arrange_unit(x + (first + r) * x_stride + u * CIRCIUS_UNIT, matrix->bits,
                             job->rows.inputs + at * CIRCIUS_UNIT, job->rows.sums + at);
            }
    }
}

static void float_work(void *pointer, int worker, int n_workers) {
    struct float_job *job = pointer;
    const struct circius_product *product = job->product;
    int64_t n_units = product->matrix.n_inputs / CIRCIUS_UNIT;
    (void)worker, (void)n_workers;
    for (int64_t first; (first = circius_take(&job->tiles) * CIRCIUS_TILE) < product->matrix.n_outputs;) {
        int64_t left = product->matrix.n_outputs - first;
        size_t n_bytes = (size_t)(left < CIRCIUS_TILE ? left : CIRCIUS_TILE) * sizeof(float);
        for (int64_t row = 0; row < job->n_rows; row += CIRCIUS_FLOAT_ROWS) {
            _Alignas(CIRCIUS_CACHE_LINE) float y[CIRCIUS_FLOAT_ROWS * CIRCIUS_TILE];
            int n_rows = rows_at_once(job->n_rows - row);
            job->multiply_tile(&product->matrix, first / CIRCIUS_TILE, &job->rows, row * n_units, n_rows, y);
            for (int r = 0; r < n_rows; r++)
                memcpy(product->out + (row + r) * product->stride + first, y + r * CIRCIUS_TILE, n_bytes);
        }
    }
}

int circius_float_linear(const float *x, int64_t x_stride, int64_t n_rows, const struct circius_product *product,
                         int n_workers) {
    if (!x || !product || !product->out || n_rows < 0 || circius_check_matrix(&product->matrix) ||
        product->stride < product->matrix.n_outputs || !circius_has_float_linear())
        return CIRCIUS_BAD_ARGUMENT;
    if (!n_rows)
        return CIRCIUS_OK;
    size_t n_inputs = (size_t)(n_rows * product->matrix.n_inputs);
    float *scratch = circius_scratch_take((n_inputs + n_inputs / CIRCIUS_UNIT) * sizeof(float));
    if (!scratch)
        return CIRCIUS_NO_MEMORY;
    struct float_job job = {.multiply_tile = choose_function(),
                            .product = product,
                            .rows = {.inputs = scratch, .sums = scratch + n_inputs},
                            .n_rows = n_rows};
    arrange(x, x_stride, &job);
    circius_parallel(float_work, &job, n_workers);
    circius_scratch_give(scratch);
    return CIRCIUS_OK;
}
