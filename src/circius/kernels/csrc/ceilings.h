/* What the machine does at most, for benchmarks: reading memory, and multiplying bytes. Callers take the time. */
#ifndef CIRCIUS_CEILINGS_H
#define CIRCIUS_CEILINGS_H

#include <stdint.h>

/* Reads all of `memory` once, whose size is a multiple of 64; `sum` takes something that depends on every byte. */
int circius_read_memory(const void *memory, int64_t n_bytes, int n_workers, uint64_t *sum);

/* Multiplies and adds bytes in registers, `n_rounds` times on each worker, with the instructions of the kernels.
 * `n_operations` takes how many products and sums these were in all, 0 where there are no such instructions. */
int circius_multiply_bytes(int64_t n_rounds, int n_workers, int64_t *n_operations, uint64_t *sum);

/* The same on one worker: returns the operations of a round. */
int64_t circius_multiply_bytes_avx2(int64_t n_rounds, uint64_t *sum);
int64_t circius_multiply_bytes_avx512(int64_t n_rounds, uint64_t *sum);
int64_t circius_multiply_bytes_neon(int64_t n_rounds, uint64_t *sum);

/* The compiler cannot tell what became of a register named here, so it can neither drop nor merge what made it. */
#if defined(__x86_64__)
#define CIRCIUS_OPAQUE(vector) __asm__ volatile("" : "+v"(vector))
#else
#define CIRCIUS_OPAQUE(vector) __asm__ volatile("" : "+w"(vector))
#endif

#endif
