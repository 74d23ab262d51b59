/* What a layer does to rows of float32 besides products and attention: normalise, rotate, gate, add.
 *
 * A row's result does not depend on the other rows or the number of threads, and has the same bits on every processor.
 */
#ifndef CIRCIUS_ROWS_H
#define CIRCIUS_ROWS_H

#include <stdint.h>

/* The work on one row, or on any part of it where every number stands for itself. A layer that runs on its own workers
 * calls these. `out` may be the same memory as an input, but not overlap one otherwise. */
struct circius_row_kernels {
    /* out = weight * (x / sqrt(mean(x^2) + eps)). The squares are added in 32 sums, number i in sum i mod 32; of those,
     * pairs 8 apart are added, then pairs 16 apart, then neighbours. */
    void (*rms_norm)(const float *x, const float *weight, float eps, int64_t n, float *out);
    /* Turns `n_heads` heads of `head_dim` numbers, each half of a head with the other, as model/rope.py does. */
    void (*rotate)(float *x, const float *cos, const float *sin, int64_t n_heads, int64_t head_dim);
    /* out = silu(gate) * up, silu(g) = g / (1 + exp(-g)); relative error of silu below 3e-7. */
    void (*silu_times)(const float *gate, const float *up, int64_t n, float *out);
    /* x += y. */
    void (*add)(float *x, const float *y, int64_t n);
};

/* For the processor, or what was forced. */
const struct circius_row_kernels *circius_row_kernels(void);

/* The same for many rows, on up to `n_threads` threads. Rows lie `..._stride` numbers apart. */
int circius_rms_norm(const float *x, int64_t x_stride, const float *weight, float eps, int64_t n_rows, int64_t n,
                     float *out, int64_t out_stride, int n_threads);
/* cos and sin: (n_rows, head_dim). */
int circius_rotate(float *x, int64_t x_stride, const float *cos, const float *sin, int64_t n_rows, int64_t n_heads,
                   int64_t head_dim, int n_threads);
int circius_silu_times(const float *gate, int64_t gate_stride, const float *up, int64_t up_stride, int64_t n_rows,
                       int64_t n, float *out, int64_t out_stride, int n_threads);
int circius_add_rows(float *x, int64_t x_stride, const float *y, int64_t y_stride, int64_t n_rows, int64_t n,
                     int n_threads);

/* From here on for the library itself. */
extern const struct circius_row_kernels circius_rows_portable, circius_rows_avx2, circius_rows_neon;

#endif
