/* Keys and values in a cache's format, as they come or as panels of float32, over v16: see attention_body.h. */
#include "attention_numbers.h"
#include "attention_products.h"

/* The most rows that take keys and values as they come, instead of panels made of them first. */
enum { FEW_ROWS = MOST_ROWS > 8 ? 8 : MOST_ROWS };

ALWAYS int64_t number_bytes(const int format) {
    return format == CIRCIUS_F32 ? 4 : format == CIRCIUS_I8 ? 1 : 2;
}

/* Asks for what will be read soon: the rows of the next block's keys and of this block's values that stand where the
 * sixteen keys at hand stand. Addresses behind a ring are never read, only asked for. */
ALWAYS void fetch(const int format, const char *const ahead[2], int64_t d) {
    const int lines = format == CIRCIUS_F32 ? 8 : format == CIRCIUS_I8 ? 2 : 4; /* of sixteen rows, for eight numbers */
    UNROLL for (int i = 0; i < lines; i++) {
        __builtin_prefetch(ahead[0] + 64 * (lines * (d / 8) + i));
        __builtin_prefetch(ahead[1] + 64 * (lines * (d / 8) + i));
    }
}

/* The scores of sixteen keys for a few rows, the keys turned round as they come. */
ALWAYS void score_few(const int rows, const int format, const float *queries, int64_t head_dim, const char *keys,
                      int64_t stride, float *scores, const char *const ahead[2]) {
    v16 sums[MOST_ROWS];
    UNROLL for (int r = 0; r < rows; r++)
        sums[r] = v16_zero();
    int64_t whole = head_dim / 8 * 8;
    for (int64_t d = 0; d < whole; d += 8) {
        _Alignas(64) char turned[4 * 8 * CIRCIUS_PANEL];
        fetch(format, ahead, d);
        turn_eight(format, keys + number_bytes(format) * d, stride, turned);
        UNROLL for (int i = 0; i < 8; i++) {
            v16 key = v16_load_turned(format, turned, i);
            UNROLL for (int r = 0; r < rows; r++)
                sums[r] = v16_fma(v16_set1(queries[r * head_dim + d + i]), key, sums[r]);
        }
    }
    for (int64_t d = whole; d < head_dim; d++) {
        float column[CIRCIUS_PANEL];
        for (int i = 0; i < CIRCIUS_PANEL; i++)
            column[i] = circius_get(keys + i * stride, format, d);
        UNROLL for (int r = 0; r < rows; r++)
            sums[r] = v16_fma(v16_set1(queries[r * head_dim + d]), v16_load(column), sums[r]);
    }
    UNROLL for (int r = 0; r < rows; r++)
        v16_store(scores + r * CIRCIUS_BLOCK, sums[r]);
}

/* Sixteen keys as a panel (D, 16), and its product with many rows. */
ALWAYS void score_many(int64_t rows, const int format, const float *queries, int64_t head_dim, const char *keys,
                       int64_t stride, float *scores, float *panel) {
    int64_t whole = head_dim / 8 * 8;
    for (int64_t d = 0; d < whole; d += 8) {
        _Alignas(64) char turned[4 * 8 * CIRCIUS_PANEL];
        turn_eight(format, keys + number_bytes(format) * d, stride, turned);
        UNROLL for (int i = 0; i < 8; i++)
            v16_store(panel + CIRCIUS_PANEL * (d + i), v16_load_turned(format, turned, i));
    }
    for (int64_t d = whole; d < head_dim; d++)
        for (int i = 0; i < CIRCIUS_PANEL; i++)
            panel[CIRCIUS_PANEL * d + i] = circius_get(keys + i * stride, format, d);
    products(rows, 1, queries, head_dim, panel, 0, 0, head_dim, scores, CIRCIUS_BLOCK, NULL);
}

#define SCORE_FEW(R)                                                                                                   \
    case R:                                                                                                            \
        score_few(R, format, queries, head_dim, keys, stride, scores, ahead);                                          \
        break;

