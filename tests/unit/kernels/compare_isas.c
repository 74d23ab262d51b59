/* Whether the kernels of the best instructions that the processor has, or of those numbered on the command line, give
 * what portable C gives, bit for bit. A program of its own, so that it also runs under an emulator. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "matmul.h"

static uint32_t state = 12345;

static uint32_t random_bits(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static float random_number(void) {
    return (float)(int32_t)(random_bits() % 20001u - 10000) / 1000.0f;
}

static void fill_halves(uint16_t *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) /* between about 0.0001 and 2, either sign, in both formats of 16 bits */
        to[i] = (uint16_t)(0x2400u + random_bits() % 0x1c00u + (random_bits() % 2 << 15));
}

/* The products of random rows and a random matrix, by portable C and by the other one. */
static int differs(int isa, int bits, int has_mins, int scale_type, int64_t n_outputs, int64_t n_inputs, int64_t group,
                   int64_t n_rows) {
    int64_t tiles = (n_outputs + 15) / 16, n_codes = tiles * n_inputs * 2 * bits, n_scales = tiles * n_inputs / group * 16;
    uint8_t *codes = malloc((size_t)n_codes);
    uint16_t *scales = malloc((size_t)n_scales * 2), *mins = malloc((size_t)n_scales * 2);
    float *x = malloc((size_t)(n_rows * n_inputs) * 4), *out[2];
    for (int64_t i = 0; i < n_codes; i++)
        codes[i] = (uint8_t)(random_bits() % 16 == 0 ? 0xff : random_bits());
    for (int64_t i = 0; i < n_codes && bits == 8; i++)
        codes[i] = codes[i] == 0x80 ? 0x81 : codes[i]; /* -128 is no code */
    fill_halves(scales, n_scales);
    fill_halves(mins, n_scales);
    for (int64_t i = 0; i < n_rows * n_inputs; i++)
        x[i] = i % 64 < 32 && i % 3 == 0 ? 10.0f : random_number();
    for (int i = 0; i < 2; i++) {
        struct circius_product product = {
            .matrix = {codes, scales, has_mins ? mins : NULL, n_outputs, n_inputs, group, bits, scale_type},
            .out = out[i] = calloc((size_t)(n_rows * n_outputs), 4),
            .stride = n_outputs};
        if (circius_force_isa(i ? isa : CIRCIUS_PORTABLE) ||
            circius_packed_linears(x, n_inputs, n_rows, &product, 1, 1))
            exit(2);
    }
    int different = memcmp(out[0], out[1], (size_t)(n_rows * n_outputs) * 4) != 0;
    if (different)
        printf("different: isa %d, %d bits, minima %d, scales %d, %ld outputs, %ld inputs, group %ld, %ld rows\n", isa, bits,
               has_mins, scale_type, (long)n_outputs, (long)n_inputs, (long)group, (long)n_rows);
    free(codes), free(scales), free(mins), free(x), free(out[0]), free(out[1]);
    return different;
}

int main(int n_words, char **words) {
    static const int64_t shapes[][3] = {{40, 32, 32}, {16, 96, 32}, {33, 192, 96}, {64, 1088, 1088}, {17, 2112, 64}};
    static const int64_t rows[] = {1, 2, 3, 4, 5, 8, 15, 17, 30};
    circius_force_isa(-1);
    int isa = n_words > 1 ? atoi(words[1]) : circius_isa(), n_different = 0, n = 0;
    for (int kind = 0; kind < 6; kind++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++, n++)
                n_different += differs(isa, kind < 4 ? 4 : 8, kind == 2 || kind == 3, kind % 2 ? CIRCIUS_BFLOAT16 : CIRCIUS_FLOAT16,
                                       shapes[s][0], shapes[s][1], shapes[s][2], rows[r]);
    printf("isa %d: %d of %d differ\n", isa, n_different, n);
    return n_different != 0;
}
