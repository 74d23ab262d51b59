/* Eight float32 numbers side by side, on whatever this file is compiled for: AVX2, NEON or plain C. Every operation
 * gives the same bits on all of them, and sums are always formed in the same order. */
#ifndef CIRCIUS_LANES_H
#define CIRCIUS_LANES_H

#include <stdint.h>
#include <string.h>

#include "half.h"

#define CIRCIUS_INLINE static inline __attribute__((always_inline))

enum { CIRCIUS_LANES = 8 };

#if defined(__AVX2__) && !defined(CIRCIUS_PLAIN)
#include "lanes_avx2.h"
#elif defined(__aarch64__) && !defined(CIRCIUS_PLAIN)
#include "lanes_neon.h"
#else
#include "lanes_plain.h"
#endif

/* Eight numbers of any type from place `at` on, as float32. */
CIRCIUS_INLINE lanes lanes_widen(const void *numbers, int64_t at, int type) {
    if (type == CIRCIUS_FLOAT32)
        return lanes_load((const float *)numbers + at);
    const uint16_t *halves = (const uint16_t *)numbers + at;
    return type == CIRCIUS_FLOAT16 ? lanes_from_fp16(halves) : lanes_from_bf16(halves);
}

/* The first `n` (fewer than eight) numbers from place `at` on, then zeros; nothing past them is read. */
CIRCIUS_INLINE lanes lanes_widen_some(const void *numbers, int64_t at, int n, int type) {
    char padded[sizeof(float) * CIRCIUS_LANES] = {0};
    int64_t size = circius_number_bytes(type);
    memcpy(padded, (const char *)numbers + at * size, (size_t)(n * size));
    return lanes_widen(padded, 0, type);
}

#endif
