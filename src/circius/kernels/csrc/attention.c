/* Attention: what a call is cut into, where keys and values stand in the ring, and which instructions do the work. */
#include "attention.h"

#include <stddef.h>
#include <string.h>

#include "attention_kernels.h"
#include "cpu.h"

enum { TOKENS_OF_A_STAGE_ITEM = 16 };

static const struct circius_attention_kernels *kernels_in_use(void) {
#if defined(__x86_64__)
    switch (circius_isa()) {
    case CIRCIUS_AVX2: return &circius_attention_avx2;
    case CIRCIUS_AVX512: return &circius_attention_avx512;
    }
#elif defined(__aarch64__)
    if (circius_isa() == CIRCIUS_NEON)
        return &circius_attention_neon;
#endif
    return &circius_attention_portable;
}

int circius_attention_is_fast(void) {
#if defined(FP_FAST_FMAF) || defined(__FP_FAST_FMAF)
    return 1;
#else
    return circius_isa() != CIRCIUS_PORTABLE;
#endif
}

static int64_t rounded_up(int64_t bytes) {
    return (bytes + CIRCIUS_CACHE_LINE - 1) / CIRCIUS_CACHE_LINE * CIRCIUS_CACHE_LINE;
}

static int64_t scratch_bytes(int32_t n_heads, int32_t n_kv_heads, int32_t head_dim) {
    int64_t rows = circius_tile_rows(n_heads / n_kv_heads, head_dim);
    return rounded_up(4 * circius_tile_scratch(rows, head_dim));
}

static int64_t staged_numbers_bytes(int64_t n_tokens, int32_t n_kv_heads, int32_t head_dim) {
    return rounded_up(4 * n_tokens * n_kv_heads * head_dim); /* for any format; untouched pages cost nothing */
}

int64_t circius_attention_workspace(int64_t n_tokens, int32_t n_heads, int32_t n_kv_heads, int32_t head_dim,
                                    int32_t n_workers) {
    return n_workers * scratch_bytes(n_heads, n_kv_heads, head_dim) +
           2 * (staged_numbers_bytes(n_tokens, n_kv_heads, head_dim) + rounded_up(4 * n_tokens * n_kv_heads));
}

/* Whether the new tokens can go into the ring before the queries have read it: what they overwrite is out of sight. */
static int is_written_first(const struct circius_attention *a, const struct circius_attention_row *row) {
    int64_t end = row->start + row->n_tokens;
    return row->pages || end <= row->n_slots || (a->window > 0 && end - row->n_slots <= row->start - a->window + 1);
}

static int is_one_item(const struct circius_attention_row *row) {
    return row->n_tokens <= row->item_queries;
}

/* Whether new keys are read from the workspace: they are to be rounded, and the ring has no room for them yet. */
static int is_staged(const struct circius_attention *a, const struct circius_attention_row *row) {
    return row->keys && a->format != a->cache_format && !is_written_first(a, row);
}

/* Whether the table has a page for all that is read or written. */
static int has_pages(const struct circius_attention *a, const struct circius_attention_row *row) {
    int64_t oldest = a->window ? circius_max(0, row->start - a->window + 1) : 0;
    if (!row->keys || row->n_slots != CIRCIUS_BLOCK || row->first_page < 0 ||
        row->first_page > oldest / CIRCIUS_BLOCK ||
        (row->first_page + row->n_pages) * CIRCIUS_BLOCK < row->start + row->n_tokens)
        return 0;
    for (int64_t page = oldest / CIRCIUS_BLOCK; page < row->first_page + row->n_pages; page++)
        if (row->pages[page - row->first_page] < 0)
            return 0;
    return 1;
}

