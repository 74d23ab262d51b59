/* The kernels of rows.h over lanes.h; a file for each set of instructions includes it and sets ROW_KERNELS. */
#include <math.h>

#include "exp.h"
#include "lanes.h"
#include "rows.h"

/* For the last few numbers of a row: the same work on eight, of which `n` are there. */
CIRCIUS_INLINE lanes load_some(const float *from, int64_t n) {
    float padded[CIRCIUS_LANES] = {0};
    memcpy(padded, from, (size_t)n * sizeof(float));
    return lanes_load(padded);
}

CIRCIUS_INLINE void store_some(float *to, lanes x, int64_t n) {
    float padded[CIRCIUS_LANES];
    lanes_store(padded, x);
    memcpy(to, padded, (size_t)n * sizeof(float));
}

static float sum_of_squares(const float *x, int64_t n) {
    enum { N_SUMS = 4 };
    lanes sums[N_SUMS];
    for (int j = 0; j < N_SUMS; j++)
        sums[j] = lanes_all(0.0f);
    int64_t i = 0;
    for (; i + N_SUMS * CIRCIUS_LANES <= n; i += N_SUMS * CIRCIUS_LANES)
        for (int j = 0; j < N_SUMS; j++) {
            lanes part = lanes_load(x + i + j * CIRCIUS_LANES);
            sums[j] = lanes_fma(part, part, sums[j]);
        }
    for (int j = 0; i < n; i += CIRCIUS_LANES, j++) {
        lanes part = n - i < CIRCIUS_LANES ? load_some(x + i, n - i) : lanes_load(x + i);
        sums[j] = lanes_fma(part, part, sums[j]);
    }
    lanes all = lanes_add(lanes_add(sums[0], sums[1]), lanes_add(sums[2], sums[3]));
    float out[4] = {0};
    lanes_add_sums(all, all, all, all, out);
    return out[0];
}

static void rms_norm(const float *x, const float *weight, float eps, int64_t n, float *out) {
    const lanes scale = lanes_all(1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps));
    int64_t i = 0;
    for (; i + CIRCIUS_LANES <= n; i += CIRCIUS_LANES)
        lanes_store(out + i, lanes_multiply(lanes_load(weight + i), lanes_multiply(lanes_load(x + i), scale)));
    if (i < n)
        store_some(out + i,
                   lanes_multiply(load_some(weight + i, n - i), lanes_multiply(load_some(x + i, n - i), scale)), n - i);
}

static void rotate(float *x, const float *cos, const float *sin, int64_t n_heads, int64_t head_dim) {
    const int64_t half = head_dim / 2;
    for (float *first = x; first < x + n_heads * head_dim; first += head_dim) {
        float *second = first + half;
        int64_t i = 0;
        for (; i + CIRCIUS_LANES <= half; i += CIRCIUS_LANES) {
            lanes a = lanes_load(first + i), b = lanes_load(second + i);
            lanes turned_a =
                lanes_subtract(lanes_multiply(a, lanes_load(cos + i)), lanes_multiply(b, lanes_load(sin + i)));
            lanes turned_b =
                lanes_add(lanes_multiply(b, lanes_load(cos + half + i)), lanes_multiply(a, lanes_load(sin + half + i)));
            lanes_store(first + i, turned_a);
            lanes_store(second + i, turned_b);
        }
        for (; i < half; i++) {
            float a = first[i], b = second[i];
            first[i] = a * cos[i] - b * sin[i];
            second[i] = b * cos[half + i] + a * sin[half + i];
        }
    }
}

/* exp(-|g|) never grows large: silu(g) = g / (1 + e) for g >= 0, and g e / (1 + e) below. */
CIRCIUS_INLINE lanes silu_times_lanes(lanes gate, lanes up) {
    const lanes one = lanes_all(1.0f);
    const lanes e = lanes_exp_negative(lanes_subtract(lanes_all(0.0f), lanes_absolute(gate)));
    const lanes above = lanes_multiply(gate, lanes_by_sign(gate, one, e));
    return lanes_multiply(lanes_divide(above, lanes_add(one, e)), up);
}

static void silu_times(const float *gate, const float *up, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + CIRCIUS_LANES <= n; i += CIRCIUS_LANES)
        lanes_store(out + i, silu_times_lanes(lanes_load(gate + i), lanes_load(up + i)));
    if (i < n)
        store_some(out + i, silu_times_lanes(load_some(gate + i, n - i), load_some(up + i, n - i)), n - i);
}

static void add(float *x, const float *y, int64_t n) {
    int64_t i = 0;
    for (; i + CIRCIUS_LANES <= n; i += CIRCIUS_LANES)
        lanes_store(x + i, lanes_add(lanes_load(x + i), lanes_load(y + i)));
    for (; i < n; i++)
        x[i] += y[i];
}

const struct circius_row_kernels ROW_KERNELS = {rms_norm, rotate, silu_times, add};
