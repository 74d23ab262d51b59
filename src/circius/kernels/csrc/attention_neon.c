/* Attention with NEON: sixteen floats are four registers. */
#include <arm_neon.h>
#include <math.h>
#include <stddef.h>

#include "attention_kernels.h"
#include "attention_numbers.h"

#define MOST_ROWS 6
#define ALWAYS static inline __attribute__((always_inline))
#define FOURS _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)

typedef float32x4x4_t v16;

ALWAYS v16 v16_set1(float x) { v16 r; FOURS r.val[i] = vdupq_n_f32(x); return r; }
ALWAYS v16 v16_zero(void) { return v16_set1(0); }
ALWAYS v16 v16_load(const float *from) { v16 r; FOURS r.val[i] = vld1q_f32(from + 4 * i); return r; }
ALWAYS void v16_store(float *to, v16 x) { FOURS vst1q_f32(to + 4 * i, x.val[i]); }
ALWAYS v16 v16_add(v16 x, v16 y) { FOURS x.val[i] = vaddq_f32(x.val[i], y.val[i]); return x; }
ALWAYS v16 v16_sub(v16 x, v16 y) { FOURS x.val[i] = vsubq_f32(x.val[i], y.val[i]); return x; }
ALWAYS v16 v16_mul(v16 x, v16 y) { FOURS x.val[i] = vmulq_f32(x.val[i], y.val[i]); return x; }
ALWAYS v16 v16_div(v16 x, v16 y) { FOURS x.val[i] = vdivq_f32(x.val[i], y.val[i]); return x; }
ALWAYS v16 v16_fma(v16 x, v16 y, v16 z) { FOURS z.val[i] = vfmaq_f32(z.val[i], x.val[i], y.val[i]); return z; }
ALWAYS float v16_first(v16 x) { return vgetq_lane_f32(x.val[0], 0); }

/* The second if one of both is NaN; NEON's own maximum would be NaN. */
ALWAYS float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
ALWAYS v16 v16_max(v16 x, v16 y) { FOURS x.val[i] = larger(x.val[i], y.val[i]); return x; }

/* r * 2^(the whole number in the low bits of `shifted`) */
ALWAYS v16 v16_exp2_scale(v16 r, v16 shifted) {
    FOURS {
        int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted.val[i]), 23);
        r.val[i] = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(r.val[i]), exponent));
    }
    return r;
}

/* `value`, but 0 where x < limit; a NaN stays. */
ALWAYS v16 v16_zero_below(v16 x, float limit, v16 value) {
    FOURS {
        uint32x4_t below = vcltq_f32(x.val[i], vdupq_n_f32(limit));
        value.val[i] = vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value.val[i]), below));
    }
    return value;
}

/* Lanes `from` to `to` of x, minus infinity elsewhere. */
ALWAYS v16 v16_only(v16 x, int from, int to) {
    static const int32_t counted[] = {0, 1, 2, 3};
    FOURS {
        int32x4_t lane = vaddq_s32(vld1q_s32(counted), vdupq_n_s32(4 * i));
        uint32x4_t inside = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(from)), vcltq_s32(lane, vdupq_n_s32(to)));
        x.val[i] = vbslq_f32(inside, x.val[i], vdupq_n_f32(-__builtin_inff()));
    }
    return x;
}

