/* Every kernel of the library, with each set of instructions that this processor has, against plain C: bit for bit.
 *
 * It stands alone, so that it can run where no Python is: on a foreign processor, or in an emulator of one.
 *     check_kernels [avx2|avx512|neon]     only the instructions named, which must be there
 * Prints a line for each set of instructions and exits with 1 if any bit differed, 2 if the instructions are missing.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "cpu.h"
#include "dense.h"
#include "half.h"
#include "matmul.h"
#include "rows.h"
#include "unpack.h"

/* What the checks compute is kept with plain C, and compared with the instructions. */
struct outcome {
    char name[128];
    char *bytes;
    size_t size;
    int type; /* of its numbers, so that any two that are not numbers are the same; -1 for plain bytes */
};

static struct outcome *expected;
static size_t n_expected, n_seen, n_wrong;
enum { MOST_PRINTED = 20 };
static int is_recording;

static void *get(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64 + 64);
    if (!memory) {
        fprintf(stderr, "no memory\n");
        exit(3);
    }
    memset(memory, 0, size);
    return memory;
}

static float number_at(const void *numbers, int64_t at, int type) {
    if (type == CIRCIUS_FLOAT32)
        return ((const float *)numbers)[at];
    uint16_t half = ((const uint16_t *)numbers)[at];
    return type == CIRCIUS_FLOAT16 ? circius_widen_fp16(half) : circius_widen_bf16(half);
}

static void put_number(void *numbers, int64_t at, int type, float value) {
    if (type == CIRCIUS_FLOAT32)
        ((float *)numbers)[at] = value;
    else
        ((uint16_t *)numbers)[at] = type == CIRCIUS_FLOAT16 ? circius_narrow_fp16(value) : circius_narrow_bf16(value);
}

static int is_same(const struct outcome *a, const char *bytes) {
    if (!memcmp(a->bytes, bytes, a->size))
        return 1;
    if (a->type < 0)
        return 0;
    int64_t n = (int64_t)a->size / circius_number_bytes(a->type);
    for (int64_t i = 0; i < n; i++) {
        float left = number_at(a->bytes, i, a->type), right = number_at(bytes, i, a->type);
        if (memcmp(&left, &right, sizeof left) && !(isnan(left) && isnan(right)))
            return 0;
    }
    return 1;
}

/* `bytes` is handed over. */
static void see(const char *name, void *bytes, size_t size, int type) {
    if (is_recording) {
        expected = realloc(expected, (n_expected + 1) * sizeof *expected);
        struct outcome *made = &expected[n_expected++];
        *made = (struct outcome){.bytes = bytes, .size = size, .type = type};
        snprintf(made->name, sizeof made->name, "%s", name);
        return;
    }
    const struct outcome *wanted = &expected[n_seen++];
    if (wanted->size != size || !is_same(wanted, bytes)) {
        if (n_wrong++ < MOST_PRINTED)
            printf("differs: %s\n", name);
    }
    free(bytes);
}

static void must(int code, const char *name) {
    if (code) {
        printf("refused with code %d: %s\n", code, name);
        n_wrong++;
    }
}

/* The same numbers every time. */
static uint64_t state;

