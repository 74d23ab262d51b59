#include "matmul.h"

#include <stddef.h>
#include <string.h>

#include "cpu.h"
#include "scratch.h"

struct kernels {
    circius_quantise quantise;
    circius_tiles tiles;
    int rows_at_once;
    int reads_wide; /* whether products of 8 bits read the activations in 16 */
};

static struct kernels kernels_in_use(void) {
    switch (circius_isa()) {
#if defined(__x86_64__)
    case CIRCIUS_AVX512:
        return (struct kernels){circius_quantise_avx512, circius_tiles_avx512, CIRCIUS_ROWS_AVX512, 0};
    case CIRCIUS_AVX2:
        return (struct kernels){circius_quantise_avx2, circius_tiles_avx2, CIRCIUS_ROWS_AVX2, 1};
#elif defined(__aarch64__)
    case CIRCIUS_NEON:
        return (struct kernels){circius_quantise_portable, circius_tiles_neon, CIRCIUS_ROWS_NEON, 0};
#endif
    default:
        return (struct kernels){circius_quantise_portable, circius_tiles_portable, CIRCIUS_ROWS_PORTABLE, 0};
    }
}

int circius_check_matrix(const struct circius_matrix *matrix) {
    return !matrix || !matrix->codes || !matrix->scales || matrix->n_outputs <= 0 || matrix->n_inputs <= 0 ||
           matrix->n_inputs % CIRCIUS_UNIT || matrix->group <= 0 || matrix->group % CIRCIUS_UNIT ||
           matrix->n_inputs % matrix->group || (matrix->bits != 4 && matrix->bits != 8) ||
           (matrix->bits == 8 && matrix->mins) ||
           (matrix->scale_type != CIRCIUS_FLOAT16 && matrix->scale_type != CIRCIUS_BFLOAT16);
}

