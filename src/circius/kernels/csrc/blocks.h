/* From GGUF's blocks, which follow each other row by row, to the tiles of packed.py, in groups of 32.
 *
 * Q4_0, Q4_1 and Q8_0 only change their places, and so does Q5_0, whose codes are whole numbers that 8 bits hold. The codes
 * of Q4_K stay too, but the scales and minima of its units, products of a 16-bit and a 6-bit number, become 16-bit numbers.
 * The values of Q5_1, Q5_K and Q6_K are rounded to 8 bits. */
#ifndef CIRCIUS_BLOCKS_H
#define CIRCIUS_BLOCKS_H

#include <stdint.h>

/* By ggml's numbers. What a block holds is told in block_kinds.c. */
enum circius_block_id {
    CIRCIUS_Q4_0 = 2,
    CIRCIUS_Q4_1 = 3,
    CIRCIUS_Q5_0 = 6,
    CIRCIUS_Q5_1 = 7,
    CIRCIUS_Q8_0 = 8,
    CIRCIUS_Q4_K = 12,
    CIRCIUS_Q5_K = 13,
    CIRCIUS_Q6_K = 14
};

/* `rows` are blocks of n_inputs values, `row_bytes` apart; output o is row order[o], or row o if order is NULL. codes, scales
 * and mins (NULL where the kind has none) are those of a packed matrix.
 * told: (tiles, 2), the squares of what rounding changed and of the values, added up over the tile; one tile of sixteen is
 * looked at, the others have zeros. odd: 1 if a code is -128 or a scale or minimum is not finite, which a packed matrix may
 * not have, else 0. */
int circius_take_blocks(int kind, const uint8_t *rows, int64_t row_bytes, const int64_t *order, int64_t n_outputs,
                        int64_t n_inputs, uint8_t *codes, uint16_t *scales, uint16_t *mins, double *told, int32_t *odd,
                        int n_workers);

/* From here on for the library itself: where the parts of one block of output o go. */
struct circius_block_place {
    uint8_t *steps;   /* of its first unit */
    uint16_t *scales; /* of its first unit: the scale of unit u of output o is scales[16 * u + o] */
    uint16_t *mins;
    double *told; /* NULL: nobody asks */
    int o;
};

struct circius_block_kind {
    int id, n_bytes, n_values, bits, has_mins, is_rounded;
    /* Not 0 if the block is odd. */
    uint32_t (*take)(const uint8_t *block, const struct circius_block_place *to);
};

/* NULL if there is none of this number. */
const struct circius_block_kind *circius_block_kind(int id);

#endif