static uint32_t random_bits(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static float random_number(void) { /* roughly normal */
    float sum = 0.0f;
    for (int i = 0; i < 4; i++)
        sum += (float)(random_bits() & 0xffffff) * 0x1p-23f - 1.0f;
    return sum;
}

static float *random_floats(int64_t n) {
    float *made = get((size_t)n * sizeof *made);
    for (int64_t i = 0; i < n; i++)
        made[i] = random_number();
    return made;
}

static void *random_numbers(int64_t n, int type, float scale) {
    char *made = get((size_t)(n * circius_number_bytes(type)));
    for (int64_t i = 0; i < n; i++)
        put_number(made, i, type, scale * random_number());
    return made;
}

/* Some rows as they come in life, and at their ends: all zero, infinite, not a number, tiny. */
static void spoil(float *x, int64_t n_rows, int64_t n) {
    if (n_rows < 5)
        return;
    memset(x + n, 0, (size_t)n * sizeof *x);
    x[2 * n + n / 2] = INFINITY;
    x[3 * n + n - 1] = NAN;
    for (int64_t i = 0; i < n; i++)
        x[4 * n + i] *= 1e-41f;
}

static struct circius_matrix random_matrix(int64_t n_outputs, int64_t n_inputs, int64_t group, int bits, int has_mins,
                                           int scale_type) {
    int64_t tiles = (n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE, n_codes = tiles * CIRCIUS_TILE * n_inputs * bits / 8;
    int64_t n_scales = tiles * CIRCIUS_TILE * (n_inputs / group);
    uint8_t *codes = get((size_t)n_codes);
    for (int64_t i = 0; i < n_codes; i++) {
        codes[i] = (uint8_t)random_bits();
        if (bits == 8 && codes[i] == 0x80) /* -128 is never written */
            codes[i] = 0x81;
    }
    uint16_t *scales = random_numbers(n_scales, scale_type, 0.02f);
    uint16_t *mins = has_mins ? random_numbers(n_scales, scale_type, 0.1f) : NULL;
    scales[0] = 3; /* below the normal numbers */
    return (struct circius_matrix){codes, scales, mins, n_outputs, n_inputs, group, bits, scale_type};
}

static void free_matrix(struct circius_matrix *matrix) {
    free((void *)matrix->codes);
    free((void *)matrix->scales);
    free((void *)matrix->mins);
}

static void check_packed(int64_t n_rows, int64_t n_outputs, int64_t n_inputs, int64_t group, int bits, int has_mins,
                         int scale_type) {
    char name[128];
    snprintf(name, sizeof name, "packed: %d bits%s, rows %d, outputs %d, inputs %d, group %d, scales %d", bits,
             has_mins ? " with minima" : "", (int)n_rows, (int)n_outputs, (int)n_inputs, (int)group, scale_type);
    struct circius_matrix matrix = random_matrix(n_outputs, n_inputs, group, bits, has_mins, scale_type);
    float *x = random_floats(n_rows * n_inputs);
    spoil(x, n_rows, n_inputs);
    size_t size = (size_t)(n_rows * n_outputs) * sizeof(float);
    struct circius_product product = {matrix, get(size), n_outputs};
    must(circius_packed_linears(x, n_inputs, n_rows, &product, 1, 1), name);
    see(name, product.out, size, CIRCIUS_FLOAT32);
    free(x);
    for (int type = CIRCIUS_FLOAT32; n_rows == 1 && type <= CIRCIUS_BFLOAT16; type += 2) {
        size = (size_t)(n_outputs * n_inputs * circius_number_bytes(type));
        void *values = get(size);
        must(circius_unpack(&matrix, 0, (n_outputs + CIRCIUS_TILE - 1) / CIRCIUS_TILE, type, values, n_inputs, 1),
             name);
        see(name, values, size, type);
    }
    free_matrix(&matrix);
}

static void check_all_packed(void) {
    static const int rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 20, 33, 130};
    static const int shapes[][3] = {{16, 32, 32},  {1, 64, 32},    {17, 96, 96},   {33, 512, 32},
                                    {48, 544, 32}, {32, 640, 128}, {70, 1088, 64}, {16, 1024, 1024}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (int kind = 0; kind < 6; kind++) {
                int bits = kind < 4 ? 4 : 8, has_mins = kind == 2 || kind == 3;
                check_packed(rows[r], shapes[s][0], shapes[s][1], shapes[s][2], bits, has_mins,
                             kind % 2 ? CIRCIUS_BFLOAT16 : CIRCIUS_FLOAT16);
            }
}

static void check_dense(int64_t n_rows, int64_t n_outputs, int64_t n_inputs, int x_type, int weight_type) {
    char name[128];
    snprintf(name, sizeof name, "dense: x %d, weight %d, rows %d, outputs %d, inputs %d", x_type, weight_type,
             (int)n_rows, (int)n_outputs, (int)n_inputs);
    float *floats = random_floats(n_rows * n_inputs);
    spoil(floats, n_rows, n_inputs);
    char *x = get((size_t)(n_rows * n_inputs * circius_number_bytes(x_type)));
    for (int64_t i = 0; i < n_rows * n_inputs; i++)
        put_number(x, i, x_type, floats[i]);
    void *weight = random_numbers(n_outputs * n_inputs, weight_type, 0.05f);
    size_t size = (size_t)(n_rows * n_outputs * circius_number_bytes(x_type));
    struct circius_dense_matrix matrix = {weight, get(size), n_outputs};
    must(circius_dense(x, x_type, n_inputs, n_rows, n_inputs, &matrix, 1, weight_type, 1), name);
    see(name, matrix.y, size, x_type);
    free(weight);
    free(x);
    free(floats);
}

static void check_all_dense(void) {
    static const int rows[] = {1, 2, 3, 4, 5, 12, 16, 50}, outputs[] = {1, 4, 17, 70},
                     inputs[] = {1, 7, 16, 72, 512, 1030};
    for (int type = CIRCIUS_FLOAT32; type <= CIRCIUS_BFLOAT16; type++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t o = 0; o < sizeof outputs / sizeof *outputs; o++)
                for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
                    check_dense(rows[r], outputs[o], inputs[i], CIRCIUS_FLOAT32, type);
                    check_dense(rows[r], outputs[o], inputs[i], type, type);
                }
}

static void check_rows(int64_t n_rows, int64_t n) {
    char name[128];
    snprintf(name, sizeof name, "rows: %d of %d", (int)n_rows, (int)n);
    size_t size = (size_t)(n_rows * n) * sizeof(float);
    float *x = random_floats(n_rows * n), *y = random_floats(n_rows * n);
    for (int64_t i = 0; i < n_rows * n; i++)
        x[i] *= 8.0f;
    spoil(x, n_rows, n);
    float *normed = get(size), *gated = get(size), *rotated = get(size), *sum = get(size);
    must(circius_rms_norm(x, n, y, 1e-5f, n_rows, n, normed, n, 1), name);
    must(circius_silu_times(x, n, y, n, n_rows, n, gated, n, 1), name);
    memcpy(sum, x, size);
    must(circius_add_rows(sum, n, y, n, n_rows, n, 1), name);
    memcpy(rotated, x, size);
    float *cosines = random_floats(n_rows * 128), *sines = random_floats(n_rows * 128);
    for (int64_t dim = 2; dim <= 128 && n % dim == 0; dim *= 2)
        must(circius_rotate(rotated, n, cosines, sines, n_rows, n / dim, dim, 1), name);
    free(cosines);
    free(sines);
    see(name, normed, size, CIRCIUS_FLOAT32);
    see(name, gated, size, CIRCIUS_FLOAT32);
    see(name, sum, size, CIRCIUS_FLOAT32);
    see(name, rotated, size, CIRCIUS_FLOAT32);
    free(x);
    free(y);
}

static void check_all_rows(void) {
    static const int sizes[] = {2, 6, 8, 36, 100, 128, 4096};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int n_rows = 1; n_rows <= 9; n_rows += 4)
            check_rows(n_rows, sizes[s]);
}

