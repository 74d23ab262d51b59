/* Attention over rolling caches and new tokens, by position: one operation for decoding, drafts and pre-fill.
 *
 * The numbers, the same in every path, so that a query's result never depends on how the work was cut:
 *   new keys and values are rounded to the cache's format before anybody reads them;
 *   keys are taken in blocks of 64 positions aligned to multiples of 64, in ascending order;
 *   a score is a chain of fused multiply-adds over d = 0 .. D-1 of query * log2(e)/sqrt(D) and key, in float32;
 *   a block's exponentials (base 2) are relative to the running maximum and summed in a fixed tree;
 *   the output is a chain of fused multiply-adds over the visible keys in ascending order.
 * Keys that a query does not see are never multiplied into anything: even a NaN there cannot leak.
 */
#ifndef CIRCIUS_ATTENTION_H
#define CIRCIUS_ATTENTION_H

#include <stdint.h>

#include "pool.h"

enum circius_format {
    CIRCIUS_F32 = 0,
    CIRCIUS_F16 = 1,  /* stores saturate at 65504 and make no infinities */
    CIRCIUS_BF16 = 2,
    CIRCIUS_I8 = 3,   /* codes -127..127 with one float32 scale for each token and head; caches only */
};

enum { CIRCIUS_BLOCK = 64, CIRCIUS_PANEL = 16, CIRCIUS_MAX_HEAD_DIM = 256 };

/* Some new tokens of one sequence, and what holds its past. In a ring position p stands in slot p mod n_slots. In pages
 * of CIRCIUS_BLOCK positions, which many sequences may share, it stands in slot p mod CIRCIUS_BLOCK of page
 * pages[p / CIRCIUS_BLOCK - first_page]; a page is (K, CIRCIUS_BLOCK, D), and n_slots is CIRCIUS_BLOCK. There must be
 * a page for each new token and for all that the first of them sees. */
struct circius_attention_row {
    char *keys, *values;               /* layer 0, (K, n_slots, D); null for a sequence without a past or a ring */
    float *key_scales, *value_scales;  /* layer 0, (K, n_slots); only for CIRCIUS_I8 */
    int64_t layer_bytes;               /* from one layer's ring to the next */
    int64_t layer_scales;              /* the same for scales, in numbers */
    int64_t n_slots;
    const int32_t *pages;              /* null for a ring */
    int64_t first_page, n_pages;       /* which positions the table begins with, in pages, and its length */
    int64_t page_bytes, page_scales;   /* from one page to the next, and the same for scales, in numbers */
    int64_t start;                     /* the position of the first new token */
    int64_t n_tokens;
    int64_t first_token;               /* where they stand on the axis of all rows' tokens */
    int64_t first_item;                /* filled in by circius_attention_prepare */
    int64_t item_queries;              /* the same */
};

struct circius_attention {
    const char *query, *key, *value;   /* (N, H, D), (N, K, D), (N, K, D), tokens at the strides below */
    char *out;                         /* (N, H, D), like the query */
    int64_t query_stride, key_stride, value_stride, out_stride; /* numbers from one token to the next */
    struct circius_attention_row *rows;
    int64_t n_rows;
    int64_t window;                    /* keys that a query sees, itself included; 0 for all */
    int64_t layer;                     /* index among the layers of the rings */
    char *workspace;                   /* circius_attention_workspace bytes, 64-byte aligned */
    int64_t workspace_bytes;
    int32_t n_heads, n_kv_heads, head_dim;
    int32_t format;                    /* of query, key, value and out */
    int32_t cache_format;              /* must be `format` for rows without rings */
    int32_t n_workers;
};

/* What the three stages share. Every stage is a work function; between two of them all workers must have finished. */
struct circius_attention_job {
    struct circius_attention args;
    const struct circius_attention_kernels *kernels;
    int64_t n_items, scratch_bytes, n_tokens;
    char *staged_keys, *staged_values; /* (N, K, D) in the cache's format */
    float *staged_key_scales, *staged_value_scales; /* (N, K) */
    int needs_stage, needs_keep;       /* whether the first and the last stage have anything to do */
    struct circius_tickets stage, mix, keep;
};

/* Checks the arguments and plans the work. */
int circius_attention_prepare(struct circius_attention_job *job, const struct circius_attention *args);

/* Puts new keys and values of rows cut into several items where `mix` reads them: the ring, or beside it. */
void circius_attention_stage(void *job, int worker, int n_workers);

/* Attention itself; rows of a single item (decoding, drafts) are staged and kept here too, head by head. */
void circius_attention_mix(void *job, int worker, int n_workers);

/* Writes into the ring what could not be written before the queries had read the old tokens. */
void circius_attention_keep(void *job, int worker, int n_workers);

/* All stages, on args->n_workers threads. */
int circius_attend(const struct circius_attention *args);

/* The workspace for up to `n_tokens` tokens in one call. */
int64_t circius_attention_workspace(int64_t n_tokens, int32_t n_heads, int32_t n_kv_heads, int32_t head_dim,
                                    int32_t n_workers);

/* Whether the fused multiply-adds are instructions; if not (an old processor) they are calls, and far too slow. */
int circius_attention_is_fast(void);

#endif
