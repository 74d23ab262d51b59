/* What attention.c asks of each instruction set: one work item, and the rounding of one head of one token. */
#ifndef CIRCIUS_ATTENTION_KERNELS_H
#define CIRCIUS_ATTENTION_KERNELS_H

#include "attention.h"

/* Where the keys (or the values) of one key-value head stand: positions before `new_from` in the ring, the others
 * among the new tokens. */
struct circius_source {
    const char *ring;
    const char *fresh;
    const float *ring_scales, *fresh_scales; /* only for CIRCIUS_I8 */
    int64_t ring_stride, fresh_stride;       /* bytes from one position to the next */
    int64_t fresh_scale_stride;              /* numbers */
};

/* Some consecutive queries of one row, in all the heads that share one key-value head. */
struct circius_tile {
    const char *query;
    char *out;
    int64_t query_stride, out_stride; /* bytes from one token to the next */
    struct circius_source keys, values;
    int64_t new_from, n_slots;
    const int32_t *pages; /* null, or the page of each 64 positions from the first that the table knows: see attention.h */
    int64_t first_page, n_pages, page_bytes, page_scales;
    int64_t first_position, n_queries, window;
    int32_t group, head_dim, format, cache_format;
};

struct circius_attention_kernels {
    void (*attend)(const struct circius_tile *tile, float *scratch);
    /* Rounds `n` numbers to another format; `scale` is written only for CIRCIUS_I8. */
    void (*round)(const char *from, int from_format, char *to, int to_format, int64_t n, float *scale);
};

extern const struct circius_attention_kernels circius_attention_portable;
#if defined(__x86_64__)
extern const struct circius_attention_kernels circius_attention_avx2;
extern const struct circius_attention_kernels circius_attention_avx512;
#elif defined(__aarch64__)
extern const struct circius_attention_kernels circius_attention_neon;
#endif

static inline int64_t circius_format_bytes(int format) {
    static const int8_t bytes[] = {4, 2, 2, 1};
    return bytes[format];
}

static inline int64_t circius_min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t circius_max(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* The most (query, head) rows of one tile: its queries, outputs and scores should stay in a core's second cache. */
static inline int64_t circius_tile_rows(int64_t group, int64_t head_dim) {
    return circius_max(head_dim > 128 ? 96 : 192, group);
}

static inline int64_t circius_padded(int64_t head_dim) {
    return (head_dim + CIRCIUS_PANEL - 1) / CIRCIUS_PANEL * CIRCIUS_PANEL;
}

/* The float32 numbers of scratch that a tile of `rows` rows takes: queries, outputs, scores, three numbers a row, two
 * panels of keys and a block of values. */
static inline int64_t circius_tile_scratch(int64_t rows, int64_t head_dim) {
    int64_t padded = circius_padded(head_dim);
    return rows * (2 * padded + CIRCIUS_BLOCK) + 3 * ((rows + 15) / 16 * 16) +
           (2 * CIRCIUS_PANEL + CIRCIUS_BLOCK) * padded;
}

#endif
