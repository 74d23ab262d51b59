/* What the blocks of each kind hold, after ggml's ggml-common.h: (bytes) name. Halves of bytes hold two codes: the low halves
 * of 16 or 32 bytes are neighbouring values, their high halves the next ones. */
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "half.h"
#include "matmul.h"

enum { UNITS_OF_256 = 8 };
static const uint32_t LOW_HALVES = 0x0f0f0f0f, HIGH_HALVES = 0xf0f0f0f0;

static uint32_t load_word(const uint8_t *from) {
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static float load_half(const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    return circius_widen_fp16(half);
}

/* Word o of step `step`. */
static void store_word(const struct circius_block_place *to, int step, uint32_t word) {
    memcpy(to->steps + step * CIRCIUS_STEP_BYTES + 4 * to->o, &word, sizeof word);
}

/* Not 0 if the 16-bit number is not finite. */
static uint32_t store_half(uint16_t *numbers, int unit, int o, uint16_t half) {
    numbers[unit * CIRCIUS_TILE + o] = half;
    return (half & 0x7c00) == 0x7c00;
}

static uint32_t copy_half(uint16_t *numbers, int o, const uint8_t *from) {
    uint16_t half;
    memcpy(&half, from, sizeof half);
    return store_half(numbers, 0, o, half);
}

/* `run` bytes of halves, from step `step` on: two words make one step of their low halves and one of their high halves. */
static inline void place_halves(const uint8_t *from, int run, int step, const struct circius_block_place *to) {
    for (int pair = 0; pair < run / 8; pair++) {
        uint32_t first = load_word(from + 8 * pair), second = load_word(from + 8 * pair + 4);
        store_word(to, step + pair, (first & LOW_HALVES) | (second & LOW_HALVES) << 4);
        store_word(to, step + run / 8 + pair, (first >> 4 & LOW_HALVES) | (second & HIGH_HALVES));
    }
}

/* The codes of a unit of 8 bits; not 0 if one is -128. */
static uint32_t place_bytes(const uint8_t *from, int unit, const struct circius_block_place *to) {
    uint32_t odd = 0;
    for (int step = 0; step < CIRCIUS_UNIT / 4; step++) {
        uint32_t word = load_word(from + 4 * step), zero_where_odd = word ^ 0x80808080u;
        odd |= (zero_where_odd - 0x01010101u) & ~zero_where_odd & 0x80808080u;
        store_word(to, unit * (CIRCIUS_UNIT / 4) + step, word);
    }
    return odd;
}

/* (2) scale (16) halves */
static uint32_t take_q4_0(const uint8_t *block, const struct circius_block_place *to) {
    place_halves(block + 2, 16, 0, to);
    return copy_half(to->scales, to->o, block);
}

/* (2) scale (2) minimum (16) halves */
static uint32_t take_q4_1(const uint8_t *block, const struct circius_block_place *to) {
    place_halves(block + 4, 16, 0, to);
    return copy_half(to->scales, to->o, block) | copy_half(to->mins, to->o, block + 2);
}

/* (2) scale (32) codes */
static uint32_t take_q8_0(const uint8_t *block, const struct circius_block_place *to) {
    return place_bytes(block + 2, 0, to) | copy_half(to->scales, to->o, block);
}

/* The five-bit codes of 32 values: a fifth bit each in (4), then (16) halves. */
static void codes_of_five(const uint8_t *fifths, const uint8_t *halves, uint8_t *codes) {
    uint32_t fifth = load_word(fifths);
    for (int i = 0; i < 16; i++) {
        codes[i] = (uint8_t)((halves[i] & 15) | (fifth >> i & 1) << 4);
        codes[16 + i] = (uint8_t)(halves[i] >> 4 | (fifth >> (16 + i) & 1) << 4);
    }
}

/* (2) scale (4) fifth bits (16) halves; 16 is zero */
static uint32_t take_q5_0(const uint8_t *block, const struct circius_block_place *to) {
    uint8_t codes[CIRCIUS_UNIT];
    codes_of_five(block + 2, block + 6, codes);
    for (int i = 0; i < CIRCIUS_UNIT; i++)
        codes[i] = (uint8_t)(codes[i] - 16);
    return place_bytes(codes, 0, to) | copy_half(to->scales, to->o, block);
}

static void tell(const struct circius_block_place *to, float found, float exact) {
    double difference = (double)found - exact;
    to->told[0] += difference * difference;
    to->told[1] += (double)exact * exact;
}

/* The values of a unit to the nearest codes of 8 bits. */
static uint32_t round_unit(const float *values, int unit, const struct circius_block_place *to) {
    float greatest = 0;
    uint32_t odd = 0;
    for (int i = 0; i < CIRCIUS_UNIT; i++) {
        greatest = fmaxf(greatest, fabsf(values[i]));
        odd |= !isfinite(values[i]);
    }
    uint16_t half = circius_narrow_fp16(greatest / 127.0f);
    float scale = circius_widen_fp16(half);
    int8_t codes[CIRCIUS_UNIT];
    for (int i = 0; i < CIRCIUS_UNIT; i++) {
        float code = scale > 0 ? rintf(values[i] / scale) : 0;
        codes[i] = (int8_t)(code > 127 ? 127 : code > -127 ? code : -127); /* so NaN has a code */
    }
    for (int i = 0; to->told && i < CIRCIUS_UNIT; i++)
        tell(to, codes[i] * scale, values[i]);
    place_bytes((const uint8_t *)codes, unit, to);
    return store_half(to->scales, unit, to->o, half) | odd;
}

/* (2) scale (2) minimum (4) fifth bits (16) halves */
static uint32_t take_q5_1(const uint8_t *block, const struct circius_block_place *to) {
    float scale = load_half(block), min = load_half(block + 2), values[CIRCIUS_UNIT];
    uint8_t codes[CIRCIUS_UNIT];
    codes_of_five(block + 4, block + 8, codes);
    for (int i = 0; i < CIRCIUS_UNIT; i++)
        values[i] = scale * codes[i] + min;
    return round_unit(values, 0, to);
}

/* The scales and minima of the eight units of a K block, in float32: (2) scale (2) minimum (12) six bits for each of both.
 * The first four of either are the low six bits of the bytes 0 to 3 and 4 to 7; of the others, four bits are in the
 * bytes 8 to 11 and two at the top of those. Minima are taken off. */
static void six_bits(const uint8_t *block, float *scales, float *mins) {
    float scale = load_half(block), min = load_half(block + 2);
    const uint8_t *six = block + 4;
    for (int unit = 0; unit < 4; unit++) {
        scales[unit] = scale * (six[unit] & 63);
        mins[unit] = min * (six[unit + 4] & 63);
        scales[unit + 4] = scale * ((six[unit + 8] & 15) | (six[unit] >> 6) << 4);
        mins[unit + 4] = min * (six[unit + 8] >> 4 | (six[unit + 4] >> 6) << 4);
    }
}

/* (16) scales and minima (128) halves */
static uint32_t take_q4_k(const uint8_t *block, const struct circius_block_place *to) {
    float scales[UNITS_OF_256], mins[UNITS_OF_256];
    uint32_t odd = 0;
    six_bits(block, scales, mins);
    for (int unit = 0; unit < UNITS_OF_256; unit++) {
        uint16_t scale = circius_narrow_fp16(scales[unit]), min = circius_narrow_fp16(-mins[unit]);
        odd |= store_half(to->scales, unit, to->o, scale) | store_half(to->mins, unit, to->o, min);
        for (int i = 0; to->told && i < CIRCIUS_UNIT; i++) {
            uint8_t both = block[16 + unit / 2 * 32 + i], code = unit % 2 ? both >> 4 : both & 15;
            tell(to, code * circius_widen_fp16(scale) + circius_widen_fp16(min), code * scales[unit] - mins[unit]);
        }
    }
    for (int run = 0; run < 4; run++)
        place_halves(block + 16 + 32 * run, 32, 8 * run, to);
    return odd;
}

/* (16) scales and minima (32) fifth bits, bit u of byte i for value i of unit u (128) halves */
static uint32_t take_q5_k(const uint8_t *block, const struct circius_block_place *to) {
    float scales[UNITS_OF_256], mins[UNITS_OF_256], values[CIRCIUS_UNIT];
    uint32_t odd = 0;
    six_bits(block, scales, mins);
    for (int unit = 0; unit < UNITS_OF_256; unit++) {
        const uint8_t *halves = block + 48 + unit / 2 * 32;
        for (int i = 0; i < CIRCIUS_UNIT; i++) {
            int code = (unit % 2 ? halves[i] >> 4 : halves[i] & 15) | (block[16 + i] >> unit & 1) << 4;
            values[i] = scales[unit] * (float)code - mins[unit];
        }
        odd |= round_unit(values, unit, to);
    }
    return odd;
}

/* (128) halves (64) two bits more (16) scales of 16 values each, signed (2) scale of the scales; 32 is zero. Both parts of
 * 128 values are alike: units 0 and 1 in the low halves of their 64 bytes, 2 and 3 in the high ones; in their 32 bytes of
 * two bits, unit 0 has the lowest. */
static uint32_t take_q6_k(const uint8_t *block, const struct circius_block_place *to) {
    float scale = load_half(block + 208), values[CIRCIUS_UNIT];
    const int8_t *scales = (const int8_t *)block + 192;
    uint32_t odd = 0;
    for (int unit = 0; unit < UNITS_OF_256; unit++) {
        int part = unit / 4, inner = unit % 4;
        const uint8_t *halves = block + part * 64 + inner % 2 * 32, *twos = block + 128 + part * 32;
        for (int i = 0; i < CIRCIUS_UNIT; i++) {
            int low = inner < 2 ? halves[i] & 15 : halves[i] >> 4, high = twos[i] >> (2 * inner) & 3;
            values[i] = scale * scales[2 * unit + i / 16] * (float)((low | high << 4) - 32);
        }
        odd |= round_unit(values, unit, to);
    }
    return odd;
}

const struct circius_block_kind *circius_block_kind(int id) {
    static const struct circius_block_kind kinds[] = {
        {CIRCIUS_Q4_0, 18, 32, 4, 0, 0, take_q4_0},   {CIRCIUS_Q4_1, 20, 32, 4, 1, 0, take_q4_1},
        {CIRCIUS_Q5_0, 22, 32, 8, 0, 0, take_q5_0},   {CIRCIUS_Q5_1, 24, 32, 8, 0, 1, take_q5_1},
        {CIRCIUS_Q8_0, 34, 32, 8, 0, 0, take_q8_0},   {CIRCIUS_Q4_K, 144, 256, 4, 1, 1, take_q4_k},
        {CIRCIUS_Q5_K, 176, 256, 8, 0, 1, take_q5_k}, {CIRCIUS_Q6_K, 210, 256, 8, 0, 1, take_q6_k},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].id == id)
            return &kinds[i];
    return NULL;
}
