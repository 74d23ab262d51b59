/* Products of a few rows with a packed matrix, without rounding the rows: for the accurate mode. */
#ifndef CIRCIUS_FLOAT_LINEAR_H
#define CIRCIUS_FLOAT_LINEAR_H

#include "matmul.h"

enum { CIRCIUS_FLOAT_ROWS = 2 /* rows of one call of the kernel */ };

/* Rows arranged for the kernel. It takes four bits (or eight) out of each 32 where they stand, so they count 16 (or
 * 256) times as much at each place further up; the inputs come in that order and that much smaller. In a block of rows
 * the units of its rows alternate. */
struct circius_float_rows {
    float *inputs; /* 32 for each unit and row */
    float *sums;   /* of each unit and row, as they were given */
};

/* Whether this processor has a kernel for it. */
int circius_has_float_linear(void);

/* Row r of the result is x + r * x_stride times the matrix, in float32 with fused multiply-adds in an order that
 * depends on nothing but the matrix. */
int circius_float_linear(const float *x, int64_t x_stride, int64_t n_rows, const struct circius_product *product,
                         int n_workers);

/* One tile for a block of one or two rows, whose first place among `rows` is `at`. */
void circius_float_tile_avx2(const struct circius_matrix *matrix, int64_t tile, const struct circius_float_rows *rows,
                             int64_t at, int n_rows, float *y);

#endif