enum { N_STEPS = 3, N_HEADS = 6, N_KV_HEADS = 2 };

/* A prompt in two chunks and a token after it, through one ring. */
static void check_attention(int head_dim, int64_t window, int64_t n_slots, int format, int cache_format) {
    static const int64_t lengths[N_STEPS] = {70, 37, 1};
    char name[128];
    snprintf(name, sizeof name, "attention: head %d, window %d, slots %d, numbers %d, cache %d", head_dim, (int)window,
             (int)n_slots, format, cache_format);
    const size_t ring_bytes = (size_t)(N_KV_HEADS * n_slots * head_dim) * 4, n_scales = (size_t)(N_KV_HEADS * n_slots);
    char *rings = get(2 * ring_bytes);
    float *scales = get(2 * n_scales * sizeof(float));
    struct circius_attention_row row = {.keys = rings,
                                        .values = rings + ring_bytes,
                                        .key_scales = scales,
                                        .value_scales = scales + n_scales,
                                        .n_slots = n_slots};
    for (int step = 0; step < N_STEPS; step++) {
        row.n_tokens = lengths[step];
        struct circius_attention call = {
            .query = random_numbers(row.n_tokens * N_HEADS * head_dim, format, 1.0f),
            .key = random_numbers(row.n_tokens * N_KV_HEADS * head_dim, format, 1.0f),
            .value = random_numbers(row.n_tokens * N_KV_HEADS * head_dim, format, 1.0f),
            .query_stride = N_HEADS * head_dim,
            .key_stride = N_KV_HEADS * head_dim,
            .value_stride = N_KV_HEADS * head_dim,
            .out_stride = N_HEADS * head_dim,
            .rows = &row,
            .n_rows = 1,
            .window = window,
            .n_heads = N_HEADS,
            .n_kv_heads = N_KV_HEADS,
            .head_dim = head_dim,
            .format = format,
            .cache_format = cache_format,
            .n_workers = 1,
        };
        size_t size = (size_t)(row.n_tokens * N_HEADS * head_dim * circius_number_bytes(format));
        call.out = get(size);
        call.workspace_bytes = circius_attention_workspace(row.n_tokens, N_HEADS, N_KV_HEADS, head_dim, 1);
        call.workspace = get((size_t)call.workspace_bytes);
        must(circius_attend(&call), name);
        see(name, call.out, size, format);
        row.start += row.n_tokens;
        free((void *)call.query);
        free((void *)call.key);
        free((void *)call.value);
        free(call.workspace);
    }
    see(name, rings, 2 * ring_bytes, -1);
    see(name, scales, 2 * n_scales * sizeof(float), -1);
}

