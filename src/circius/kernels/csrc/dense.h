/* Rows times a plain matrix in float32, float16 or bfloat16, read where it lies.
 *
 * The order of every sum is fixed, so neither the other rows, nor the other outputs, nor the threads change a bit of
 * it. The inputs go by blocks of 512, each by sixteens. Lane l of eight adds up inputs l and l + 8 of every sixteen,
 * with fused multiply-adds; if the matrix is bfloat16, inputs 2 l and 2 l + 1. Neighbouring lanes are added, then
 * neighbours of those, then the last two; the sums of the blocks are added in their order. The result is rounded once.
 */
#ifndef CIRCIUS_DENSE_H
#define CIRCIUS_DENSE_H

#include <stdint.h>

/* The matrix (n_outputs, n_inputs), and where its products (n_rows, n_outputs) go; both without gaps. */
struct circius_dense_matrix {
    const void *weight;
    void *y;
    int64_t n_outputs;
};

/* y = x @ weight.T for each of some matrices with the same inputs. `x` is (n_rows, n_inputs) in numbers of `x_type`,
 * which is also that of y, its rows `x_stride` numbers apart. */
int circius_dense(const void *x, int x_type, int64_t x_stride, int64_t n_rows, int64_t n_inputs,
                  const struct circius_dense_matrix *matrices, int64_t n_matrices, int weight_type, int n_threads);

/* From here on for the library itself. */
enum {
    DENSE_BLOCK = 512, /* inputs whose sums are formed in lanes */
    DENSE_PANEL = 3,   /* rows of x taken together ... */
    DENSE_GROUP = 4,   /* ... with as many outputs: twelve sums, which sixteen registers just hold */
    DENSE_STEP = 16,   /* inputs are padded with zeros to a multiple */
};

/* What is written for each set of instructions. A block of inputs is worked on at a time. */
struct dense_kernels {
    /* Adds to sums[row][output of the group] what a block gives for up to DENSE_PANEL rows. `weight` points to its
     * `n_inputs` inputs in each row of the matrix, and `next` to what will be wanted after them. */
    void (*multiply)(const float *x, int n_rows, const char *const *weight, const char *const *next, int n_inputs,
                     int type, float *sums);
    /* The same with weights that `widen` made; of what is wanted next, `next_bytes` from each place. */
    void (*multiply_wide)(const float *x, int n_rows, const float *wide, const char *const *next, int next_bytes,
                          int n_inputs, float *sums);
    /* Writes the inputs of a group in float32 in the order in which they are multiplied. Beside each other, that is:
     * in the matrix they lie whole pages apart and would drive each other out of the nearest cache. */
    void (*widen)(const char *const *weight, int n_inputs, int type, float *wide);
    /* Writes up to DENSE_PANEL rows as the products read x: eight numbers of the first row, those of the second, and
     * so on, then the next eight of each; as even and odd ones if the matrix is of bfloat16. */
    void (*arrange)(const char *const *rows, int n_rows, int n_inputs, int type, int weight_type, float *arranged);
    /* Rounds `n` numbers to `type`. */
    void (*narrow)(const float *from, int64_t n, int type, void *to);
};

extern const struct dense_kernels circius_dense_portable, circius_dense_avx2, circius_dense_neon;

#endif
