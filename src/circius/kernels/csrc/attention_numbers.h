/* Single numbers of the formats that caches and models use. */
#ifndef CIRCIUS_ATTENTION_NUMBERS_H
#define CIRCIUS_ATTENTION_NUMBERS_H

#include <stdint.h>
#include <string.h>

#include "attention.h"

#define CIRCIUS_F16_MAX 65504.0f

static inline float circius_float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t circius_bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float circius_f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00)
        return circius_float_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    /* Multiplying by 2^112 moves the exponent and normalises subnormal halves at once. */
    return circius_float_of_bits(sign | circius_bits_of_float(circius_float_of_bits(rest << 13) * 0x1p112f));
}

/* To the nearest, ties to even; past the largest half, to it. */
static inline uint16_t circius_f32_to_f16(float x) {
    uint32_t bits = circius_bits_of_float(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477fe000)
        return (uint16_t)(sign | 0x7bff);
    if (rest < 0x38800000) { /* subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits */
        float shifted = circius_float_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (circius_bits_of_float(shifted) - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

static inline float circius_bf16_to_f32(uint16_t top) {
    return circius_float_of_bits((uint32_t)top << 16);
}

static inline uint16_t circius_f32_to_bf16(float x) {
    uint32_t bits = circius_bits_of_float(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Number `index` of an array; for CIRCIUS_I8 its code. */
static inline float circius_get(const char *from, int format, int64_t index) {
    float x;
    uint16_t half;
    switch (format) {
    case CIRCIUS_F32:
        memcpy(&x, from + 4 * index, 4);
        return x;
    case CIRCIUS_F16:
        memcpy(&half, from + 2 * index, 2);
        return circius_f16_to_f32(half);
    case CIRCIUS_BF16:
        memcpy(&half, from + 2 * index, 2);
        return circius_bf16_to_f32(half);
    default:
        return (float)((const int8_t *)from)[index];
    }
}

static inline void circius_put(char *to, int format, int64_t index, float x) {
    uint16_t half;
    switch (format) {
    case CIRCIUS_F32:
        memcpy(to + 4 * index, &x, 4);
        return;
    case CIRCIUS_F16:
        half = circius_f32_to_f16(x);
        memcpy(to + 2 * index, &half, 2);
        return;
    default:
        half = circius_f32_to_bf16(x);
        memcpy(to + 2 * index, &half, 2);
    }
}

/* The nearest whole number, ties to even, of |x| < 2^21. */
static inline float circius_nearest(float x) {
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

#endif
