#include <immintrin.h>

#include "ceilings.h"

enum { CHAINS = 8, OPERATIONS = 2 * 32 * CHAINS };

int64_t circius_multiply_bytes_avx2(int64_t n_rounds, uint64_t *sum) {
    __m256i codes = _mm256_set1_epi8(1), inputs = _mm256_set1_epi8(-1);
    __m256i sums[CHAINS];
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm256_setzero_si256();
    for (int64_t round = 0; round < n_rounds; round++)
        for (int c = 0; c < CHAINS; c++) {
            __m256i product = _mm256_maddubs_epi16(codes, inputs);
            CIRCIUS_OPAQUE(product);
            sums[c] = _mm256_add_epi16(sums[c], product);
        }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm256_add_epi16(sums[0], sums[c]);
    *sum = (uint64_t)_mm256_extract_epi64(sums[0], 0);
    return OPERATIONS;
}
