/* The attention of one tile, written over `v16`, sixteen floats. A file for some instructions defines, before it
 * includes this one: v16 and its operations, v16_load_as and v16_store_as for the formats, turn_eight and
 * v16_load_turned, MOST_ROWS (how many rows of sixteen sums fit into its registers) and ALWAYS. */
#include "attention_kernels.h"
#include "attention_numbers.h"
#include "attention_panels.h"

/* A block's keys and values where they stand; positions that nobody sees point to zeros. */
struct block {
    const char *keys[CIRCIUS_BLOCK], *values[CIRCIUS_BLOCK];
    _Alignas(64) float key_scales[CIRCIUS_BLOCK], value_scales[CIRCIUS_BLOCK];
    int64_t to_next; /* bytes from a key to that of the next block, more or less: it is only asked for */
};

static const _Alignas(64) char zeros[4 * CIRCIUS_MAX_HEAD_DIM];

static void find_block(const struct circius_tile *t, int64_t base, int64_t begin, int64_t end, struct block *found) {
    int has_scales = t->cache_format == CIRCIUS_I8;
    if (begin > 0 || end < CIRCIUS_BLOCK)
        for (int k = 0; k < CIRCIUS_BLOCK; k++) {
            found->keys[k] = found->values[k] = zeros;
            found->key_scales[k] = found->value_scales[k] = 0;
        }
    int64_t slot = base + begin < t->new_from ? (base + begin) % t->n_slots : 0, page = 0;
    found->to_next = CIRCIUS_BLOCK * t->keys.ring_stride;
    if (t->pages) {
        int64_t at = base / CIRCIUS_BLOCK - t->first_page;
        page = t->pages[at];
        if (at + 1 < t->n_pages)
            found->to_next = (t->pages[at + 1] - page) * t->page_bytes;
    }
    const char *keys = t->keys.ring + page * t->page_bytes, *values = t->values.ring + page * t->page_bytes;
    for (int64_t k = begin; k < end; k++) {
        int64_t fresh = base + k - t->new_from;
        if (fresh < 0) {
            found->keys[k] = keys + slot * t->keys.ring_stride;
            found->values[k] = values + slot * t->values.ring_stride;
            if (has_scales) {
                found->key_scales[k] = t->keys.ring_scales[page * t->page_scales + slot];
                found->value_scales[k] = t->values.ring_scales[page * t->page_scales + slot];
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

/* The scores of sixteen keys of a block, for the queries that see any of them. */
static void add_scores(const struct circius_tile *t, const struct scratch *s, const struct block *block, int64_t base,
                       int64_t k) {
    int64_t bytes = number_bytes(t->cache_format) * t->head_dim, stride = block->keys[k + 1] - block->keys[k];
    const char *keys = gather(block->keys + k, stride, bytes, s->gathered);
    if (keys == (const char *)s->gathered)
        stride = bytes;
    const char *const ahead[] = {block->keys[k] + block->to_next, block->values[k]};
    int64_t first = circius_max(0, base + k - t->first_position);
    int64_t after = circius_min(t->n_queries, base + k + CIRCIUS_PANEL - 1 + t->window - t->first_position);
    int64_t row = first * t->group;
    if (first < after)
        score_panel[t->cache_format]((after - first) * t->group, s->queries + row * t->head_dim, t->head_dim, keys,
                                     stride, s->scores + row * CIRCIUS_BLOCK + k, ahead, s->keys);
}

/* One block of keys, of which the positions from `base + begin` to `base + end` are seen by some query. */
static void add_block(const struct circius_tile *t, const struct scratch *s, int64_t base, int64_t begin, int64_t end) {
    struct block block;
    int64_t head_dim = t->head_dim, padded = circius_padded(head_dim), rows = t->n_queries * t->group;
    find_block(t, base, begin, end, &block);
    for (int64_t k = begin & -CIRCIUS_PANEL; k < end; k += CIRCIUS_PANEL)
        add_scores(t, s, &block, base, k);
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
static void round_to_codes(const float *numbers, int8_t *codes, int64_t n, float *scale) {
    uint32_t bits = 0; /* of the largest size: those of positive floats are in their order, then infinity, then NaN */
    for (int64_t i = 0; i < n; i++) {
        uint32_t size = circius_bits_of_float(numbers[i]) & 0x7fffffff;
        bits = size > bits ? size : bits;
    }
    float highest = circius_float_of_bits(bits), factor = 127.0f / highest;
    int is_finite = bits < 0x7f800000;
    *scale = is_finite ? highest / 127.0f : __builtin_nanf("");
    if (!is_finite || !(factor < __builtin_inff())) { /* zeros, or so near that their factor overflows */
        memset(codes, 0, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)circius_nearest(numbers[i] * factor);
}

static void round_row(const char *from, int from_format, char *to, int to_format, int64_t n, float *scale) {
    if (from_format == to_format) {
        memcpy(to, from, (size_t)(n * circius_format_bytes(to_format)));
        return;
    }
    float wide[CIRCIUS_MAX_HEAD_DIM];
    int format = to_format == CIRCIUS_I8 ? CIRCIUS_F32 : to_format;
    char *target = to_format == CIRCIUS_I8 ? (char *)wide : to;
    int64_t whole = n / 16 * 16;
    for (int64_t i = 0; i < whole; i += 16)
        v16_store_as(format, target, i, v16_load_as(from_format, from, i));
    for (int64_t i = whole; i < n; i++)
        circius_put(target, format, i, circius_get(from, from_format, i));
    if (to_format == CIRCIUS_I8)
        round_to_codes(wide, (int8_t *)to, n, scale);
}
