#include <immintrin.h>

#include "ceilings.h"

enum { CHAINS = 12, OPERATIONS = 2 * 64 * CHAINS };

int64_t circius_multiply_bytes_avx512(int64_t n_rounds, uint64_t *sum) {
    __m512i codes = _mm512_set1_epi8(1), inputs = _mm512_set1_epi8(-1);
    __m512i sums[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm512_setzero_si512();
    for (int64_t round = 0; round < n_rounds; round++)
        for (int c = 0; c < CHAINS; c++) {
            sums[c] = _mm512_dpbusd_epi32(sums[c], codes, inputs);
            CIRCIUS_OPAQUE(sums[c]);
        }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm512_add_epi32(sums[0], sums[c]);
    *sum = (uint64_t)(uint32_t)_mm512_reduce_add_epi32(sums[0]);
    return OPERATIONS;
}
