#include "dense.h"

#include <string.h>

#include "cpu.h"
#include "half.h"
#include "pool.h"
#include "scratch.h"

/* A ticket is for some outputs and some rows. Few rows wait for memory: each output is read from end to end. Many rows
 * wait for the multipliers: outputs and rows enough that a block of both stays in the nearer caches and is used often. */
enum { FEW_ROWS = 3, OUTPUTS_AT_ONCE = 64, ROWS_AT_ONCE = 240, PANELS_AT_ONCE = 3 };
/* From so many numbers on, x is arranged by all workers. */
enum { WORTH_SHARING = 1 << 16 };

struct job {
    const char *x;
    const struct circius_dense_matrix *matrices;
    const struct dense_kernels *kernels;
    float *arranged; /* block after block, in each panel after panel */
    float *scratch;  /* for each worker the sums of a ticket, [group][row][output of the group], and wide weights */
    int64_t x_stride, n_rows, n_inputs, n_padded, n_matrices;
    int64_t rows_at_once;
    int x_type, weight_type, arranges_together;
    struct circius_tickets panels, items;
    struct circius_gate gate;
};

/* What a ticket stands for: some outputs of one matrix, some rows. No matrix: there are no more. */
struct item {
    const struct circius_dense_matrix *matrix;
    int64_t first_output, n_outputs, first_row, n_rows;
};

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static struct item find_item(const struct job *job, int64_t ticket) {
    int64_t n_tiles = ceil_div(job->n_rows, job->rows_at_once);
    int64_t first_row = ticket % n_tiles * job->rows_at_once;
    ticket /= n_tiles;
    for (int64_t i = 0; i < job->n_matrices; i++) {
        const struct circius_dense_matrix *matrix = &job->matrices[i];
        int64_t n_parts = ceil_div(matrix->n_outputs, OUTPUTS_AT_ONCE);
        if (ticket < n_parts) {
            int64_t first = ticket * OUTPUTS_AT_ONCE;
            return (struct item){matrix, first, least(OUTPUTS_AT_ONCE, matrix->n_outputs - first), first_row,
                                 least(job->rows_at_once, job->n_rows - first_row)};
        }
        ticket -= n_parts;
    }
    return (struct item){0};
}

/* What one worker needs. */
static int64_t scratch_floats(const struct job *job) {
    return OUTPUTS_AT_ONCE * (job->rows_at_once + DENSE_BLOCK);
}

static int64_t block_length(int64_t n, int64_t at) {
    return least(DENSE_BLOCK, n - at);
}

/* A block of some rows from `row` on, arranged. */
static float *arranged_at(const struct job *job, int64_t row, int64_t at) {
    return job->arranged + at * job->n_rows + row * block_length(job->n_padded, at);
}

static void arrange_panel(const struct job *job, int64_t first) {
    const int64_t size = circius_number_bytes(job->x_type);
    const int n_rows = (int)least(DENSE_PANEL, job->n_rows - first);
    for (int64_t at = 0; at < job->n_inputs; at += DENSE_BLOCK) {
        const char *rows[DENSE_PANEL];
        for (int i = 0; i < n_rows; i++)
            rows[i] = job->x + ((first + i) * job->x_stride + at) * size;
        job->kernels->arrange(rows, n_rows, (int)block_length(job->n_inputs, at), job->x_type, job->weight_type,
                              arranged_at(job, first, at));
    }
}

/* The inputs from `at` on of a group's outputs. Past the last output it stands again: those products are dropped. */
static void find_weights(const struct job *job, const struct item *item, int64_t group, int64_t at,
                         const char **weights) {
    const int64_t size = circius_number_bytes(job->weight_type);
    for (int64_t i = 0; i < DENSE_GROUP; i++) {
        int64_t output = item->first_output + least(group * DENSE_GROUP + i, item->n_outputs - 1);
        weights[i] = (const char *)item->matrix->weight + (output * job->n_inputs + at) * size;
    }
}

/* Few rows: group after group, each from the first input to the last, multiplied as it comes from memory. */
static void multiply_few(const struct job *job, const struct item *item, int64_t n_groups, float *sums) {
    for (int64_t group = 0; group < n_groups; group++)
        for (int64_t at = 0; at < job->n_inputs; at += DENSE_BLOCK) {
            const char *weights[DENSE_GROUP], *next[DENSE_GROUP];
            const int is_last = at + DENSE_BLOCK >= job->n_inputs;
            find_weights(job, item, group, at, weights);
            find_weights(job, item, is_last ? group + 1 : group, is_last ? 0 : at + DENSE_BLOCK, next);
            job->kernels->multiply(arranged_at(job, item->first_row, at), (int)item->n_rows, weights, next,
                                   (int)block_length(job->n_inputs, at), job->weight_type,
                                   sums + group * item->n_rows * DENSE_GROUP);
        }
}

/* Some rows and all groups of one block. While the first rows are multiplied, the next block is fetched. */
static void multiply_rows(const struct job *job, const struct item *item, int64_t n_groups, int64_t at, int64_t begin,
                          const float *wide, float *sums) {
    const int64_t end = least(begin + PANELS_AT_ONCE * DENSE_PANEL, item->n_rows), next_at = at + DENSE_BLOCK;
    const int n_inputs = (int)block_length(job->n_padded, at);
    int64_t next_bytes = 0;
    if (begin == 0 && next_at < job->n_inputs)
        next_bytes = block_length(job->n_inputs, next_at) * circius_number_bytes(job->weight_type);
    for (int64_t group = 0; group < n_groups; group++) {
        const char *next[DENSE_GROUP];
        find_weights(job, item, group, next_at, next);
        for (int64_t row = begin; row < end; row += DENSE_PANEL)
            job->kernels->multiply_wide(arranged_at(job, item->first_row + row, at), (int)least(DENSE_PANEL, end - row),
                                        wide + group * DENSE_GROUP * DENSE_BLOCK, next, row ? 0 : (int)next_bytes,
                                        n_inputs, sums + (group * item->n_rows + row) * DENSE_GROUP);
    }
}