static int is_bad(const struct circius_attention *a) {
    if (!a || !a->query || !a->key || !a->value || !a->out || !a->rows || !a->workspace || a->n_rows < 1 ||
        a->n_workers < 1 || a->window < 0 || a->layer < 0)
        return 1;
    if (a->n_kv_heads < 1 || a->n_heads < 1 || a->n_heads % a->n_kv_heads || a->head_dim < 1 ||
        a->head_dim > CIRCIUS_MAX_HEAD_DIM)
        return 1;
    if (a->format < CIRCIUS_F32 || a->format > CIRCIUS_BF16 || a->cache_format < CIRCIUS_F32 ||
        a->cache_format > CIRCIUS_I8)
        return 1;
    for (int64_t i = 0; i < a->n_rows; i++) {
        const struct circius_attention_row *row = a->rows + i;
        if (row->start < 0 || row->n_tokens < 1 || row->first_token < 0 || !row->keys != !row->values)
            return 1;
        if (!row->keys && (row->start || a->format != a->cache_format))
            return 1;
        int lacks_scales = a->cache_format == CIRCIUS_I8 && (!row->key_scales || !row->value_scales);
        if (row->keys && (row->n_slots < 1 || lacks_scales))
            return 1;
        if (row->pages && !has_pages(a, row))
            return 1;
    }
    return 0;
}

int circius_attention_prepare(struct circius_attention_job *job, const struct circius_attention *args) {
    if (is_bad(args))
        return CIRCIUS_BAD_ARGUMENT;
    memset(job, 0, sizeof *job);
    job->args = *args;
    job->kernels = kernels_in_use();
    struct circius_attention *a = &job->args;
    int64_t group = a->n_heads / a->n_kv_heads;
    int64_t most = circius_max(1, circius_tile_rows(group, a->head_dim) / group);
    for (int64_t i = 0; i < a->n_rows; i++) {
        struct circius_attention_row *row = a->rows + i;
        int64_t n_blocks = (row->n_tokens + most - 1) / most;
        row->item_queries = (row->n_tokens + n_blocks - 1) / n_blocks; /* about equal ones */
        n_blocks = (row->n_tokens + row->item_queries - 1) / row->item_queries;
        row->first_item = job->n_items;
        job->n_items += n_blocks * a->n_kv_heads;
        job->n_tokens = circius_max(job->n_tokens, row->first_token + row->n_tokens);
        if (row->keys && n_blocks > 1) {
            job->needs_stage |= is_written_first(a, row) || is_staged(a, row);
            job->needs_keep |= !is_written_first(a, row);
        }
    }
    if (circius_attention_workspace(job->n_tokens, a->n_heads, a->n_kv_heads, a->head_dim, a->n_workers) >
        a->workspace_bytes)
        return CIRCIUS_BAD_ARGUMENT;
    job->scratch_bytes = scratch_bytes(a->n_heads, a->n_kv_heads, a->head_dim);
    int64_t numbers = staged_numbers_bytes(job->n_tokens, a->n_kv_heads, a->head_dim);
    int64_t scales = rounded_up(4 * job->n_tokens * a->n_kv_heads);
    job->staged_keys = a->workspace + a->n_workers * job->scratch_bytes;
    job->staged_values = job->staged_keys + numbers;
    job->staged_key_scales = (float *)(job->staged_values + numbers);
    job->staged_value_scales = (float *)((char *)job->staged_key_scales + scales);
    if (!a->window)
        a->window = INT64_MAX / 2;
    return CIRCIUS_OK;
}

/* One head's ring of keys or of values. */
struct head_ring {
    char *numbers;
    float *scales; /* null unless the cache holds codes */
};

static struct head_ring ring_of(const struct circius_attention *a, const struct circius_attention_row *row,
                                int64_t head, int is_value) {
    int64_t bytes = circius_format_bytes(a->cache_format) * a->head_dim * row->n_slots;
    struct head_ring ring = {(is_value ? row->values : row->keys) + a->layer * row->layer_bytes + head * bytes, NULL};
    if (a->cache_format == CIRCIUS_I8)
        ring.scales = (is_value ? row->value_scales : row->key_scales) + a->layer * row->layer_scales +
                      head * row->n_slots;
    return ring;
}

/* The page of a position; 0 in a ring. */
static int64_t page_of(const struct circius_attention_row *row, int64_t position) {
    return row->pages ? row->pages[position / CIRCIUS_BLOCK - row->first_page] : 0;
}

