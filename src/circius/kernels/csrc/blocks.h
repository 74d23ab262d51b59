/* From blocks of quantised values that follow each other row by row, as in GGUF files, to the tiles of packed.py. Codes and
 * scales change their places and nothing else. */
#ifndef CIRCIUS_BLOCKS_H
#define CIRCIUS_BLOCKS_H

#include <stdint.h>

/* Where the parts of a block are, in bytes from its start. */
struct circius_block_form {
    int32_t n_bytes;
    int32_t n_values; /* a multiple of 32 */
    int32_t codes_at;
    int32_t run;      /* 0: a code is a byte. Else they are halves of bytes: the low halves of so many bytes, 16 or 32,
                         are neighbouring values, and their high halves the next ones */
    int32_t scale_at; /* a 16-bit number for the whole block, which then has 32 values; -1: there is none */
    int32_t min_at;   /* the same */
};

/* `rows` are blocks of n_inputs values, `row_bytes` apart; output o is row order[o], or row o if order is NULL. codes, scales
 * and mins are those of a packed matrix in groups of 32; scales and mins may be NULL where the form has none.
 * `odd` becomes 1 if a byte is -128 or a scale or minimum is not finite, which a packed matrix may not have, else 0. */
int circius_tile_blocks(const struct circius_block_form *form, const uint8_t *rows, int64_t row_bytes, const int64_t *order,
                        int64_t n_outputs, int64_t n_inputs, uint8_t *codes, uint16_t *scales, uint16_t *mins, int32_t *odd,
                        int n_workers);

#endif
