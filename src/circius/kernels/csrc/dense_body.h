/* The kernels of dense.h over lanes.h; a file for each set of instructions includes it and sets DENSE_KERNELS. */
#include "dense.h"
#include "lanes.h"

enum { LINE_BYTES = 64 };

/* Eight of the sixteen weights of a step: of the first or the second half, or the even or the odd ones. */
CIRCIUS_INLINE lanes half_step(const char *weight, int64_t at, int second, int type) {
    if (type == CIRCIUS_FLOAT32)
        return lanes_load((const float *)(const void *)weight + at + 8 * second);
    const uint16_t *halves = (const uint16_t *)(const void *)weight + at;
    if (type == CIRCIUS_FLOAT16)
        return lanes_from_fp16(halves + 8 * second);
    return second ? lanes_odd_bf16(halves) : lanes_even_bf16(halves);
}

typedef lanes panel_sums[DENSE_PANEL][DENSE_GROUP];

/* `n_rows` is a constant wherever this and the functions below are called, so that the sums stay in registers. */
CIRCIUS_INLINE void start_sums(panel_sums sum, int n_rows) {
    for (int row = 0; row < n_rows; row++)
        for (int output = 0; output < DENSE_GROUP; output++)
            sum[row][output] = lanes_all(0.0f);
}

CIRCIUS_INLINE void finish_sums(panel_sums sum, int n_rows, float *sums) {
    for (int row = 0; row < n_rows; row++)
        lanes_add_sums(sum[row][0], sum[row][1], sum[row][2], sum[row][3], sums + row * DENSE_GROUP);
}

CIRCIUS_INLINE void add_step(const float *x, int n_rows, const char *const *weight, int64_t at, int type,
                             panel_sums sum) {
    for (int second = 0; second < 2; second++) {
        lanes rows[DENSE_PANEL];
        for (int row = 0; row < n_rows; row++)
            rows[row] = lanes_load(x + (second * n_rows + row) * CIRCIUS_LANES);
        for (int output = 0; output < DENSE_GROUP; output++) {
            lanes w = half_step(weight[output], at, second, type);
            for (int row = 0; row < n_rows; row++)
                sum[row][output] = lanes_fma(rows[row], w, sum[row][output]);
        }
    }
}

/* The last inputs of a group, fewer than a step, with zeros after them. */
CIRCIUS_INLINE void pad_step(const char *const *weight, int64_t at, int n, int64_t size,
                             char padded[DENSE_GROUP][DENSE_STEP * sizeof(float)], const char **places) {
    for (int output = 0; output < DENSE_GROUP; output++) {
        memset(padded[output], 0, DENSE_STEP * sizeof(float));
        memcpy(padded[output], weight[output] + at * size, (size_t)(n * size));
        places[output] = padded[output];
    }
}

CIRCIUS_INLINE void multiply_as(const float *x, int n_rows, const char *const *weight, const char *const *next,
                                int n_inputs, int type, float *sums) {
    const int size = type == CIRCIUS_FLOAT32 ? 4 : 2;
    panel_sums sum;
    start_sums(sum, n_rows);
    int at = 0;
    for (; at + DENSE_STEP <= n_inputs; at += DENSE_STEP, x += DENSE_STEP * n_rows) {
        if (at * size % LINE_BYTES == 0)
            for (int output = 0; output < DENSE_GROUP; output++)
                __builtin_prefetch(next[output] + at * size);
        add_step(x, n_rows, weight, at, type, sum);
    }
    if (at < n_inputs) {
        char padded[DENSE_GROUP][DENSE_STEP * sizeof(float)];
        const char *rest[DENSE_GROUP];
        pad_step(weight, at, n_inputs - at, size, padded, rest);
        add_step(x, n_rows, rest, 0, type, sum);
    }
    finish_sums(sum, n_rows, sums);
}

#define MULTIPLY_AS(TYPE)                                                                                              \
    switch (n_rows) {                                                                                                  \
    case 1: multiply_as(x, 1, weight, next, n_inputs, TYPE, sums); break;                                              \
    case 2: multiply_as(x, 2, weight, next, n_inputs, TYPE, sums); break;                                              \
    default: multiply_as(x, 3, weight, next, n_inputs, TYPE, sums);                                                    \
    }

static void multiply(const float *x, int n_rows, const char *const *weight, const char *const *next, int n_inputs,
                     int type, float *sums) {
    if (type == CIRCIUS_BFLOAT16)
        MULTIPLY_AS(CIRCIUS_BFLOAT16)
    else if (type == CIRCIUS_FLOAT16)
        MULTIPLY_AS(CIRCIUS_FLOAT16)
    else
        MULTIPLY_AS(CIRCIUS_FLOAT32)
}