static int64_t n_tiles(const struct circius_matrix *matrix) {
    return (matrix->n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE;
}

static int wants_wide(const struct circius_linears *job) {
    if (!kernels_in_use().reads_wide)
        return 0;
    for (int64_t i = 0; i < job->n_products; i++)
        if (job->products[i].matrix.bits == 8)
            return 1;
    return 0;
}

static size_t rounded_up(size_t size) {
    return (size + CIRCIUS_CACHE_LINE - 1) / CIRCIUS_CACHE_LINE * CIRCIUS_CACHE_LINE;
}

size_t circius_linears_scratch(const struct circius_linears *job) {
    size_t n_inputs = (size_t)job->products[0].matrix.n_inputs;
    size_t n_rows = (size_t)job->n_rows;
    size_t per_unit = rounded_up(n_rows * (n_inputs / CIRCIUS_UNIT) * sizeof(float));
    return rounded_up(n_rows * n_inputs) * (wants_wide(job) ? 3 : 1) + 3 * per_unit;
}

/* Large enough to read the memory in long stretches, small enough that the last one to finish is not long alone. */
enum { BYTES_PER_TICKET = 1 << 18, TICKETS_PER_WORKER = 8 };

static int64_t choose_tiles_per_ticket(const struct circius_linears *job, int n_workers) {
    const struct circius_matrix *first = &job->products[0].matrix;
    int64_t all = 0, tiles = BYTES_PER_TICKET / (first->n_inputs * CIRCIUS_TILE / 2);
    for (int64_t i = 0; i < job->n_products; i++)
        all += n_tiles(&job->products[i].matrix);
    if (tiles > all / (TICKETS_PER_WORKER * n_workers))
        tiles = all / (TICKETS_PER_WORKER * n_workers);
    return tiles < CIRCIUS_MOST_TILES ? CIRCIUS_MOST_TILES : tiles;
}

void circius_linears_prepare(struct circius_linears *job, void *scratch, int n_workers) {
    const struct circius_matrix *first = &job->products[0].matrix;
    size_t n_codes = rounded_up((size_t)job->n_rows * (size_t)first->n_inputs);
    size_t per_unit =
        rounded_up((size_t)job->n_rows * (size_t)(first->n_inputs / CIRCIUS_UNIT) * sizeof(float));
    char *place = scratch;
    job->rows.n_inputs = first->n_inputs;
    job->rows.codes = (int8_t *)place;
    place += n_codes;
    job->rows.wide = NULL;
    if (wants_wide(job)) {
        job->rows.wide = (int16_t *)(void *)place;
        place += 2 * n_codes;
    }
    job->rows.scales = (float *)(void *)place;
    job->rows.shifts = (float *)(void *)(place + per_unit);
    job->rows.starts = (int32_t *)(void *)(place + 2 * per_unit);

    job->tiles_per_ticket = choose_tiles_per_ticket(job, n_workers);
    atomic_init(&job->quantising.tickets.next, 0);
    atomic_init(&job->quantising.n_done, 0);
    atomic_init(&job->multiplying.next, 0);
}

/* A ticket is a stretch of units of the rows of one block. */
enum { UNITS_PER_TICKET = 32 };

static void quantise_block(const struct circius_linears *job, circius_quantise quantise, int64_t first, int n_rows,
                           int64_t unit, int64_t end) {
    int64_t n_units = job->rows.n_inputs / CIRCIUS_UNIT;
    for (int r = 0; r < n_rows; r++) {
        const float *x = job->x + (first + r) * job->x_stride;
        for (int64_t u = unit; u < end; u++)
            quantise(x + u * CIRCIUS_UNIT, &job->rows, first * n_units + u * n_rows + r);
    }
}

static void quantise_rows(struct circius_linears *job, const struct kernels *kernels) {
    int64_t n_units = job->rows.n_inputs / CIRCIUS_UNIT;
    int64_t parts = (n_units + UNITS_PER_TICKET - 1) / UNITS_PER_TICKET;
    int64_t ticket = circius_take(&job->quantising.tickets), before = 0; /* tickets of the blocks before this one */
    for (int64_t row = 0; row < job->n_rows; before += parts) {
        int n_rows = circius_rows_at_once(job->n_rows - row, kernels->rows_at_once);
        for (; ticket - before < parts; ticket = circius_take(&job->quantising.tickets)) {
            int64_t unit = (ticket - before) * UNITS_PER_TICKET;
            int64_t end = unit + UNITS_PER_TICKET < n_units ? unit + UNITS_PER_TICKET : n_units;
            quantise_block(job, kernels->quantise, row, n_rows, unit, end);
            circius_stage_done(&job->quantising);
        }
        row += n_rows;
    }
    circius_stage_wait(&job->quantising, before);
}

/* Some neighbouring tiles of one product, for all rows. */
static void multiply(const struct circius_linears *job, const struct circius_product *product, int64_t tile,
                     int64_t end, circius_tiles kernel) {
    _Alignas(CIRCIUS_CACHE_LINE) float y[CIRCIUS_MOST_ROWS * CIRCIUS_Y_STRIDE];
    for (; tile < end; tile += CIRCIUS_MOST_TILES) {
        int count = end - tile < CIRCIUS_MOST_TILES ? (int)(end - tile) : CIRCIUS_MOST_TILES;
        int64_t first = tile * CIRCIUS_TILE;
        int64_t n_here = product->matrix.n_outputs - first;
        if (n_here > count * CIRCIUS_TILE)
            n_here = count * CIRCIUS_TILE;
        for (int64_t row = 0; row < job->n_rows; row += CIRCIUS_MOST_ROWS) {
            int64_t left = job->n_rows - row;
            int n_rows = left < CIRCIUS_MOST_ROWS ? (int)left : CIRCIUS_MOST_ROWS;
            kernel(&product->matrix, tile, count, &job->rows, row, n_rows, y);
            for (int r = 0; r < n_rows; r++)
                memcpy(product->out + (row + r) * product->stride + first, y + r * CIRCIUS_Y_STRIDE,
                       (size_t)n_here * sizeof(float));
        }
    }
}

void circius_linears_work(void *pointer, int worker, int n_workers) {
    struct circius_linears *job = pointer;
    const struct kernels kernels = kernels_in_use();
    (void)worker, (void)n_workers;
    quantise_rows(job, &kernels);
    int64_t ticket = circius_take(&job->multiplying);
    int64_t before = 0; /* tickets of the products before this one */
    for (int64_t i = 0; i < job->n_products; i++) {
        const struct circius_product *product = &job->products[i];
        int64_t tiles = n_tiles(&product->matrix);
        int64_t here = (tiles + job->tiles_per_ticket - 1) / job->tiles_per_ticket;
        for (; ticket - before < here; ticket = circius_take(&job->multiplying)) {
            int64_t tile = (ticket - before) * job->tiles_per_ticket;
            int64_t end = tile + job->tiles_per_ticket < tiles ? tile + job->tiles_per_ticket : tiles;
            multiply(job, product, tile, end, kernels.tiles);
        }
        before += here;
    }
}

static int check_products(const float *x, int64_t n_rows, const struct circius_product *products, int64_t n_products) {
    if (!x || !products || n_rows < 0 || n_products <= 0)
        return CIRCIUS_BAD_ARGUMENT;
    for (int64_t i = 0; i < n_products; i++) {
        const struct circius_product *product = &products[i];
        if (circius_check_matrix(&product->matrix) || !product->out || product->stride < product->matrix.n_outputs ||
            product->matrix.n_inputs != products[0].matrix.n_inputs)
            return CIRCIUS_BAD_ARGUMENT;
    }
    return CIRCIUS_OK;
}

/* The rows of one pass over the matrices. */
static int linears_pass(const float *x, int64_t x_stride, int64_t row, int64_t n_rows,
                        const struct circius_product *products, int64_t n_products, int n_workers) {
    enum { MOST = 16 };
    struct circius_product here[MOST];
    for (int64_t done = 0; done < n_products; done += MOST) {
        int64_t count = n_products - done < MOST ? n_products - done : MOST;
        for (int64_t i = 0; i < count; i++) {
            here[i] = products[done + i];
            here[i].out += row * here[i].stride;
        }
        struct circius_linears job = {
            .x = x + row * x_stride, .x_stride = x_stride, .n_rows = n_rows, .products = here, .n_products = count};
        void *scratch = circius_scratch_take(circius_linears_scratch(&job));
        if (!scratch)
            return CIRCIUS_NO_MEMORY;
        circius_linears_prepare(&job, scratch, n_workers);
        circius_parallel(circius_linears_work, &job, n_workers);
        circius_scratch_give(scratch);
    }
    return CIRCIUS_OK;
}

int circius_packed_linears(const float *x, int64_t x_stride, int64_t n_rows, const struct circius_product *products,
                           int64_t n_products, int n_workers) {
    int code = check_products(x, n_rows, products, n_products);
    for (int64_t row = 0; code == CIRCIUS_OK && row < n_rows; row += CIRCIUS_LINEARS_MOST_ROWS) {
        int64_t left = n_rows - row;
        int64_t count = left < CIRCIUS_LINEARS_MOST_ROWS ? left : CIRCIUS_LINEARS_MOST_ROWS;
        code = linears_pass(x, x_stride, row, count, products, n_products, n_workers);
    }
    return code;
}