/* Rounds tokens `begin` to `end` of a row's new keys or values in one head, into the ring or into the workspace. */
static void round_tokens(const struct circius_attention_job *job, const struct circius_attention_row *row, int64_t head,
                         int is_value, int64_t begin, int64_t end) {
    const struct circius_attention *a = &job->args;
    int64_t in = circius_format_bytes(a->format), out = circius_format_bytes(a->cache_format);
    const char *from = is_value ? a->value : a->key;
    int64_t stride = is_value ? a->value_stride : a->key_stride;
    int64_t bytes = a->head_dim * out;
    int to_ring = is_written_first(a, row);
    struct head_ring ring = ring_of(a, row, head, is_value);
    char *staged = is_value ? job->staged_values : job->staged_keys;
    float *staged_scales = is_value ? job->staged_value_scales : job->staged_key_scales;
    for (int64_t i = begin; i < end; i++) {
        int64_t token = row->first_token + i, slot = (row->start + i) % row->n_slots, page = page_of(row, row->start + i);
        int64_t place = token * a->n_kv_heads + head;
        const char *numbers = from + (token * stride + head * a->head_dim) * in;
        if (to_ring)
            job->kernels->round(numbers, a->format, ring.numbers + page * row->page_bytes + slot * bytes,
                                a->cache_format, a->head_dim,
                                ring.scales ? ring.scales + page * row->page_scales + slot : NULL);
        else
            job->kernels->round(numbers, a->format, staged + place * bytes, a->cache_format, a->head_dim,
                                staged_scales + place);
    }
}

/* The new tokens of one head as they are read: from the caller's tensor or from the workspace. */
static struct circius_source source_of(const struct circius_attention_job *job, const struct circius_attention_row *row,
                                       int64_t head, int is_value) {
    const struct circius_attention *a = &job->args;
    int64_t bytes = circius_format_bytes(a->cache_format);
    struct circius_source source = {0};
    if (is_staged(a, row)) {
        int64_t place = row->first_token * a->n_kv_heads + head;
        source.fresh = (is_value ? job->staged_values : job->staged_keys) + place * a->head_dim * bytes;
        source.fresh_scales = (is_value ? job->staged_value_scales : job->staged_key_scales) + place;
        source.fresh_stride = a->n_kv_heads * a->head_dim * bytes;
        source.fresh_scale_stride = a->n_kv_heads;
    } else {
        int64_t stride = is_value ? a->value_stride : a->key_stride;
        source.fresh = (is_value ? a->value : a->key) + (row->first_token * stride + head * a->head_dim) * bytes;
        source.fresh_stride = stride * bytes;
    }
    if (row->keys) {
        struct head_ring ring = ring_of(a, row, head, is_value);
        source.ring = ring.numbers;
        source.ring_scales = ring.scales;
        source.ring_stride = a->head_dim * bytes;
    }
    return source;
}

/* Copies a row's last new tokens in one head, as they were read, into the ring. */
static void keep_tokens(const struct circius_attention_job *job, const struct circius_attention_row *row,
                        int64_t head) {
    for (int is_value = 0; is_value < 2; is_value++) {
        struct circius_source source = source_of(job, row, head, is_value);
        struct head_ring ring = ring_of(&job->args, row, head, is_value);
        for (int64_t i = circius_max(0, row->n_tokens - row->n_slots); i < row->n_tokens; i++) {
            int64_t slot = (row->start + i) % row->n_slots;
            memcpy(ring.numbers + slot * source.ring_stride, source.fresh + i * source.fresh_stride,
                   (size_t)source.ring_stride);
            if (ring.scales)
                ring.scales[slot] = source.fresh_scales[i * source.fresh_scale_stride];
        }
    }
}

