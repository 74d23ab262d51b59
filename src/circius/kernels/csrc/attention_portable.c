/* Attention in plain C, for every other processor: loops over sixteen floats that compilers turn into vectors. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "attention_kernels.h"
#include "attention_numbers.h"

#define MOST_ROWS 4
#define UNROLL /* unrolled, sixteen floats in arrays take compilers a minute */
#define ALWAYS static inline __attribute__((always_inline))
#define LANES for (int i = 0; i < 16; i++)

typedef struct {
    float f[16];
} v16;

ALWAYS v16 v16_set1(float x) { v16 r; LANES r.f[i] = x; return r; }
ALWAYS v16 v16_zero(void) { return v16_set1(0); }
ALWAYS v16 v16_load(const float *from) { v16 r; LANES r.f[i] = from[i]; return r; }
ALWAYS void v16_store(float *to, v16 x) { LANES to[i] = x.f[i]; }
ALWAYS v16 v16_add(v16 x, v16 y) { LANES x.f[i] += y.f[i]; return x; }
ALWAYS v16 v16_sub(v16 x, v16 y) { LANES x.f[i] -= y.f[i]; return x; }
ALWAYS v16 v16_mul(v16 x, v16 y) { LANES x.f[i] *= y.f[i]; return x; }
ALWAYS v16 v16_div(v16 x, v16 y) { LANES x.f[i] /= y.f[i]; return x; }
ALWAYS v16 v16_max(v16 x, v16 y) { LANES x.f[i] = x.f[i] > y.f[i] ? x.f[i] : y.f[i]; return x; }
ALWAYS v16 v16_fma(v16 x, v16 y, v16 z) { LANES z.f[i] = fmaf(x.f[i], y.f[i], z.f[i]); return z; }
ALWAYS float v16_first(v16 x) { return x.f[0]; }

/* r * 2^(the whole number in the low bits of `shifted`) */
ALWAYS v16 v16_exp2_scale(v16 r, v16 shifted) {
    LANES r.f[i] = circius_float_of_bits(circius_bits_of_float(r.f[i]) + (circius_bits_of_float(shifted.f[i]) << 23));
    return r;
}

/* `value`, but 0 where x < limit; a NaN stays. */
ALWAYS v16 v16_zero_below(v16 x, float limit, v16 value) {
    LANES value.f[i] = x.f[i] < limit ? 0 : value.f[i];
    return value;
}

/* Lanes `from` to `to` of x, minus infinity elsewhere. */
ALWAYS v16 v16_only(v16 x, int from, int to) {
    LANES x.f[i] = i >= from && i < to ? x.f[i] : -__builtin_inff();
    return x;
}

ALWAYS float v16_highest(v16 x) {
    float highest = x.f[0];
    LANES highest = x.f[i] > highest ? x.f[i] : highest;
    return highest;
}

/* Halves are added to halves: lane i to lane i + 8, then + 4, + 2, + 1. */
ALWAYS float v16_sum(v16 x) {
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            x.f[i] += x.f[i + half];
    return x.f[0];
}

ALWAYS v16 v16_load_as(int format, const char *from, int64_t index) {
    v16 r;
    LANES r.f[i] = circius_get(from, format, index + i);
    return r;
}

ALWAYS void v16_store_as(int format, char *to, int64_t index, v16 x) {
    LANES circius_put(to, format, index + i, x.f[i]);
}

/* Eight numbers of sixteen keys at `stride` bytes from each other, as (8, 16) in float32. */
ALWAYS void turn_eight(const int format, const char *from, int64_t stride, char *to) {
    for (int j = 0; j < 8; j++)
        LANES ((float *)to)[16 * j + i] = circius_get(from + i * stride, format, j);
}

/* Vector `index` of what turn_eight wrote. */
ALWAYS v16 v16_load_turned(int format, const char *from, int index) {
    (void)format;
    return v16_load((const float *)from + 16 * index);
}

#include "attention_body.h"

const struct circius_attention_kernels circius_attention_portable = {attend, round_row};