CIRCIUS_INLINE void multiply_wide_rows(const float *x, int n_rows, const float *wide, const char *const *next,
                                       int next_bytes, int n_inputs, float *sums) {
    panel_sums sum;
    start_sums(sum, n_rows);
    for (int step = 0; step * DENSE_STEP < n_inputs; step++) {
        if (step * LINE_BYTES < next_bytes)
            for (int output = 0; output < DENSE_GROUP; output++)
                __builtin_prefetch(next[output] + step * LINE_BYTES, 0, 2); /* into the second cache */
        for (int second = 0; second < 2; second++, x += CIRCIUS_LANES * n_rows, wide += CIRCIUS_LANES * DENSE_GROUP) {
            lanes rows[DENSE_PANEL];
            for (int row = 0; row < n_rows; row++)
                rows[row] = lanes_load(x + row * CIRCIUS_LANES);
            for (int output = 0; output < DENSE_GROUP; output++) {
                lanes w = lanes_load(wide + output * CIRCIUS_LANES);
                for (int row = 0; row < n_rows; row++)
                    sum[row][output] = lanes_fma(rows[row], w, sum[row][output]);
            }
        }
    }
    finish_sums(sum, n_rows, sums);
}

static void multiply_wide(const float *x, int n_rows, const float *wide, const char *const *next, int next_bytes,
                          int n_inputs, float *sums) {
    switch (n_rows) {
    case 1: multiply_wide_rows(x, 1, wide, next, next_bytes, n_inputs, sums); break;
    case 2: multiply_wide_rows(x, 2, wide, next, next_bytes, n_inputs, sums); break;
    default: multiply_wide_rows(x, 3, wide, next, next_bytes, n_inputs, sums);
    }
}

CIRCIUS_INLINE void widen_step(const char *const *weight, int64_t at, int type, float *wide) {
    for (int second = 0; second < 2; second++)
        for (int output = 0; output < DENSE_GROUP; output++)
            lanes_store(wide + (second * DENSE_GROUP + output) * CIRCIUS_LANES,
                        half_step(weight[output], at, second, type));
}

CIRCIUS_INLINE void widen_as(const char *const *weight, int n_inputs, int type, float *wide) {
    int at = 0;
    for (; at + DENSE_STEP <= n_inputs; at += DENSE_STEP, wide += DENSE_STEP * DENSE_GROUP)
        widen_step(weight, at, type, wide);
    if (at < n_inputs) {
        char padded[DENSE_GROUP][DENSE_STEP * sizeof(float)];
        const char *rest[DENSE_GROUP];
        pad_step(weight, at, n_inputs - at, circius_number_bytes(type), padded, rest);
        widen_step(rest, 0, type, wide);
    }
}

static void widen(const char *const *weight, int n_inputs, int type, float *wide) {
    if (type == CIRCIUS_BFLOAT16)
        widen_as(weight, n_inputs, CIRCIUS_BFLOAT16, wide);
    else if (type == CIRCIUS_FLOAT16)
        widen_as(weight, n_inputs, CIRCIUS_FLOAT16, wide);
    else
        widen_as(weight, n_inputs, CIRCIUS_FLOAT32, wide);
}

static void arrange(const char *const *rows, int n_rows, int n_inputs, int type, int weight_type, float *arranged) {
    const int64_t size = circius_number_bytes(type);
    for (int row = 0; row < n_rows; row++) {
        float *to = arranged + row * CIRCIUS_LANES;
        for (int at = 0; at < n_inputs; at += DENSE_STEP, to += DENSE_STEP * n_rows) {
            char padded[DENSE_STEP * sizeof(float)] = {0};
            const char *from = rows[row] + at * size;
            if (n_inputs - at < DENSE_STEP)
                from = memcpy(padded, from, (size_t)((n_inputs - at) * size));
            lanes first = lanes_widen(from, 0, type), second = lanes_widen(from, CIRCIUS_LANES, type);
            if (weight_type == CIRCIUS_BFLOAT16)
                lanes_part(&first, &second);
            lanes_store(to, first);
            lanes_store(to + n_rows * CIRCIUS_LANES, second);
        }
    }
}

static void narrow(const float *from, int64_t n, int type, void *to) {
    if (type == CIRCIUS_FLOAT32)
        memcpy(to, from, (size_t)n * sizeof(float));
    else if (type == CIRCIUS_BFLOAT16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = circius_narrow_bf16(from[i]);
    else
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = circius_narrow_fp16(from[i]);
}

const struct dense_kernels DENSE_KERNELS = {multiply, multiply_wide, widen, arrange, narrow};
