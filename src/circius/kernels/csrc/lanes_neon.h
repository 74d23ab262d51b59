/* See lanes.h. Two registers. */
#include <arm_neon.h>

typedef float32x4x2_t lanes;

CIRCIUS_INLINE lanes lanes_all(float value) {
    return (lanes){{vdupq_n_f32(value), vdupq_n_f32(value)}};
}

CIRCIUS_INLINE lanes lanes_load(const float *from) {
    return (lanes){{vld1q_f32(from), vld1q_f32(from + 4)}};
}

CIRCIUS_INLINE void lanes_store(float *to, lanes x) {
    vst1q_f32(to, x.val[0]);
    vst1q_f32(to + 4, x.val[1]);
}

CIRCIUS_INLINE lanes lanes_from_bf16(const uint16_t *from) {
    uint16x8_t halves = vld1q_u16(from);
    uint32x4_t low = vshll_n_u16(vget_low_u16(halves), 16), high = vshll_high_n_u16(halves, 16);
    return (lanes){{vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)}};
}

CIRCIUS_INLINE lanes lanes_even_bf16(const uint16_t *from) {
    uint32x4_t low = vreinterpretq_u32_u16(vld1q_u16(from)), high = vreinterpretq_u32_u16(vld1q_u16(from + 8));
    return (lanes){{vreinterpretq_f32_u32(vshlq_n_u32(low, 16)), vreinterpretq_f32_u32(vshlq_n_u32(high, 16))}};
}

CIRCIUS_INLINE lanes lanes_odd_bf16(const uint16_t *from) {
    const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
    uint32x4_t low = vreinterpretq_u32_u16(vld1q_u16(from)), high = vreinterpretq_u32_u16(vld1q_u16(from + 8));
    return (lanes){{vreinterpretq_f32_u32(vandq_u32(low, upper)), vreinterpretq_f32_u32(vandq_u32(high, upper))}};
}

CIRCIUS_INLINE void lanes_part(lanes *first, lanes *second) {
    float32x4x2_t low = vuzpq_f32(first->val[0], first->val[1]), high = vuzpq_f32(second->val[0], second->val[1]);
    *first = (lanes){{low.val[0], high.val[0]}};
    *second = (lanes){{low.val[1], high.val[1]}};
}

CIRCIUS_INLINE lanes lanes_from_fp16(const uint16_t *from) {
    float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(from));
    return (lanes){{vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)}};
}

CIRCIUS_INLINE lanes lanes_add(lanes a, lanes b) {
    return (lanes){{vaddq_f32(a.val[0], b.val[0]), vaddq_f32(a.val[1], b.val[1])}};
}

CIRCIUS_INLINE lanes lanes_multiply(lanes a, lanes b) {
    return (lanes){{vmulq_f32(a.val[0], b.val[0]), vmulq_f32(a.val[1], b.val[1])}};
}

CIRCIUS_INLINE lanes lanes_subtract(lanes a, lanes b) {
    return (lanes){{vsubq_f32(a.val[0], b.val[0]), vsubq_f32(a.val[1], b.val[1])}};
}

CIRCIUS_INLINE lanes lanes_divide(lanes a, lanes b) {
    return (lanes){{vdivq_f32(a.val[0], b.val[0]), vdivq_f32(a.val[1], b.val[1])}};
}

CIRCIUS_INLINE lanes lanes_absolute(lanes a) {
    return (lanes){{vabsq_f32(a.val[0]), vabsq_f32(a.val[1])}};
}

CIRCIUS_INLINE lanes lanes_larger(lanes a, lanes b) {
    for (int half = 0; half < 2; half++)
        a.val[half] = vbslq_f32(vcgtq_f32(a.val[half], b.val[half]), a.val[half], b.val[half]);
    return a;
}

CIRCIUS_INLINE lanes lanes_zero_where_less(lanes x, lanes limit, lanes value) {
    for (int half = 0; half < 2; half++)
        value.val[half] = vbslq_f32(vcltq_f32(x.val[half], limit.val[half]), vdupq_n_f32(0.0f), value.val[half]);
    return value;
}

CIRCIUS_INLINE lanes lanes_by_sign(lanes x, lanes a, lanes b) {
    for (int half = 0; half < 2; half++)
        a.val[half] = vbslq_f32(vcgezq_f32(x.val[half]), a.val[half], b.val[half]);
    return a;
}

CIRCIUS_INLINE lanes lanes_power_of_two(lanes shifted) {
    for (int half = 0; half < 2; half++) {
        int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(shifted.val[half]), vdupq_n_s32(127));
        shifted.val[half] = vreinterpretq_f32_s32(vshlq_n_s32(bits, 23));
    }
    return shifted;
}

CIRCIUS_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return (lanes){{vfmaq_f32(c.val[0], a.val[0], b.val[0]), vfmaq_f32(c.val[1], a.val[1], b.val[1])}};
}

CIRCIUS_INLINE void lanes_add_sums(lanes a, lanes b, lanes c, lanes d, float *sums) {
    float32x4_t ab[2], cd[2];
    for (int half = 0; half < 2; half++) {
        ab[half] = vpaddq_f32(a.val[half], b.val[half]);
        cd[half] = vpaddq_f32(c.val[half], d.val[half]);
    }
    float32x4_t eights = vaddq_f32(vpaddq_f32(ab[0], cd[0]), vpaddq_f32(ab[1], cd[1]));
    vst1q_f32(sums, vaddq_f32(vld1q_f32(sums), eights));
}
