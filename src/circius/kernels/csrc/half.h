/* The number formats of plain tensors, and single 16-bit numbers from and to float32. */
#ifndef CIRCIUS_HALF_H
#define CIRCIUS_HALF_H

#include <stdint.h>
#include <string.h>

enum circius_number { CIRCIUS_FLOAT32 = 0, CIRCIUS_FLOAT16 = 1, CIRCIUS_BFLOAT16 = 2 };

static inline int64_t circius_number_bytes(int type) {
    return type == CIRCIUS_FLOAT32 ? 4 : 2;
}

static inline float circius_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t circius_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float circius_widen_bf16(uint16_t half) {
    return circius_from_bits((uint32_t)half << 16);
}

static inline float circius_widen_fp16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, rest = half & 0x7fffu;
    if (rest >= 0x7c00u) /* infinite, or not a number */
        return circius_from_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest < 0x400u) /* below the normal numbers: units of 2^-24 */
        return circius_from_bits(sign | circius_to_bits((float)rest * 0x1p-24f));
    return circius_from_bits(sign | ((rest << 13) + (112u << 23)));
}

/* To the nearest, ties to even; what is not a number stays so. */
static inline uint16_t circius_narrow_bf16(float value) {
    uint32_t bits = circius_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* The same; too great ones become infinite. */
static inline uint16_t circius_narrow_fp16(float value) {
    uint32_t bits = circius_to_bits(value), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (rest >> 13 & 0x3ffu));
    if (rest >= 0x477ff000u) /* from half a step above 65504 on */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* below the normal numbers: adding 0.5 leaves rounded units of 2^-24 in the low bits */
        float moved = circius_from_bits(rest) + 0.5f;
        return (uint16_t)(sign | (circius_to_bits(moved) - 0x3f000000u));
    }
    rest += 0xfffu + (rest >> 13 & 1u);
    return (uint16_t)(sign | (rest - (112u << 23)) >> 13);
}

#endif
