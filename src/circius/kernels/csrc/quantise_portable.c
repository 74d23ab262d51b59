#include <math.h>
#include <stddef.h>

#include "half.h"
#include "matmul.h"

/* For the kernels that start at -8 * sum(a) in one number: portable C, NEON. */
void circius_quantise_portable(const float *x, const struct circius_activations *to, int64_t at) {
    int8_t *codes = to->codes + at * CIRCIUS_UNIT;
    uint32_t greatest = 0; /* of the bits without sign, where what is not finite is above all numbers */
    for (int i = 0; i < CIRCIUS_UNIT; i++) {
        uint32_t bits = circius_to_bits(x[i]) & 0x7fffffffu;
        greatest = bits > greatest ? bits : greatest;
    }
    float amax = circius_from_bits(greatest);
    float scale = greatest < 0x7f800000u ? amax / 127.0f : NAN;
    float inverse = 127.0f / amax;
    /* Zero, and numbers so small that their inverse is infinite. */
    int usable = greatest < 0x7f800000u && circius_to_bits(inverse) < 0x7f800000u;
    int32_t sum = 0;
    for (int i = 0; i < CIRCIUS_UNIT; i++) {
        codes[i] = usable ? (int8_t)nearbyintf(x[i] * inverse) : 0;
        sum += codes[i];
    }
    to->scales[at] = scale;
    to->shifts[at] = scale * (float)sum;
    to->starts[at] = -8 * sum;
}