static void attend_item(const struct circius_attention_job *job, const struct circius_attention_row *row, int64_t index,
                        float *scratch) {
    const struct circius_attention *a = &job->args;
    int64_t n_blocks = (row->n_tokens + row->item_queries - 1) / row->item_queries;
    int64_t head = index % a->n_kv_heads, group = a->n_heads / a->n_kv_heads;
    int64_t begin = (n_blocks - 1 - index / a->n_kv_heads) * row->item_queries; /* the longest ones first */
    int64_t token = row->first_token + begin, bytes = circius_format_bytes(a->format);
    int is_alone = n_blocks == 1 && row->keys;
    if (is_alone && (is_written_first(a, row) || is_staged(a, row)))
        for (int is_value = 0; is_value < 2; is_value++)
            round_tokens(job, row, head, is_value, 0, row->n_tokens);
    struct circius_tile tile = {
        .query = a->query + (token * a->query_stride + head * group * a->head_dim) * bytes,
        .out = a->out + (token * a->out_stride + head * group * a->head_dim) * bytes,
        .query_stride = a->query_stride * bytes,
        .out_stride = a->out_stride * bytes,
        .keys = source_of(job, row, head, 0),
        .values = source_of(job, row, head, 1),
        .new_from = row->keys && is_written_first(a, row) ? INT64_MAX : row->start,
        .n_slots = row->n_slots,
        .pages = row->pages,
        .first_page = row->first_page,
        .n_pages = row->n_pages,
        .page_bytes = row->page_bytes,
        .page_scales = row->page_scales,
        .first_position = row->start + begin,
        .n_queries = circius_min(row->item_queries, row->n_tokens - begin),
        .window = a->window,
        .group = (int32_t)group,
        .head_dim = a->head_dim,
        .format = a->format,
        .cache_format = a->cache_format,
    };
    job->kernels->attend(&tile, scratch);
    if (is_alone && !is_written_first(a, row))
        keep_tokens(job, row, head);
}

void circius_attention_stage(void *pointer, int worker, int n_workers) {
    (void)worker, (void)n_workers;
    struct circius_attention_job *job = pointer;
    const struct circius_attention *a = &job->args;
    int64_t ticket = circius_take(&job->stage), first = 0;
    for (int64_t i = 0; i < a->n_rows; i++) {
        const struct circius_attention_row *row = a->rows + i;
        if (!row->keys || is_one_item(row) || !(is_written_first(a, row) || is_staged(a, row)))
            continue;
        int64_t n_items = (row->n_tokens + TOKENS_OF_A_STAGE_ITEM - 1) / TOKENS_OF_A_STAGE_ITEM * a->n_kv_heads;
        for (; ticket < first + n_items; ticket = circius_take(&job->stage)) {
            int64_t head = (ticket - first) % a->n_kv_heads;
            int64_t begin = (ticket - first) / a->n_kv_heads * TOKENS_OF_A_STAGE_ITEM;
            int64_t end = circius_min(begin + TOKENS_OF_A_STAGE_ITEM, row->n_tokens);
            for (int is_value = 0; is_value < 2; is_value++)
                round_tokens(job, row, head, is_value, begin, end);
        }
        first += n_items;
    }
}

void circius_attention_mix(void *pointer, int worker, int n_workers) {
    (void)n_workers;
    struct circius_attention_job *job = pointer;
    float *scratch = (float *)(job->args.workspace + worker * job->scratch_bytes);
    int64_t i = 0;
    for (int64_t ticket; (ticket = circius_take(&job->mix)) < job->n_items;) {
        while (i + 1 < job->args.n_rows && ticket >= job->args.rows[i + 1].first_item)
            i++;
        attend_item(job, job->args.rows + i, ticket - job->args.rows[i].first_item, scratch);
    }
}

void circius_attention_keep(void *pointer, int worker, int n_workers) {
    (void)worker, (void)n_workers;
    struct circius_attention_job *job = pointer;
    const struct circius_attention *a = &job->args;
    for (int64_t ticket; (ticket = circius_take(&job->keep)) < a->n_rows * a->n_kv_heads;) {
        const struct circius_attention_row *row = a->rows + ticket / a->n_kv_heads;
        if (row->keys && !is_one_item(row) && !is_written_first(a, row))
            keep_tokens(job, row, ticket % a->n_kv_heads);
    }
}

int circius_attend(const struct circius_attention *args) {
    struct circius_attention_job job;
    int error = circius_attention_prepare(&job, args);
    if (error)
        return error;
    if (job.needs_stage)
        circius_parallel(circius_attention_stage, &job, args->n_workers);
    circius_parallel(circius_attention_mix, &job, args->n_workers);
    if (job.needs_keep)
        circius_parallel(circius_attention_keep, &job, args->n_workers);
    return CIRCIUS_OK;
}
