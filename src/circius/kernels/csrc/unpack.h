/* Packed matrices as plain numbers. */
#ifndef CIRCIUS_UNPACK_H
#define CIRCIUS_UNPACK_H

#include "matmul.h"

/* The values of some tiles from `tile` on, `scale * (code - 8)`, `scale * code + min` or `scale * code` with every
 * operation rounded to float32, and then to `type` (CIRCIUS_FLOAT32 or CIRCIUS_BFLOAT16). Row o of `out` is output
 * 16 * tile + o, and begins `stride` numbers after the one before; outputs past the last of the matrix are left out. */
int circius_unpack(const struct circius_matrix *matrix, int64_t tile, int64_t n_tiles, int type, void *out,
                   int64_t stride, int n_workers);

/* The first `n_rows` outputs of one tile, row o at out[at + o * stride]. */
void circius_unpack_tile_avx2(const struct circius_matrix *matrix, int64_t tile, int n_rows, int type, void *out,
                              int64_t at, int64_t stride);

#endif
