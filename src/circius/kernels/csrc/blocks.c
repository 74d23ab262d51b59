#include "blocks.h"

#include <string.h>

#include "cpu.h"
#include "matmul.h"

struct tiling {
    const struct circius_block_form *form;
    const uint8_t *rows;
    int64_t row_bytes;
    const int64_t *order;
    int64_t n_outputs, n_inputs;
    uint8_t *codes;
    uint16_t *scales, *mins;
    _Atomic int odd;
    struct circius_tickets tiles;
};

enum { LOW_HALVES = 0x0f0f0f0f, NOT_FINITE = 0x7c00 };

static uint32_t load_word(const uint8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Word o of a step. */
static void store_word(uint8_t *step, int o, uint32_t word) {
    memcpy(step + 4 * o, &word, sizeof word);
}

/* The steps of `n_bytes` bytes of halves: two words make one step of their low halves and one of their high halves. */
static inline void place_halves(const uint8_t *from, int n_bytes, int run, int o, uint8_t *steps) {
    for (int begin = 0; begin < n_bytes; begin += run, steps += run / 4 * CIRCIUS_STEP_BYTES)
        for (int pair = 0; pair < run / 8; pair++) {
            uint32_t first = load_word(from + begin + 8 * pair), second = load_word(from + begin + 8 * pair + 4);
            uint32_t low = (first & LOW_HALVES) | (second & LOW_HALVES) << 4;
            uint32_t high = (first >> 4 & LOW_HALVES) | (second & ~(uint32_t)LOW_HALVES);
            store_word(steps + pair * CIRCIUS_STEP_BYTES, o, low);
            store_word(steps + (run / 8 + pair) * CIRCIUS_STEP_BYTES, o, high);
        }
}

/* Not 0 if a byte is -128. */
static uint32_t place_bytes(const uint8_t *from, int n_values, int o, uint8_t *steps) {
    uint32_t odd = 0;
    for (int step = 0; step < n_values / 4; step++) {
        uint32_t word = load_word(from + 4 * step), zero_where_odd = word ^ 0x80808080u;
        odd |= (zero_where_odd - 0x01010101u) & ~zero_where_odd & 0x80808080u;
        store_word(steps + step * CIRCIUS_STEP_BYTES, o, word);
    }
    return odd;
}

/* Not 0 if the number is not finite. */
static uint32_t place_number(const uint8_t *from, uint16_t *to) {
    memcpy(to, from, sizeof *to);
    return (*to & NOT_FINITE) == NOT_FINITE;
}

static uint32_t place_block(const struct tiling *job, const uint8_t *block, int64_t tile, int64_t index, int o) {
    const struct circius_block_form *form = job->form;
    int64_t n_steps = form->n_values / (form->run ? 8 : 4), n_blocks = job->n_inputs / form->n_values;
    uint8_t *steps = job->codes + (tile * n_blocks + index) * n_steps * CIRCIUS_STEP_BYTES;
    uint32_t odd = 0;
    if (form->run == 16 && form->n_values == 32) /* with numbers that the compiler knows it takes half the time */
        place_halves(block + form->codes_at, 16, 16, o, steps);
    else if (form->run)
        place_halves(block + form->codes_at, form->n_values / 2, form->run, o, steps);
    else
        odd = place_bytes(block + form->codes_at, form->n_values, o, steps);
    int64_t group = (tile * n_blocks + index) * CIRCIUS_TILE + o;
    if (form->scale_at >= 0)
        odd |= place_number(block + form->scale_at, job->scales + group);
    if (form->min_at >= 0)
        odd |= place_number(block + form->min_at, job->mins + group);
    return odd;
}

static uint32_t place_tile(const struct tiling *job, int64_t tile) {
    static const uint8_t nothing[256]; /* what an output past the last one has: zeros */
    const struct circius_block_form *form = job->form;
    const uint8_t *rows[CIRCIUS_TILE];
    for (int o = 0; o < CIRCIUS_TILE; o++) {
        int64_t output = tile * CIRCIUS_TILE + o;
        rows[o] = output >= job->n_outputs ? NULL : job->rows + (job->order ? job->order[output] : output) * job->row_bytes;
    }
    uint32_t odd = 0;
    for (int64_t index = 0; index < job->n_inputs / form->n_values; index++)
        for (int o = 0; o < CIRCIUS_TILE; o++)
            odd |= place_block(job, rows[o] ? rows[o] + index * form->n_bytes : nothing, tile, index, o);
    return odd;
}

static void tiling_work(void *pointer, int worker, int n_workers) {
    struct tiling *job = pointer;
    int64_t n_tiles = (job->n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE;
    (void)worker, (void)n_workers;
    for (int64_t tile; (tile = circius_take(&job->tiles)) < n_tiles;)
        if (place_tile(job, tile))
            atomic_store(&job->odd, 1);
}

static int is_bad_form(const struct circius_block_form *form) {
    int bytes_of_codes = form->run ? form->n_values / 2 : form->n_values;
    int is_bad_run = form->run != 0 && form->run != 16 && form->run != 32;
    int has_numbers = form->scale_at >= 0 || form->min_at >= 0;
    return is_bad_run || form->n_bytes > 256 || form->n_values < CIRCIUS_UNIT || form->n_values % CIRCIUS_UNIT ||
           (form->run && bytes_of_codes % form->run) || form->codes_at < 0 ||
           form->codes_at + bytes_of_codes > form->n_bytes || (has_numbers && form->n_values != CIRCIUS_UNIT) ||
           form->scale_at + 2 > form->n_bytes || form->min_at + 2 > form->n_bytes;
}

int circius_tile_blocks(const struct circius_block_form *form, const uint8_t *rows, int64_t row_bytes, const int64_t *order,
                        int64_t n_outputs, int64_t n_inputs, uint8_t *codes, uint16_t *scales, uint16_t *mins, int32_t *odd,
                        int n_workers) {
    if (!form || !rows || !codes || !odd || is_bad_form(form) || n_outputs < 1 || n_inputs < 1 ||
        n_inputs % form->n_values || row_bytes < n_inputs / form->n_values * form->n_bytes ||
        (form->scale_at >= 0 && !scales) || (form->min_at >= 0 && !mins))
        return CIRCIUS_BAD_ARGUMENT;
    for (int64_t o = 0; order && o < n_outputs; o++)
        if (order[o] < 0 || order[o] >= n_outputs)
            return CIRCIUS_BAD_ARGUMENT;
    struct tiling job = {.form = form, .rows = rows, .row_bytes = row_bytes, .order = order, .n_outputs = n_outputs,
                         .n_inputs = n_inputs, .codes = codes, .scales = scales, .mins = mins};
    circius_parallel(tiling_work, &job, n_workers);
    *odd = atomic_load(&job.odd);
    return CIRCIUS_OK;
}
