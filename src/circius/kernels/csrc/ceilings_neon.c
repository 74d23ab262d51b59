#include <arm_neon.h>

#include "ceilings.h"

enum { CHAINS = 16, OPERATIONS = 2 * 16 * CHAINS };

int64_t circius_multiply_bytes_neon(int64_t n_rounds, uint64_t *sum) {
    int8x16_t codes = vdupq_n_s8(1), inputs = vdupq_n_s8(-1);
    int32x4_t sums[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        sums[c] = vdupq_n_s32(0);
    for (int64_t round = 0; round < n_rounds; round++)
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = vdotq_s32(sums[c], codes, inputs);
            CIRCIUS_OPAQUE(sums[c]);
        }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = vaddq_s32(sums[0], sums[c]);
    *sum = (uint64_t)(uint32_t)vaddvq_s32(sums[0]);
    return OPERATIONS;
}