static void check_all_attention(void) {
    static const int head_dims[] = {16, 64, 72, 80, 128, 7}, windows[] = {0, 1, 40, 90},
                     formats[] = {CIRCIUS_F32, CIRCIUS_F16, CIRCIUS_BF16};
    for (size_t d = 0; d < sizeof head_dims / sizeof *head_dims; d++)
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++)
            for (int f = 0; f < 3; f++)
                for (int cache = CIRCIUS_F32; cache <= CIRCIUS_I8; cache++)
                    check_attention(head_dims[d], windows[w], windows[w] ? windows[w] + 3 : 128, formats[f], cache);
}

static void run_checks(void) {
    state = 88172645463325252u;
    check_all_packed();
    check_all_dense();
    check_all_rows();
    check_all_attention();
}

static const char *const names[] = {"portable", "avx2", "avx512", "neon"};

int main(int n_arguments, char **arguments) {
    const char *wanted = n_arguments > 1 ? arguments[1] : NULL;
    circius_force_isa(CIRCIUS_PORTABLE);
    is_recording = 1;
    run_checks();
    is_recording = 0;
    int n_sets = 0;
    for (int isa = CIRCIUS_AVX2; isa <= CIRCIUS_NEON; isa++) {
        if ((wanted && strcmp(wanted, names[isa])) || circius_force_isa(isa))
            continue;
        size_t before = n_wrong;
        n_seen = 0;
        run_checks();
        printf("%s: %zu results, %zu differ from plain C\n", names[isa], n_seen, n_wrong - before);
        n_sets++;
    }
    if (!n_sets)
        printf("this processor does not have the instructions\n");
    return n_wrong ? 1 : wanted && !n_sets ? 2 : 0;
}
