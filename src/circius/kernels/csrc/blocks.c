#include "blocks.h"

#include <stddef.h>

#include "cpu.h"
#include "matmul.h"

enum { TOLD_EVERY = 16 };

struct taking {
    const struct circius_block_kind *kind;
    const uint8_t *rows;
    int64_t row_bytes;
    const int64_t *order;
    int64_t n_outputs, n_inputs;
    uint8_t *codes;
    uint16_t *scales, *mins;
    double *told;
    _Atomic int odd;
    struct circius_tickets tiles;
};

static uint32_t take_tile(const struct taking *job, int64_t tile) {
    static const uint8_t nothing[256]; /* what an output past the last one has: zeros */
    const struct circius_block_kind *kind = job->kind;
    int64_t n_blocks = job->n_inputs / kind->n_values, n_units = kind->n_values / CIRCIUS_UNIT;
    int64_t step_bytes = n_units * CIRCIUS_UNIT * CIRCIUS_TILE * kind->bits / 8;
    double *told = job->told + 2 * tile;
    told[0] = told[1] = 0;
    uint32_t odd = 0;
    for (int64_t index = 0; index < n_blocks; index++)
        for (int o = 0; o < CIRCIUS_TILE; o++) {
            int64_t output = tile * CIRCIUS_TILE + o, group = (tile * n_blocks + index) * n_units * CIRCIUS_TILE;
            const uint8_t *block = nothing;
            if (output < job->n_outputs)
                block = job->rows + (job->order ? job->order[output] : output) * job->row_bytes + index * kind->n_bytes;
            struct circius_block_place to = {
                .steps = job->codes + (tile * n_blocks + index) * step_bytes,
                .scales = job->scales + group,
                .mins = kind->has_mins ? job->mins + group : NULL,
                .told = kind->is_rounded && tile % TOLD_EVERY == 0 ? told : NULL,
                .o = o,
            };
            odd |= kind->take(block, &to);
        }
    return odd;
}

static void taking_work(void *pointer, int worker, int n_workers) {
    struct taking *job = pointer;
    int64_t n_tiles = (job->n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE;
    (void)worker, (void)n_workers;
    for (int64_t tile; (tile = circius_take(&job->tiles)) < n_tiles;)
        if (take_tile(job, tile))
            atomic_store(&job->odd, 1);
}

int circius_take_blocks(int kind_id, const uint8_t *rows, int64_t row_bytes, const int64_t *order, int64_t n_outputs,
                        int64_t n_inputs, uint8_t *codes, uint16_t *scales, uint16_t *mins, double *told, int32_t *odd,
                        int n_workers) {
    const struct circius_block_kind *kind = circius_block_kind(kind_id);
    if (!kind || !rows || !codes || !scales || !told || !odd || (kind->has_mins && !mins) || n_outputs < 1 ||
        n_inputs < 1 || n_inputs % kind->n_values || row_bytes < n_inputs / kind->n_values * kind->n_bytes)
        return CIRCIUS_BAD_ARGUMENT;
    for (int64_t o = 0; order && o < n_outputs; o++)
        if (order[o] < 0 || order[o] >= n_outputs)
            return CIRCIUS_BAD_ARGUMENT;
    struct taking job = {.kind = kind, .rows = rows, .row_bytes = row_bytes, .order = order, .n_outputs = n_outputs,
                         .n_inputs = n_inputs, .codes = codes, .scales = scales, .mins = mins, .told = told};
    circius_parallel(taking_work, &job, n_workers);
    *odd = atomic_load(&job.odd);
    return CIRCIUS_OK;
}
