/* The attention of one tile, written over `v16`, sixteen floats. A file for some instructions defines, before it
 * includes this one: v16 and its operations, v16_load_as and v16_store_as for the formats, turn_eight, MOST_ROWS (how
 * many rows of sixteen sums fit into its registers) and ALWAYS. */
#include "attention_kernels.h"
#include "attention_numbers.h"

#define UNROLL _Pragma("GCC unroll 16")

/* 2^x for x <= 0 and NaN, within an ulp; 0 below -125. Rounding adds 1.5 * 2^23, whose low bits then hold the whole
 * part; the rest is in -0.5..0.5 and goes through a polynomial that is exactly 1 at 0. */
ALWAYS v16 exp2_of(v16 x) {
    v16 shifted = v16_add(x, v16_set1(0x1.8p23f));
    v16 rest = v16_sub(x, v16_sub(shifted, v16_set1(0x1.8p23f)));
    v16 r = v16_set1(0x1.41fbbcp-13f);
    r = v16_fma(r, rest, v16_set1(0x1.5f3e52p-10f));
    r = v16_fma(r, rest, v16_set1(0x1.3b2d4cp-7f));
    r = v16_fma(r, rest, v16_set1(0x1.c6aee8p-5f));
    r = v16_fma(r, rest, v16_set1(0x1.ebfbdcp-3f));
    r = v16_fma(r, rest, v16_set1(0x1.62e430p-1f));
    r = v16_fma(r, rest, v16_set1(1.0f));
    return v16_zero_below(x, -125.0f, v16_exp2_scale(r, shifted));
}

/* out[r, i] = out * factor[r] (0 without factors) + the sum over steps, in order, of left[r, k] * panels[16 k + i], for
 * `panels` panels at `panel_stride` from each other. `rows` and `panels` are constants wherever this is inlined. */
