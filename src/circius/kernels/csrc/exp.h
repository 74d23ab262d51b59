/* The exponential of eight numbers that are not positive; relative error below 9e-8, 0 below -87. */
#ifndef CIRCIUS_EXP_H
#define CIRCIUS_EXP_H

#include "lanes.h"

CIRCIUS_INLINE lanes lanes_exp_negative(lanes x) {
    const lanes lowest = lanes_all(-87.0f), to_whole = lanes_all(0x1.8p23f); /* adding it leaves a whole number */
    const lanes kept = lanes_larger(x, lowest);
    const lanes shifted = lanes_fma(kept, lanes_all(0x1.715476p+0f), to_whole); /* x / ln 2 */
    const lanes power = lanes_subtract(shifted, to_whole);
    /* What is left, from -ln 2 / 2 to ln 2 / 2; ln 2 in two parts, the first with few digits. */
    lanes rest = lanes_fma(power, lanes_all(-0x1.63p-1f), kept);
    rest = lanes_fma(power, lanes_all(0x1.bd0106p-13f), rest);
    /* exp(r) = 1 + r + r^2 p(r); p fitted for the least relative error. */
    lanes p = lanes_all(0x1.6a23dp-10f);
    p = lanes_fma(p, rest, lanes_all(0x1.123a2p-7f));
    p = lanes_fma(p, rest, lanes_all(0x1.5558f2p-5f));
    p = lanes_fma(p, rest, lanes_all(0x1.555492p-3f));
    p = lanes_fma(p, rest, lanes_all(0x1.fffffcp-2f));
    const lanes below_one = lanes_fma(p, lanes_multiply(rest, rest), rest);
    const lanes scaled = lanes_multiply(lanes_add(below_one, lanes_all(1.0f)), lanes_power_of_two(shifted));
    return lanes_zero_where_less(x, lowest, scaled);
}

#endif