ALWAYS float v16_highest(v16 x) {
    float32x4_t four = larger(larger(x.val[0], x.val[2]), larger(x.val[1], x.val[3]));
    float32x4_t two = larger(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(larger(two, vextq_f32(two, two, 1)), 0);
}

/* Halves are added to halves: lane i to lane i + 8, then + 4, + 2, + 1. */
ALWAYS float v16_sum(v16 x) {
    float32x4_t four = vaddq_f32(vaddq_f32(x.val[0], x.val[2]), vaddq_f32(x.val[1], x.val[3]));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* To the nearest; past the largest half, to it; NaN stays. */
ALWAYS uint16x4_t f16_of(float32x4_t x) {
    float32x4_t most = vdupq_n_f32(CIRCIUS_F16_MAX), least = vdupq_n_f32(-CIRCIUS_F16_MAX);
    x = vbslq_f32(vcgtq_f32(x, most), most, x);
    x = vbslq_f32(vcltq_f32(x, least), least, x);
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}

ALWAYS uint16x4_t bf16_of(float32x4_t x) {
    uint32x4_t bits = vreinterpretq_u32_f32(x), is_odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    uint32x4_t nearest = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), is_odd);
    uint32x4_t nan = vorrq_u32(bits, vdupq_n_u32(0x400000));
    return vshrn_n_u32(vbslq_u32(vceqq_f32(x, x), nearest, nan), 16);
}

ALWAYS float32x4_t wide_half(int format, uint16x4_t half) {
    if (format == CIRCIUS_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* Eight numbers, as two registers. */
ALWAYS float32x4x2_t eight_as(int format, const char *from, int64_t index) {
    float32x4x2_t r;
    if (format == CIRCIUS_F32) {
        r.val[0] = vld1q_f32((const float *)from + index);
        r.val[1] = vld1q_f32((const float *)from + index + 4);
    } else if (format == CIRCIUS_I8) {
        int16x8_t codes = vmovl_s8(vld1_s8((const int8_t *)from + index));
        r.val[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes)));
        r.val[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(codes)));
    } else {
        uint16x8_t halves = vld1q_u16((const uint16_t *)from + index);
        r.val[0] = wide_half(format, vget_low_u16(halves));
        r.val[1] = wide_half(format, vget_high_u16(halves));
    }
    return r;
}

ALWAYS v16 v16_load_as(int format, const char *from, int64_t index) {
    float32x4x2_t low = eight_as(format, from, index), high = eight_as(format, from, index + 8);
    return (v16){{low.val[0], low.val[1], high.val[0], high.val[1]}};
}

ALWAYS void v16_store_as(int format, char *to, int64_t index, v16 x) {
    if (format == CIRCIUS_F32) {
        v16_store((float *)to + index, x);
        return;
    }
    FOURS vst1_u16((uint16_t *)to + index + 4 * i, format == CIRCIUS_F16 ? f16_of(x.val[i]) : bf16_of(x.val[i]));
}

/* Rows of four numbers to columns, at `to` + 16, + 32, + 48. */
ALWAYS void turn_four(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d, float *to) {
    float32x4x2_t ab = vtrnq_f32(a, b), cd = vtrnq_f32(c, d);
    _Pragma("GCC unroll 2") for (int i = 0; i < 2; i++) {
        vst1q_f32(to + 16 * i, vcombine_f32(vget_low_f32(ab.val[i]), vget_low_f32(cd.val[i])));
        vst1q_f32(to + 16 * i + 32, vcombine_f32(vget_high_f32(ab.val[i]), vget_high_f32(cd.val[i])));
    }
}

/* Eight numbers of sixteen keys at `stride` bytes from each other, as (8, 16) in float32. */
ALWAYS void turn_eight(const int format, const char *from, int64_t stride, char *to) {
    for (int key = 0; key < 16; key += 4) {
        float32x4x2_t r[4];
        FOURS r[i] = eight_as(format, from + (key + i) * stride, 0);
        for (int half = 0; half < 2; half++)
            turn_four(r[0].val[half], r[1].val[half], r[2].val[half], r[3].val[half],
                      (float *)(void *)to + 64 * half + key);
    }
}

/* Vector `index` of what turn_eight wrote. */
ALWAYS v16 v16_load_turned(int format, const char *from, int index) {
    (void)format;
    return v16_load((const float *)(const void *)from + 16 * index);
}

#include "attention_body.h"

const struct circius_attention_kernels circius_attention_neon = {attend, round_row};