ALWAYS void score_any(int64_t rows, const int format, const float *queries, int64_t head_dim, const char *keys,
                      int64_t stride, float *scores, const char *const ahead[2], float *panel) {
    switch (rows) {
        SCORE_FEW(1) SCORE_FEW(2) SCORE_FEW(3) SCORE_FEW(4)
#if MOST_ROWS > 4
        SCORE_FEW(5) SCORE_FEW(6)
#endif
#if MOST_ROWS > 6
        SCORE_FEW(7) SCORE_FEW(8)
#endif
    default: score_many(rows, format, queries, head_dim, keys, stride, scores, panel);
    }
}

#define SCORE_PANEL(NAME, FORMAT)                                                                                      \
    static void NAME(int64_t rows, const float *queries, int64_t head_dim, const char *keys, int64_t stride,           \
                     float *scores, const char *const ahead[2], float *panel) {                                        \
        score_any(rows, FORMAT, queries, head_dim, keys, stride, scores, ahead, panel);                                \
    }
SCORE_PANEL(score_f32, CIRCIUS_F32)
SCORE_PANEL(score_f16, CIRCIUS_F16)
SCORE_PANEL(score_bf16, CIRCIUS_BF16)
SCORE_PANEL(score_i8, CIRCIUS_I8)

static void (*const score_panel[])(int64_t, const float *, int64_t, const char *, int64_t, float *,
                                   const char *const[2], float *) = {score_f32, score_f16, score_bf16, score_i8};

/* Adds the values `begin` to `end` of a block, where they lie, to the outputs of a few rows. Eight values at a time go
 * through all of a head, so that they are read about as they stand in memory. */
ALWAYS void mix_few(const int rows, const int format, const float *weights, const char *const *values, int64_t begin,
                    int64_t end, float *out, int64_t head_dim, const float *factor) {
    if (begin >= end)
        return;
    int is_scaled = 0;
    for (int r = 0; r < rows; r++)
        is_scaled |= factor[r] != 1;
    for (int64_t first = begin; first < end; first += 8) {
        int64_t last = circius_min(first + 8, end);
        for (int64_t d = 0; d < head_dim; d += 16) {
            v16 sums[MOST_ROWS];
            UNROLL for (int r = 0; r < rows; r++)
                sums[r] = v16_load(out + r * head_dim + d);
            if (is_scaled)
                UNROLL for (int r = 0; r < rows; r++)
                    sums[r] = v16_mul(sums[r], v16_set1(factor[r]));
            for (int64_t k = first; k < last; k++) {
                v16 value = v16_load_as(format, values[k], d);
                UNROLL for (int r = 0; r < rows; r++)
                    sums[r] = v16_fma(v16_set1(weights[r * CIRCIUS_BLOCK + k]), value, sums[r]);
            }
            UNROLL for (int r = 0; r < rows; r++)
                v16_store(out + r * head_dim + d, sums[r]);
        }
        is_scaled = 0;
    }
}

#define MIX_FEW(R)                                                                                                     \
    case R:                                                                                                            \
        mix_few(R, format, weights, values, begin, end, out, head_dim, factor);                                        \
        break;

ALWAYS void mix_any(int64_t rows, const int format, const float *weights, const char *const *values, int64_t begin,
                    int64_t end, float *out, int64_t head_dim, const float *factor) {
    switch (rows) {
        MIX_FEW(1) MIX_FEW(2) MIX_FEW(3) MIX_FEW(4)
#if MOST_ROWS > 4
        MIX_FEW(5) MIX_FEW(6)
#endif
#if MOST_ROWS > 6
        MIX_FEW(7) MIX_FEW(8)
#endif
    }
}

#define MIX_VALUES(NAME, FORMAT)                                                                                       \
    static void NAME(int64_t rows, const float *weights, const char *const *values, int64_t begin, int64_t end,        \
                     float *out, int64_t head_dim, const float *factor) {                                              \
        mix_any(rows, FORMAT, weights, values, begin, end, out, head_dim, factor);                                     \
    }
MIX_VALUES(mix_f32, CIRCIUS_F32)
MIX_VALUES(mix_f16, CIRCIUS_F16)
MIX_VALUES(mix_bf16, CIRCIUS_BF16)
MIX_VALUES(mix_i8, CIRCIUS_I8)

static void (*const mix_values[])(int64_t, const float *, const char *const *, int64_t, int64_t, float *, int64_t,
                                  const float *) = {mix_f32, mix_f16, mix_bf16, mix_i8};