/* Many rows: block after block, widened once and then used by all of them. */
static void multiply_many(const struct job *job, const struct item *item, int64_t n_groups, float *sums) {
    float *wide = sums + OUTPUTS_AT_ONCE * job->rows_at_once;
    for (int64_t at = 0; at < job->n_inputs; at += DENSE_BLOCK) {
        for (int64_t group = 0; group < n_groups; group++) {
            const char *weights[DENSE_GROUP];
            find_weights(job, item, group, at, weights);
            job->kernels->widen(weights, (int)block_length(job->n_inputs, at), job->weight_type,
                                wide + group * DENSE_GROUP * DENSE_BLOCK);
        }
        for (int64_t row = 0; row < item->n_rows; row += PANELS_AT_ONCE * DENSE_PANEL)
            multiply_rows(job, item, n_groups, at, row, wide, sums);
    }
}

/* Rounds the sums into their places. */
static void write_rows(const struct job *job, const struct item *item, int64_t n_groups, const float *sums) {
    const int64_t size = circius_number_bytes(job->x_type);
    for (int64_t row = 0; row < item->n_rows; row++) {
        float together[OUTPUTS_AT_ONCE];
        for (int64_t group = 0; group < n_groups; group++)
            memcpy(together + group * DENSE_GROUP, sums + (group * item->n_rows + row) * DENSE_GROUP,
                   DENSE_GROUP * sizeof(float));
        int64_t at = (item->first_row + row) * item->matrix->n_outputs + item->first_output;
        job->kernels->narrow(together, item->n_outputs, job->x_type, (char *)item->matrix->y + at * size);
    }
}

static void dense_work(void *pointer, int worker, int n_workers) {
    struct job *job = pointer;
    if (job->arranges_together) {
        for (int64_t row; (row = circius_take(&job->panels) * DENSE_PANEL) < job->n_rows;)
            arrange_panel(job, row);
        circius_gate_wait(&job->gate, n_workers);
    }
    float *sums = job->scratch + worker * scratch_floats(job);
    for (;;) {
        struct item item = find_item(job, circius_take(&job->items));
        if (!item.matrix)
            return;
        int64_t n_groups = ceil_div(item.n_outputs, DENSE_GROUP);
        memset(sums, 0, (size_t)(n_groups * item.n_rows * DENSE_GROUP) * sizeof(float));
        (job->n_rows <= FEW_ROWS ? multiply_few : multiply_many)(job, &item, n_groups, sums);
        write_rows(job, &item, n_groups, sums);
    }
}

static const struct dense_kernels *choose_kernels(void) {
    switch (circius_isa()) {
#if defined(__x86_64__)
    case CIRCIUS_AVX2:
    case CIRCIUS_AVX512: return &circius_dense_avx2;
#elif defined(__aarch64__)
    case CIRCIUS_NEON: return &circius_dense_neon;
#endif
    default: return &circius_dense_portable;
    }
}

static int run(struct job *job, int n_threads) {
    int64_t n_tiles = ceil_div(job->n_rows, ROWS_AT_ONCE);
    job->rows_at_once = ceil_div(ceil_div(job->n_rows, n_tiles), DENSE_PANEL) * DENSE_PANEL;
    job->n_padded = ceil_div(job->n_inputs, DENSE_STEP) * DENSE_STEP;
    const int64_t n_arranged = job->n_rows * job->n_padded;
    job->arranges_together = n_arranged >= WORTH_SHARING;
    float *scratch = circius_scratch_take((size_t)(n_arranged + n_threads * scratch_floats(job)) * sizeof(float));
    if (!scratch)
        return CIRCIUS_NO_MEMORY;
    job->arranged = scratch;
    job->scratch = scratch + n_arranged;
    for (int64_t row = 0; !job->arranges_together && row < job->n_rows; row += DENSE_PANEL)
        arrange_panel(job, row);
    circius_parallel(dense_work, job, n_threads);
    circius_scratch_give(scratch);
    return CIRCIUS_OK;
}

static int is_type(int type) {
    return type == CIRCIUS_FLOAT32 || type == CIRCIUS_FLOAT16 || type == CIRCIUS_BFLOAT16;
}

int circius_dense(const void *x, int x_type, int64_t x_stride, int64_t n_rows, int64_t n_inputs,
                  const struct circius_dense_matrix *matrices, int64_t n_matrices, int weight_type, int n_threads) {
    if (!x || !matrices || n_matrices < 1 || n_rows < 0 || n_inputs < 1 || x_stride < n_inputs || n_threads < 1 ||
        !is_type(x_type) || !is_type(weight_type))
        return CIRCIUS_BAD_ARGUMENT;
    for (int64_t i = 0; i < n_matrices; i++)
        if (!matrices[i].weight || !matrices[i].y || matrices[i].n_outputs < 1)
            return CIRCIUS_BAD_ARGUMENT;
    if (!n_rows)
        return CIRCIUS_OK;
    struct job job = {
        .x = x,
        .matrices = matrices,
        .kernels = choose_kernels(),
        .x_stride = x_stride,
        .n_rows = n_rows,
        .n_inputs = n_inputs,
        .n_matrices = n_matrices,
        .x_type = x_type,
        .weight_type = weight_type,
    };
    return run(&job, n_threads);
}
