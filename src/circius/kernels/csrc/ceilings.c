#include "ceilings.h"

#include <stddef.h>

#include "cpu.h"
#include "pool.h"

enum { BLOCK_BYTES = 1 << 21, LINE_WORDS = 8 };

struct reading {
    const uint64_t *words;
    int64_t n_words;
    struct circius_tickets tickets;
    _Atomic uint64_t sum;
};

static void read_blocks(void *job, int worker, int n_workers) {
    struct reading *reading = job;
    const int64_t block = BLOCK_BYTES / (int64_t)sizeof(uint64_t);
    uint64_t sums[LINE_WORDS] = {0};
    (void)worker, (void)n_workers;
    for (int64_t begin; (begin = circius_take(&reading->tickets) * block) < reading->n_words;) {
        int64_t end = begin + block < reading->n_words ? begin + block : reading->n_words;
        for (int64_t i = begin; i < end; i += LINE_WORDS)
            for (int lane = 0; lane < LINE_WORDS; lane++)
                sums[lane] += reading->words[i + lane];
    }
    for (int lane = 1; lane < LINE_WORDS; lane++)
        sums[0] += sums[lane];
    atomic_fetch_add(&reading->sum, sums[0]);
}

int circius_read_memory(const void *memory, int64_t n_bytes, int n_workers, uint64_t *sum) {
    if (!memory || !sum || n_bytes < 0 || n_bytes % 64 || (uintptr_t)memory % sizeof(uint64_t) || n_workers < 1)
        return CIRCIUS_BAD_ARGUMENT;
    struct reading reading = {.words = memory, .n_words = n_bytes / (int64_t)sizeof(uint64_t)};
    circius_parallel(read_blocks, &reading, n_workers);
    *sum = reading.sum;
    return CIRCIUS_OK;
}

struct multiplying {
    int64_t (*multiply)(int64_t n_rounds, uint64_t *sum);
    int64_t n_rounds;
    _Atomic int64_t n_operations;
    _Atomic uint64_t sum;
};

static void multiply(void *job, int worker, int n_workers) {
    struct multiplying *multiplying = job;
    uint64_t sum = 0;
    (void)worker, (void)n_workers;
    atomic_fetch_add(&multiplying->n_operations, multiplying->multiply(multiplying->n_rounds, &sum) * multiplying->n_rounds);
    atomic_fetch_add(&multiplying->sum, sum);
}

int circius_multiply_bytes(int64_t n_rounds, int n_workers, int64_t *n_operations, uint64_t *sum) {
    if (n_rounds < 0 || n_workers < 1 || !n_operations || !sum)
        return CIRCIUS_BAD_ARGUMENT;
    struct multiplying multiplying = {.n_rounds = n_rounds};
    switch (circius_isa()) {
#if defined(__x86_64__)
    case CIRCIUS_AVX512:
        multiplying.multiply = circius_multiply_bytes_avx512;
        break;
    case CIRCIUS_AVX2:
        multiplying.multiply = circius_multiply_bytes_avx2;
        break;
#elif defined(__aarch64__)
    case CIRCIUS_NEON:
        multiplying.multiply = circius_multiply_bytes_neon;
        break;
#endif
    default:
        break;
    }
    if (multiplying.multiply)
        circius_parallel(multiply, &multiplying, n_workers);
    *n_operations = multiplying.n_operations;
    *sum = multiplying.sum;
    return CIRCIUS_OK;
}
