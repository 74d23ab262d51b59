/* See lanes.h. What the others must agree with, bit for bit. */
#include <math.h>

typedef struct {
    float at[CIRCIUS_LANES];
} lanes;

CIRCIUS_INLINE lanes lanes_all(float value) {
    lanes out;
    for (int i = 0; i < CIRCIUS_LANES; i++)
        out.at[i] = value;
    return out;
}

CIRCIUS_INLINE lanes lanes_load(const float *from) {
    lanes out;
    memcpy(out.at, from, sizeof out.at);
    return out;
}

CIRCIUS_INLINE void lanes_store(float *to, lanes x) {
    memcpy(to, x.at, sizeof x.at);
}

CIRCIUS_INLINE lanes lanes_from_bf16(const uint16_t *from) {
    lanes out;
    for (int i = 0; i < CIRCIUS_LANES; i++)
        out.at[i] = circius_widen_bf16(from[i]);
    return out;
}

CIRCIUS_INLINE lanes lanes_even_bf16(const uint16_t *from) {
    lanes out;
    for (int i = 0; i < CIRCIUS_LANES; i++)
        out.at[i] = circius_widen_bf16(from[2 * i]);
    return out;
}

CIRCIUS_INLINE lanes lanes_odd_bf16(const uint16_t *from) {
    return lanes_even_bf16(from + 1);
}

CIRCIUS_INLINE void lanes_part(lanes *first, lanes *second) {
    float all[2 * CIRCIUS_LANES];
    memcpy(all, first->at, sizeof first->at);
    memcpy(all + CIRCIUS_LANES, second->at, sizeof second->at);
    for (int i = 0; i < CIRCIUS_LANES; i++) {
        first->at[i] = all[2 * i];
        second->at[i] = all[2 * i + 1];
    }
}

CIRCIUS_INLINE lanes lanes_from_fp16(const uint16_t *from) {
    lanes out;
    for (int i = 0; i < CIRCIUS_LANES; i++)
        out.at[i] = circius_widen_fp16(from[i]);
    return out;
}

CIRCIUS_INLINE lanes lanes_add(lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] += b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_multiply(lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] *= b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_subtract(lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] -= b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_divide(lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] /= b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_absolute(lanes a) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] = fabsf(a.at[i]);
    return a;
}

CIRCIUS_INLINE lanes lanes_larger(lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] = a.at[i] > b.at[i] ? a.at[i] : b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_zero_where_less(lanes x, lanes limit, lanes value) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        value.at[i] = x.at[i] < limit.at[i] ? 0.0f : value.at[i];
    return value;
}

CIRCIUS_INLINE lanes lanes_by_sign(lanes x, lanes a, lanes b) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        a.at[i] = x.at[i] >= 0.0f ? a.at[i] : b.at[i];
    return a;
}

CIRCIUS_INLINE lanes lanes_power_of_two(lanes shifted) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        shifted.at[i] = circius_from_bits((circius_to_bits(shifted.at[i]) + 127u) << 23);
    return shifted;
}

CIRCIUS_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    for (int i = 0; i < CIRCIUS_LANES; i++)
        c.at[i] = fmaf(a.at[i], b.at[i], c.at[i]);
    return c;
}

CIRCIUS_INLINE float sum_of_lanes(lanes x) {
    const float *v = x.at;
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

CIRCIUS_INLINE void lanes_add_sums(lanes a, lanes b, lanes c, lanes d, float *sums) {
    sums[0] += sum_of_lanes(a);
    sums[1] += sum_of_lanes(b);
    sums[2] += sum_of_lanes(c);
    sums[3] += sum_of_lanes(d);
}
