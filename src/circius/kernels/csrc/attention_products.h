/* Exponentials, and products of rows of numbers with panels, over v16: see attention_body.h. */
#include "attention_kernels.h"

#ifndef UNROLL
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define MOST_SUMS (MOST_ROWS > 6 ? MOST_ROWS : 6)

/* 2^x for x <= 0 and NaN, within an ulp; 0 below -125. Rounding adds 1.5 * 2^23, whose low bits then hold the whole
 * part; the rest is in -0.5..0.5 and goes through a polynomial that is exactly 1 at 0. */
ALWAYS v16 exp2_of(v16 x) {
    v16 shifted = v16_add(x, v16_set1(0x1.8p23f));
    v16 rest = v16_sub(x, v16_sub(shifted, v16_set1(0x1.8p23f)));
    v16 r = v16_set1(0x1.41fbbcp-13f);
    r = v16_fma(r, rest, v16_set1(0x1.5f3e52p-10f));
    r = v16_fma(r, rest, v16_set1(0x1.3b2d4cp-7f));
    r = v16_fma(r, rest, v16_set1(0x1.c6aee8p-5f));
    r = v16_fma(r, rest, v16_set1(0x1.ebfbdcp-3f));
    r = v16_fma(r, rest, v16_set1(0x1.62e430p-1f));
    r = v16_fma(r, rest, v16_set1(1.0f));
    return v16_zero_below(x, -125.0f, v16_exp2_scale(r, shifted));
}

/* out[r, i] = out * factor[r] (0 without factors) + the sum over steps, in order, of left[r, k] * panels[16 k + i], for
 * `panels` panels at `panel_stride` from each other. `rows` and `panels` are constants wherever this is inlined. */
ALWAYS void product(const int rows, const int panels, const float *left, int64_t left_stride, const float *right,
                    int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                    const float *factor) {
    v16 sums[MOST_SUMS];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < panels; c++)
            sums[r * panels + c] = factor ? v16_mul(v16_load(out + r * out_stride + 16 * c), v16_set1(factor[r]))
                                          : v16_zero();
    for (int64_t k = begin; k < end; k++) {
        v16 loaded[4];
        UNROLL for (int c = 0; c < panels; c++)
            loaded[c] = v16_load(right + c * panel_stride + 16 * k);
        UNROLL for (int r = 0; r < rows; r++) {
            v16 one = v16_set1(left[r * left_stride + k]);
            UNROLL for (int c = 0; c < panels; c++)
                sums[r * panels + c] = v16_fma(one, loaded[c], sums[r * panels + c]);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int c = 0; c < panels; c++)
            v16_store(out + r * out_stride + 16 * c, sums[r * panels + c]);
}

#define PRODUCT(R, C)                                                                                                  \
    case 8 * R + C:                                                                                                    \
        product(R, C, left, left_stride, right, panel_stride, begin, end, out, out_stride, factor);                    \
        break;

static void product_of(int64_t rows, int64_t panels, const float *left, int64_t left_stride, const float *right,
                       int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                       const float *factor) {
    switch (8 * rows + panels) {
        PRODUCT(1, 1) PRODUCT(1, 4) PRODUCT(2, 1) PRODUCT(2, 2) PRODUCT(3, 1) PRODUCT(3, 2) PRODUCT(4, 1)
#if MOST_ROWS > 4
        PRODUCT(5, 1) PRODUCT(6, 1)
#endif
#if MOST_ROWS > 6
        PRODUCT(7, 1) PRODUCT(8, 1) PRODUCT(9, 1) PRODUCT(10, 1) PRODUCT(11, 1) PRODUCT(12, 1)
#endif
    }
}

/* The same for any number of rows and panels: rows in groups that are nearly equal; few rows take several panels at
 * once, so that there are always enough sums in flight. */
static void products(int64_t rows, int64_t panels, const float *left, int64_t left_stride, const float *right,
                     int64_t panel_stride, int64_t begin, int64_t end, float *out, int64_t out_stride,
                     const float *factor) {
    int64_t groups = (rows + MOST_ROWS - 1) / MOST_ROWS, each = (rows + groups - 1) / groups;
    int64_t most = each == 1 ? 4 : each <= 3 ? 2 : 1, step;
    for (int64_t panel = 0; panel < panels; panel += step) {
        step = panels - panel >= most ? most : 1;
        for (int64_t r = 0; r < rows; r += each) {
            int64_t some = circius_min(each, rows - r);
            int64_t inner = some == each ? step : 1; /* a smaller last group: one panel after the other */
            for (int64_t p = panel; p < panel + step; p += inner)
                product_of(some, inner, left + r * left_stride, left_stride, right + p * panel_stride, panel_stride,
                           begin, end, out + r * out_stride + 16 * p, out_stride, factor ? factor + r : NULL);
        }
    }
}
