#include "rows.h"

#include <stddef.h>

#include "cpu.h"
#include "pool.h"

const struct circius_row_kernels *circius_row_kernels(void) {
    switch (circius_isa()) {
#if defined(__x86_64__)
    case CIRCIUS_AVX2:
    case CIRCIUS_AVX512: return &circius_rows_avx2;
#elif defined(__aarch64__)
    case CIRCIUS_NEON: return &circius_rows_neon;
#endif
    default: return &circius_rows_portable;
    }
}

/* Numbers that are worth a ticket, and how many it takes for a second thread to pay for being called. */
enum { PER_TICKET = 1 << 13, WORTH_A_THREAD = 1 << 14 };

enum operation { RMS_NORM, ROTATE, SILU_TIMES, ADD };

struct job {
    enum operation operation;
    const struct circius_row_kernels *kernels;
    const float *a, *b;
    float *out;
    int64_t a_stride, b_stride, out_stride;
    int64_t n_rows, n, rows_per_ticket;
    int64_t n_heads; /* of ROTATE, whose `n` is that of a head */
    float eps;       /* of RMS_NORM */
    struct circius_tickets tickets;
};

static void do_row(const struct job *job, int64_t row) {
    const float *a = job->a + row * job->a_stride, *b = job->b + row * job->b_stride;
    float *out = job->out + row * job->out_stride;
    switch (job->operation) {
    case RMS_NORM: job->kernels->rms_norm(a, b, job->eps, job->n, out); break;
    case ROTATE: job->kernels->rotate(out, a, b, job->n_heads, job->n); break;
    case SILU_TIMES: job->kernels->silu_times(a, b, job->n, out); break;
    case ADD: job->kernels->add(out, b, job->n); break;
    }
}

static void rows_work(void *pointer, int worker, int n_workers) {
    struct job *job = pointer;
    (void)worker, (void)n_workers;
    for (;;) {
        int64_t begin = circius_take(&job->tickets) * job->rows_per_ticket, end = begin + job->rows_per_ticket;
        if (begin >= job->n_rows)
            return;
        for (int64_t row = begin; row < end && row < job->n_rows; row++)
            do_row(job, row);
    }
}

static int run(struct job *job, int n_threads) {
    if (!job->a || !job->b || !job->out || job->n_rows < 0 || job->n < 1 || job->n_heads < 1 || n_threads < 1)
        return CIRCIUS_BAD_ARGUMENT;
    int64_t per_row = job->n * job->n_heads;
    if (per_row * job->n_rows < WORTH_A_THREAD)
        n_threads = 1;
    job->kernels = circius_row_kernels();
    job->rows_per_ticket = per_row < PER_TICKET ? PER_TICKET / per_row : 1;
    circius_parallel(rows_work, job, n_threads);
    return CIRCIUS_OK;
}

int circius_rms_norm(const float *x, int64_t x_stride, const float *weight, float eps, int64_t n_rows, int64_t n,
                     float *out, int64_t out_stride, int n_threads) {
    struct job job = {.operation = RMS_NORM,
                      .a = x,
                      .a_stride = x_stride,
                      .b = weight,
                      .out = out,
                      .out_stride = out_stride,
                      .n_rows = n_rows,
                      .n = n,
                      .n_heads = 1,
                      .eps = eps};
    return run(&job, n_threads);
}

int circius_rotate(float *x, int64_t x_stride, const float *cos, const float *sin, int64_t n_rows, int64_t n_heads,
                   int64_t head_dim, int n_threads) {
    if (head_dim % 2)
        return CIRCIUS_BAD_ARGUMENT;
    struct job job = {.operation = ROTATE,
                      .a = cos,
                      .a_stride = head_dim,
                      .b = sin,
                      .b_stride = head_dim,
                      .out = x,
                      .out_stride = x_stride,
                      .n_rows = n_rows,
                      .n = head_dim,
                      .n_heads = n_heads};
    return run(&job, n_threads);
}

int circius_silu_times(const float *gate, int64_t gate_stride, const float *up, int64_t up_stride, int64_t n_rows,
                       int64_t n, float *out, int64_t out_stride, int n_threads) {
    struct job job = {.operation = SILU_TIMES,
                      .a = gate,
                      .a_stride = gate_stride,
                      .b = up,
                      .b_stride = up_stride,
                      .out = out,
                      .out_stride = out_stride,
                      .n_rows = n_rows,
                      .n = n,
                      .n_heads = 1};
    return run(&job, n_threads);
}

int circius_add_rows(float *x, int64_t x_stride, const float *y, int64_t y_stride, int64_t n_rows, int64_t n,
                     int n_threads) {
    struct job job = {.operation = ADD,
                      .a = x,
                      .b = y,
                      .b_stride = y_stride,
                      .out = x,
                      .out_stride = x_stride,
                      .n_rows = n_rows,
                      .n = n,
                      .n_heads = 1};
    return run(&job, n_threads);
}
