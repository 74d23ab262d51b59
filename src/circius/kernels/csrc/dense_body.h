/* The kernels of dense.h over lanes.h; a file for each set of instructions includes it and sets DENSE_KERNELS. */
#include "dense.h"
#include "lanes.h"

enum { PREFETCH_BYTES = 64 };

/* Eight of the sixteen weights of a step: of the first or the second half, or the even or the odd ones. */
CIRCIUS_INLINE lanes half_step(const char *weight, int64_t at, int second, int type) {
    if (type == CIRCIUS_FLOAT32)
        return lanes_load((const float *)(const void *)weight + at + 8 * second);
    const uint16_t *halves = (const uint16_t *)(const void *)weight + at;
    if (type == CIRCIUS_FLOAT16)
        return lanes_from_fp16(halves + 8 * second);
    return second ? lanes_odd_bf16(halves) : lanes_even_bf16(halves);
}

/* `n_rows` and `type` are constants wherever this is called, so that the sums stay in registers. */
CIRCIUS_INLINE void add_step(const float *x, int n_rows, const char *const *weight, int64_t at, int type,
                             lanes sum[DENSE_PANEL][DENSE_GROUP]) {
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

CIRCIUS_INLINE void multiply_as(const float *x, int n_rows, const char *const *weight, const char *const *next,
                                int n_inputs, int type, float *sums) {
    lanes sum[DENSE_PANEL][DENSE_GROUP];
    for (int row = 0; row < n_rows; row++)
        for (int output = 0; output < DENSE_GROUP; output++)
            sum[row][output] = lanes_all(0.0f);
    const int size = type == CIRCIUS_FLOAT32 ? 4 : 2;
    int at = 0;
    for (; at + DENSE_STEP <= n_inputs; at += DENSE_STEP, x += DENSE_STEP * n_rows) {
        if (type == CIRCIUS_FLOAT32 || at % (2 * DENSE_STEP) == 0)
            for (int output = 0; output < DENSE_GROUP; output++)
                __builtin_prefetch(next[output] + at * size);
        add_step(x, n_rows, weight, at, type, sum);
    }
    if (at < n_inputs) {
        char padded[DENSE_GROUP][DENSE_STEP * sizeof(float)] = {{0}};
        const char *rest[DENSE_GROUP];
        for (int output = 0; output < DENSE_GROUP; output++) {
            memcpy(padded[output], weight[output] + at * size, (size_t)((n_inputs - at) * size));
            rest[output] = padded[output];
        }
        add_step(x, n_rows, rest, 0, type, sum);
    }
    for (int row = 0; row < n_rows; row++)
        lanes_add_sums(sum[row][0], sum[row][1], sum[row][2], sum[row][3], sums + row * DENSE_GROUP);
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

const struct dense_kernels DENSE_KERNELS = {multiply, arrange, narrow};