ALWAYS void product(const int rows, const int panels, const float *left, int64_t left_stride, const float *right,
                    int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                    const float *factor) {
    v16 sums[MOST_ROWS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < panels; c++)
            sums[r * panels + c] = factor ? v16_mul(v16_load(out + r * out_stride + 16 * c), v16_set1(factor[r]))
                                          : v16_zero();
    for (int64_t k = begin; k < end; k++) {
        v16 loaded[4];
        UNROLL for (int c = 0; c < panels; c++)
            loaded[c] = v16_load(right + c * panel_stride + 16 * k);
        UNROLL for (int r = 0; r < rows; r++) {
            v16 one = v16_set1(left[r * left_stride + k]);
            UNROLL for (int c = 0; c < panels; c++)
                sums[r * panels + c] = v16_fma(one, loaded[c], sums[r * panels + c]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < panels; c++)
            v16_store(out + r * out_stride + 16 * c, sums[r * panels + c]);
}

#define PRODUCT(R, C)                                                                                                  \
    case 8 * R + C:                                                                                                    \
        product(R, C, left, left_stride, right, panel_stride, begin, end, out, out_stride, factor);                    \
        break;

static void product_of(int64_t rows, int64_t panels, const float *left, int64_t left_stride, const float *right,
                       int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                       const float *factor) {
    switch (8 * rows + panels) {
        PRODUCT(1, 1) PRODUCT(1, 4) PRODUCT(2, 1) PRODUCT(2, 2) PRODUCT(3, 1) PRODUCT(3, 2)
        PRODUCT(4, 1) PRODUCT(5, 1) PRODUCT(6, 1)
#if MOST_ROWS > 6
        PRODUCT(7, 1) PRODUCT(8, 1) PRODUCT(9, 1) PRODUCT(10, 1) PRODUCT(11, 1) PRODUCT(12, 1)
#endif
    }
}

/* The same for any number of rows and panels: rows in groups that are nearly equal; few rows take several panels at once,
 * so that there are always enough sums in flight. */
static void products(int64_t rows, int64_t panels, const float *left, int64_t left_stride, const float *right,
                     int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                     const float *factor) {
    int64_t groups = (rows + MOST_ROWS - 1) / MOST_ROWS, each = (rows + groups - 1) / groups;
    int64_t most = each == 1 ? 4 : each <= 3 ? 2 : 1, step;
    for (int64_t panel = 0; panel < panels; panel += step) {
        step = panels - panel >= most ? most : 1;
        for (int64_t r = 0; r < rows; r += each) {
            int64_t some = circius_min(each, rows - r);
            int64_t inner = some == each ? step : 1; /* a smaller last group: one panel after the other */
            for (int64_t p = panel; p < panel + step; p += inner)
                product_of(some, inner, left + r * left_stride, left_stride, right + p * panel_stride, panel_stride, begin,
                           end, out + r * out_stride + 16 * p, out_stride, factor ? factor + r : NULL);
        }
    }
}

/* A block's keys and values where they stand; positions that nobody sees point to zeros. */
struct block {
    const char *keys[CIRCIUS_BLOCK], *values[CIRCIUS_BLOCK];
    _Alignas(64) float key_scales[CIRCIUS_BLOCK], value_scales[CIRCIUS_BLOCK];
};

static const _Alignas(64) char zeros[4 * CIRCIUS_MAX_HEAD_DIM];

static void find_block(const struct circius_tile *t, int64_t base, int64_t begin, int64_t end, struct block *found) {
    int has_scales = t->cache_format == CIRCIUS_I8;
    if (begin > 0 || end < CIRCIUS_BLOCK)
        for (int k = 0; k < CIRCIUS_BLOCK; k++) {
            found->keys[k] = found->values[k] = zeros;
            found->key_scales[k] = found->value_scales[k] = 0;
        }
    int64_t slot = base + begin < t->new_from ? (base + begin) % t->n_slots : 0;
    for (int64_t k = begin; k < end; k++) {
        int64_t fresh = base + k - t->new_from;
        if (fresh < 0) {
            found->keys[k] = t->keys.ring + slot * t->keys.ring_stride;
            found->values[k] = t->values.ring + slot * t->values.ring_stride;
            if (has_scales) {
                found->key_scales[k] = t->keys.ring_scales[slot];
                found->value_scales[k] = t->values.ring_scales[slot];
            }
            slot = slot + 1 == t->n_slots ? 0 : slot + 1;
        } else {
            found->keys[k] = t->keys.fresh + fresh * t->keys.fresh_stride;
            found->values[k] = t->values.fresh + fresh * t->values.fresh_stride;
            if (has_scales) {
                found->key_scales[k] = t->keys.fresh_scales[fresh * t->keys.fresh_scale_stride];
                found->value_scales[k] = t->values.fresh_scales[fresh * t->values.fresh_scale_stride];
            }
        }
    }
}

/* The values of a block as panels, each 64 steps of sixteen numbers; the last panel is filled up with zeros. */
static void pack_values(const struct block *block, int format, int64_t head_dim, int64_t begin, int64_t end,
                        float *panels) {
    int64_t whole = head_dim / 16 * 16;
    for (int64_t k = begin; k < end; k++) {
        const char *row = block->values[k];
        for (int64_t d = 0; d < whole; d += 16)
            v16_store(panels + d * CIRCIUS_BLOCK + 16 * k, v16_load_as(format, row, d));
        if (whole < head_dim) {
            float *last = panels + whole * CIRCIUS_BLOCK + 16 * k;
            for (int64_t d = whole; d < whole + 16; d++)
                last[d - whole] = d < head_dim ? circius_get(row, format, d) : 0;
        }
    }
}

/* Scratch of one tile; R rows, the G heads of a query beside each other. */
struct scratch {
    float *queries;  /* (R, D), times log2(e) / sqrt(D) */
    float *outputs;  /* (R, D padded) */
    float *scores;   /* (R, 64), then probabilities */
    float *maximum, *sum, *factor; /* (R) */
    float *keys;     /* a panel of (D, 16) */
    float *values;   /* panels of (64, 16) */
    float *gathered; /* (16, D) of any format */
};

static struct scratch carve(float *memory, int64_t rows, int64_t head_dim) {
    int64_t padded = circius_padded(head_dim), rounded = (rows + 15) / 16 * 16;
    struct scratch s;
    s.queries = memory;
    s.outputs = s.queries + rows * padded;
    s.scores = s.outputs + rows * padded;
    s.maximum = s.scores + rows * CIRCIUS_BLOCK;
    s.sum = s.maximum + rounded;
    s.factor = s.sum + rounded;
    s.keys = s.factor + rounded;
    s.values = s.keys + CIRCIUS_PANEL * padded;
    s.gathered = s.values + CIRCIUS_BLOCK * padded;
    return s;
}

static void load_queries(const struct circius_tile *t, const struct scratch *s, float scale) {
    int64_t head_dim = t->head_dim, whole = head_dim / 16 * 16, padded = circius_padded(head_dim);
    int64_t bytes = circius_format_bytes(t->format) * head_dim;
    for (int64_t r = 0; r < t->n_queries * t->group; r++) {
        const char *from = t->query + r / t->group * t->query_stride + r % t->group * bytes;
        float *to = s->queries + r * head_dim;
        for (int64_t d = 0; d < whole; d += 16)
            v16_store(to + d, v16_mul(v16_load_as(t->format, from, d), v16_set1(scale)));
        for (int64_t d = whole; d < head_dim; d++)
            to[d] = circius_get(from, t->format, d) * scale;
        for (int64_t d = 0; d < padded; d += 16)
            v16_store(s->outputs + r * padded + d, v16_zero());
        s->maximum[r] = -__builtin_inff();
        s->sum[r] = 0;
    }
}

static void store_outputs(const struct circius_tile *t, const struct scratch *s) {
    int64_t head_dim = t->head_dim, whole = head_dim / 16 * 16, padded = circius_padded(head_dim);
    int64_t bytes = circius_format_bytes(t->format) * head_dim;
    for (int64_t r = 0; r < t->n_queries * t->group; r++) {
        char *to = t->out + r / t->group * t->out_stride + r % t->group * bytes;
        const float *from = s->outputs + r * padded;
        /* Adding zero makes every zero positive: its sign would depend on how many keys a block had. */
        for (int64_t d = 0; d < whole; d += 16)
            v16_store_as(t->format, to, d,
                         v16_add(v16_div(v16_load(from + d), v16_set1(s->sum[r])), v16_zero()));
        for (int64_t d = whole; d < head_dim; d++)
            circius_put(to, t->format, d, from[d] / s->sum[r] + 0.0f);
    }
}

ALWAYS int64_t number_bytes(const int format) {
    return format == CIRCIUS_F32 ? 4 : format == CIRCIUS_I8 ? 1 : 2;
}

/* Sixteen keys at equal distances: where they are, or copied where a ring ends or nobody sees some of them. */
static const char *gather(const char *const *keys, int64_t stride, int64_t bytes, float *copies) {
    int is_even = 1;
    for (int i = 2; i < CIRCIUS_PANEL; i++)
        is_even &= keys[i] - keys[i - 1] == stride;
    if (is_even)
        return keys[0];
    for (int i = 0; i < CIRCIUS_PANEL; i++)
        memcpy((char *)copies + i * bytes, keys[i], (size_t)bytes);
    return (const char *)copies;
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
ALWAYS void score_few(const int rows, const int format, const float *queries, int64_t head_dim, const char *keys, int64_t stride,
                      float *scores, const char *const ahead[2]) {
    v16 sums[MOST_ROWS];
    UNROLL for (int r = 0; r < rows; r++)
        sums[r] = v16_zero();
    int64_t whole = head_dim / 8 * 8;
    for (int64_t d = 0; d < whole; d += 8) {
        _Alignas(64) float turned[8 * CIRCIUS_PANEL];
        fetch(format, ahead, d);
        turn_eight(format, keys + number_bytes(format) * d, stride, turned);
        UNROLL for (int i = 0; i < 8; i++) {
            v16 key = v16_load(turned + CIRCIUS_PANEL * i);
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
ALWAYS void score_many(int64_t rows, const int format, const struct scratch *s, int64_t head_dim,
                       const char *keys, int64_t stride, float *scores) {
    int64_t whole = head_dim / 8 * 8;
    for (int64_t d = 0; d < whole; d += 8)
        turn_eight(format, keys + number_bytes(format) * d, stride, s->keys + CIRCIUS_PANEL * d);
    for (int64_t d = whole; d < head_dim; d++)
        for (int i = 0; i < CIRCIUS_PANEL; i++)
            s->keys[CIRCIUS_PANEL * d + i] = circius_get(keys + i * stride, format, d);
    products(rows, 1, s->queries, head_dim, s->keys, 0, 0, head_dim, scores, CIRCIUS_BLOCK, NULL);
}

#define SCORE_FEW(R)                                                                                                   \
    case R:                                                                                                            \
        score_few(R, format, s->queries, head_dim, keys, stride, scores, ahead);                                               \
        break;

ALWAYS void score_any(int64_t rows, const int format, const struct scratch *s, int64_t head_dim,
                      const char *keys, int64_t stride, float *scores, const char *const ahead[2]) {
    switch (rows) {
        SCORE_FEW(1) SCORE_FEW(2) SCORE_FEW(3) SCORE_FEW(4) SCORE_FEW(5) SCORE_FEW(6)
#if MOST_ROWS > 6
        SCORE_FEW(7) SCORE_FEW(8)
#endif
    default: score_many(rows, format, s, head_dim, keys, stride, scores);
    }
}

#define SCORE_PANEL(NAME, FORMAT)                                                                                      \
    static void NAME(int64_t rows, const struct scratch *s, int64_t head_dim, const char *keys, int64_t stride,        \
                     float *scores, const char *const ahead[2]) {                                                      \
        score_any(rows, FORMAT, s, head_dim, keys, stride, scores, ahead);                                             \
    }
SCORE_PANEL(score_f32, CIRCIUS_F32)
SCORE_PANEL(score_f16, CIRCIUS_F16)
SCORE_PANEL(score_bf16, CIRCIUS_BF16)
SCORE_PANEL(score_i8, CIRCIUS_I8)

static void (*const score_panel[])(int64_t, const struct scratch *, int64_t, const char *, int64_t, float *,
                                   const char *const[2]) = {score_f32, score_f16, score_bf16, score_i8};

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
        MIX_FEW(1) MIX_FEW(2) MIX_FEW(3) MIX_FEW(4) MIX_FEW(5) MIX_FEW(6)
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

/* Turns the scores of the keys `begin` to `end` of a block into probabilities, and all others into 0. */
ALWAYS void normalise(float *scores, const int is_whole, int begin, int end, const struct block *block,
                      const int has_scales, float *maximum, float *sum, float *factor) {
    v16 s[4];
    UNROLL for (int i = 0; i < 4; i++) {
        s[i] = v16_load(scores + 16 * i);
        if (has_scales)
            s[i] = v16_mul(s[i], v16_load(block->key_scales + 16 * i));
        if (!is_whole)
            s[i] = v16_only(s[i], begin - 16 * i, end - 16 * i);
    }
    float highest = v16_highest(v16_max(v16_max(s[0], s[1]), v16_max(s[2], s[3])));
    *factor = 1;
    if (highest > *maximum) {
        *factor = v16_first(exp2_of(v16_set1(*maximum - highest)));
        *maximum = highest;
    }
    v16 top = v16_set1(*maximum);
    UNROLL for (int i = 0; i < 4; i++)
        s[i] = exp2_of(v16_sub(s[i], top));
    *sum = fmaf(*sum, *factor, v16_sum(v16_add(v16_add(s[0], s[1]), v16_add(s[2], s[3]))));
    UNROLL for (int i = 0; i < 4; i++)
        v16_store(scores + 16 * i, has_scales ? v16_mul(s[i], v16_load(block->value_scales + 16 * i)) : s[i]);
}

static void normalise_rows(const struct circius_tile *t, const struct scratch *s, int64_t first_row, int64_t n_rows,
                           int begin, int end, const struct block *block) {
    int is_whole = begin == 0 && end == CIRCIUS_BLOCK, has_scales = t->cache_format == CIRCIUS_I8;
    for (int64_t r = first_row; r < first_row + n_rows; r++) {
        float *scores = s->scores + r * CIRCIUS_BLOCK;
        if (is_whole && !has_scales)
            normalise(scores, 1, 0, 64, block, 0, s->maximum + r, s->sum + r, s->factor + r);
        else if (is_whole)
            normalise(scores, 1, 0, 64, block, 1, s->maximum + r, s->sum + r, s->factor + r);
        else
            normalise(scores, 0, begin, end, block, has_scales, s->maximum + r, s->sum + r, s->factor + r);
    }
}

/* The most rows that take keys and values as they come, instead of panels made of them first. */
enum { FEW_ROWS = MOST_ROWS > 8 ? 8 : MOST_ROWS };

/* One block of keys, of which the positions from `base + begin` to `base + end` are seen by some query. */
static void add_block(const struct circius_tile *t, const struct scratch *s, int64_t base, int64_t begin, int64_t end) {
    struct block block;
    int64_t head_dim = t->head_dim, padded = circius_padded(head_dim), rows = t->n_queries * t->group;
    find_block(t, base, begin, end, &block);
    for (int64_t k = begin & -CIRCIUS_PANEL; k < end; k += CIRCIUS_PANEL) {
        const char *const ahead[] = {block.keys[k] + CIRCIUS_BLOCK * t->keys.ring_stride, block.values[k]};
        int64_t stride = block.keys[k + 1] - block.keys[k];
        const char *keys = gather(block.keys + k, stride, number_bytes(t->cache_format) * head_dim, s->gathered);
        if (keys == (const char *)s->gathered)
            stride = number_bytes(t->cache_format) * head_dim;
        score_panel[t->cache_format](rows, s, head_dim, keys, stride, s->scores + k, ahead);
    }
    int are_few = rows <= FEW_ROWS && padded == head_dim;
    if (!are_few)
        pack_values(&block, t->cache_format, head_dim, begin, end, s->values);
    int all_see_all = begin == 0 && end == CIRCIUS_BLOCK && t->first_position >= base + CIRCIUS_BLOCK - 1 &&
                      t->first_position + t->n_queries - 1 < base + t->window;
    /* At an edge each query takes exactly the keys that it sees. */
    int64_t step = all_see_all ? t->n_queries : 1, some = step * t->group;
    for (int64_t i = 0; i < t->n_queries; i += step) {
        int64_t position = t->first_position + i, row = i * t->group;
        int from = all_see_all ? 0 : (int)circius_max(0, position - t->window + 1 - base);
        int to = all_see_all ? CIRCIUS_BLOCK : (int)circius_min(CIRCIUS_BLOCK, position + 1 - base);
        if (from >= to)
            continue;
        float *weights = s->scores + row * CIRCIUS_BLOCK, *out = s->outputs + row * padded;
        normalise_rows(t, s, row, some, from, to, &block);
        if (are_few)
            mix_values[t->cache_format](some, weights, block.values, from, to, out, head_dim, s->factor + row);
        else
            products(some, padded / 16, weights, CIRCIUS_BLOCK, s->values, CIRCIUS_PANEL * CIRCIUS_BLOCK, from, to, out,
                     padded, s->factor + row);
    }
}

static void attend(const struct circius_tile *t, float *memory) {
    struct scratch s = carve(memory, t->n_queries * t->group, t->head_dim);
    load_queries(t, &s, 1.44269504088896340736f / sqrtf((float)t->head_dim));
    int64_t last = t->first_position + t->n_queries;
    int64_t first = circius_max(0, t->first_position - t->window + 1);
    for (int64_t base = first & -CIRCIUS_BLOCK; base < last; base += CIRCIUS_BLOCK)
        add_block(t, &s, base, circius_max(first - base, 0), circius_min(last - base, CIRCIUS_BLOCK));
    store_outputs(t, &s);
}

/* Codes of a head of a token: its largest number becomes 127. What is not finite makes the scale NaN, and with it
 * everything that sees the token. */
static void round_to_codes(const char *from, int from_format, int8_t *codes, int64_t n, float *scale) {
    float highest = 0;
    int is_finite = 1;
    for (int64_t i = 0; i < n; i++) {
        float size = fabsf(circius_get(from, from_format, i));
        is_finite &= size < __builtin_inff();
        highest = size > highest ? size : highest;
    }
    float factor = 127.0f / highest;
    *scale = is_finite ? highest / 127.0f : __builtin_nanf("");
    if (!is_finite || !(factor < __builtin_inff())) { /* zeros, or so near that their factor overflows */
        memset(codes, 0, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)circius_nearest(circius_get(from, from_format, i) * factor);
}

static void round_row(const char *from, int from_format, char *to, int to_format, int64_t n, float *scale) {
    if (to_format == CIRCIUS_I8) {
        round_to_codes(from, from_format, (int8_t *)to, n, scale);
        return;
    }
    int64_t whole = n / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16)
        v16_store_as(to_format, to, i, v16_load_as(from_format, from, i));
    for (int64_t i = whole; i < n; i++)
        circius_put(to, to_format, i, circius_get(from, from_format, i));
}
