/* Products of rows in float32 with packed matrices of 4 or 8 bits, computed in whole numbers.
 *
 * The numbers are the same to the last bit on every processor, for any number of rows and threads. A row is cut into
 * units of 32 inputs. With amax the greatest absolute value of a unit, its scale is s = amax / 127 and its inputs
 * become a = round_half_even(x * (127 / amax)), all in float32; where 127 / amax is not finite, a = 0. An output starts
 * at 0, and each unit in ascending order adds
 *     y = fmaf(scale * s, (float)sum(code * a), y)        codes of symmetric 4 bits are taken minus 8
 *     y = fmaf(min, s * (float)sum(a), y)                 where there are minima
 * A unit with a number that is not finite has s = NaN, so all outputs of that row are NaN, and of no other.
 *
 * The layout of the matrices is told in packed.py. */
#ifndef CIRCIUS_MATMUL_H
#define CIRCIUS_MATMUL_H

#include <stddef.h>
#include <stdint.h>

#include "half.h"
#include "pool.h"

enum {
    CIRCIUS_TILE = 16,      /* outputs that lie together */
    CIRCIUS_UNIT = 32,      /* inputs that are added as whole numbers */
    CIRCIUS_STEP_BYTES = 64 /* the codes of all outputs of a tile for 8 inputs (4 bits) or 4 (8 bits) */
};

struct circius_matrix {
    const uint8_t *codes;
    const uint16_t *scales;
    const uint16_t *mins; /* NULL: symmetric */
    int64_t n_outputs;
    int64_t n_inputs;
    int64_t group; /* inputs that share a scale, a multiple of the unit */
    int32_t bits;
    int32_t scale_type; /* CIRCIUS_FLOAT16 or CIRCIUS_BFLOAT16 */
};

/* A matrix and where its results go: row r at out + r * stride. */
struct circius_product {
    struct circius_matrix matrix;
    float *out;
    int64_t stride;
};

/* Rows in whole numbers. A kernel takes them in blocks: as many as it can at once, and what is left in smaller powers
 * of two. In a block the units of its rows alternate, (units, rows of the block, ...), so that what is read together
 * lies together; a block begins where its first row would if each row lay for itself. */
struct circius_activations {
    int8_t *codes;   /* 32 for each unit and row: a */
    int16_t *wide;   /* the same in 16 bits, each four in the order 0 2 1 3; NULL where no kernel reads it */
    float *scales;   /* one for each unit and row: s */
    float *shifts;   /* s * (float)sum(a), for minima */
    int32_t *starts; /* where the sums of codes begin, so that 8 is taken off each; see the instruction set */
    int64_t n_inputs;
};

/* The rows of the next block, if `left` are left and at most `most`, a power of two, can be taken at once. */
static inline int circius_rows_at_once(int64_t left, int most) {
    while (most > left)
        most /= 2;
    return most;
}

enum { CIRCIUS_ROWS_PORTABLE = 1, CIRCIUS_ROWS_AVX2 = 4, CIRCIUS_ROWS_AVX512 = 8, CIRCIUS_ROWS_NEON = 4 };

/* Rounds one unit of a row, the 32 numbers at x, to place `at` of the scales, and 32 times that of the codes. */
typedef void (*circius_quantise)(const float *x, const struct circius_activations *to, int64_t at);

enum {
    CIRCIUS_MOST_ROWS = 128, /* rows, and tiles, of one call of a kernel */
    CIRCIUS_MOST_TILES = 2,
    CIRCIUS_Y_STRIDE = CIRCIUS_TILE * CIRCIUS_MOST_TILES
};

/* Writes the results of some rows and neighbouring tiles to y: row r, output o of these at
 * y[r * CIRCIUS_Y_STRIDE + o]. */
typedef void (*circius_tiles)(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                              const struct circius_activations *rows, int64_t row, int n_rows, float *y);

void circius_quantise_portable(const float *x, const struct circius_activations *to, int64_t at);
void circius_quantise_avx2(const float *x, const struct circius_activations *to, int64_t at);
void circius_quantise_avx512(const float *x, const struct circius_activations *to, int64_t at);

void circius_tiles_portable(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                           const struct circius_activations *rows, int64_t row, int n_rows, float *y);
void circius_tiles_avx2(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                       const struct circius_activations *rows, int64_t row, int n_rows, float *y);
void circius_tiles_avx512(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                         const struct circius_activations *rows, int64_t row, int n_rows, float *y);
void circius_tiles_neon(const struct circius_matrix *matrix, int64_t tile, int n_tiles,
                       const struct circius_activations *rows, int64_t row, int n_rows, float *y);

/* One call: `n_rows` rows of x, row r at x + r * x_stride, times every matrix. */
struct circius_linears {
    const float *x;
    int64_t x_stride;
    int64_t n_rows;
    const struct circius_product *products;
    int64_t n_products;
    /* filled in by circius_linears_prepare */
    struct circius_activations rows;
    int64_t tiles_per_ticket;
    struct circius_stage quantising;
    struct circius_tickets multiplying;
};

/* How much scratch a job needs, and making it ready to run with it; `n_rows` is at most CIRCIUS_LINEARS_MOST_ROWS. */
enum { CIRCIUS_LINEARS_MOST_ROWS = 512 };
size_t circius_linears_scratch(const struct circius_linears *job);
void circius_linears_prepare(struct circius_linears *job, void *scratch, int n_workers);

/* The work function: all workers call it with the same job. Results are complete when all have returned. */
void circius_linears_work(void *job, int worker, int n_workers);

/* Any number of rows, with threads and scratch of the library. */
int circius_packed_linears(const float *x, int64_t x_stride, int64_t n_rows, const struct circius_product *products,
                           int64_t n_products, int n_workers);

/* 0 if a kernel can take the matrix. */
int circius_check_matrix(const struct circius_matrix *matrix);

#endif
