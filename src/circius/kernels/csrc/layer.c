#include "layer.h"

#include <string.h>

#include "cpu.h"
#include "rows.h"
#include "scratch.h"

/* Numbers of one part of a row, where the numbers of a row stand for themselves. */
enum { PER_PART = 2048 };

struct layer_job {
    const struct circius_layer *layer;
    const struct circius_row_kernels *rows;
    float *x;
    const float *cos, *sin;
    int64_t n_tokens, dim, hidden_dim, query_dim, key_dim;
    int32_t n_heads, n_kv_heads, head_dim;
    float *normed, *query, *key, *value, *mixed, *gate, *up;
    struct circius_product inward[3], outward, widening[2], narrowing;
    struct circius_linears project, join, widen, narrow;
    struct circius_attention_job attention;
    struct circius_tickets first_norm, rotation, second_norm, activation, sum;
    struct circius_gate gate_of_stages;
};

static void normalise(struct layer_job *job, const float *weight, struct circius_tickets *tickets) {
    for (int64_t row; (row = circius_take(tickets)) < job->n_tokens;)
        job->rows->rms_norm(job->x + row * job->dim, weight, job->layer->eps, job->dim, job->normed + row * job->dim);
}

static void rotate(struct layer_job *job) {
    for (int64_t row; (row = circius_take(&job->rotation)) < job->n_tokens;) {
        const float *cos = job->cos + row * job->head_dim, *sin = job->sin + row * job->head_dim;
        job->rows->rotate(job->query + row * job->query_dim, cos, sin, job->n_heads, job->head_dim);
        job->rows->rotate(job->key + row * job->key_dim, cos, sin, job->n_kv_heads, job->head_dim);
    }
}

/* The attention's result goes through the output matrix into `normed`, which nobody reads any more. */
static void add_attention_and_normalise(struct layer_job *job) {
    for (int64_t row; (row = circius_take(&job->second_norm)) < job->n_tokens;) {
        float *x = job->x + row * job->dim, *normed = job->normed + row * job->dim;
        job->rows->add(x, normed, job->dim);
        job->rows->rms_norm(x, job->layer->middle_norm, job->layer->eps, job->dim, normed);
    }
}

static void activate(struct layer_job *job) {
    int64_t parts = (job->hidden_dim + PER_PART - 1) / PER_PART;
    for (int64_t ticket; (ticket = circius_take(&job->activation)) < job->n_tokens * parts;) {
        int64_t begin = ticket % parts * PER_PART, left = job->hidden_dim - begin;
        int64_t at = ticket / parts * job->hidden_dim + begin;
        job->rows->silu_times(job->gate + at, job->up + at, left < PER_PART ? left : PER_PART, job->gate + at);
    }
}

static void add_feed_forward(struct layer_job *job) {
    for (int64_t row; (row = circius_take(&job->sum)) < job->n_tokens;)
        job->rows->add(job->x + row * job->dim, job->normed + row * job->dim, job->dim);
}

static void layer_work(void *pointer, int worker, int n_workers) {
    struct layer_job *job = pointer;
    struct circius_gate *gate = &job->gate_of_stages;
    normalise(job, job->layer->input_norm, &job->first_norm);
    circius_gate_wait(gate, n_workers);
    circius_linears_work(&job->project, worker, n_workers);
    circius_gate_wait(gate, n_workers);
    rotate(job);
    circius_gate_wait(gate, n_workers);
    if (job->attention.needs_stage) {
        circius_attention_stage(&job->attention, worker, n_workers);
        circius_gate_wait(gate, n_workers);
    }
    circius_attention_mix(&job->attention, worker, n_workers);
    circius_gate_wait(gate, n_workers);
    if (job->attention.needs_keep)
        circius_attention_keep(&job->attention, worker, n_workers);
    circius_linears_work(&job->join, worker, n_workers);
    circius_gate_wait(gate, n_workers);
    add_attention_and_normalise(job);
    circius_gate_wait(gate, n_workers);
    circius_linears_work(&job->widen, worker, n_workers);
    circius_gate_wait(gate, n_workers);
    activate(job);
    circius_gate_wait(gate, n_workers);
    circius_linears_work(&job->narrow, worker, n_workers);
    circius_gate_wait(gate, n_workers);
    add_feed_forward(job);
}

static int fits(const struct circius_matrix *matrix, int64_t n_outputs, int64_t n_inputs) {
    return !circius_check_matrix(matrix) && matrix->n_outputs == n_outputs && matrix->n_inputs == n_inputs;
}

static int check(const struct circius_layer *layer, const struct circius_attention *attention, const float *x,
                 const float *cos, const float *sin, int64_t n_tokens) {
    if (!layer || !attention || !x || !cos || !sin || !layer->input_norm || !layer->middle_norm || n_tokens < 1 ||
        n_tokens > CIRCIUS_LINEARS_MOST_ROWS || attention->head_dim < 2 || attention->head_dim % 2 ||
        attention->n_heads < 1 || attention->n_kv_heads < 1)
        return CIRCIUS_BAD_ARGUMENT;
    int64_t dim = layer->query.n_inputs, hidden_dim = layer->gate.n_outputs;
    int64_t query_dim = (int64_t)attention->n_heads * attention->head_dim;
    int64_t key_dim = (int64_t)attention->n_kv_heads * attention->head_dim;
    int all_fit = fits(&layer->query, query_dim, dim) && fits(&layer->key, key_dim, dim) &&
                  fits(&layer->value, key_dim, dim) && fits(&layer->output, dim, query_dim) &&
                  fits(&layer->gate, hidden_dim, dim) && fits(&layer->up, hidden_dim, dim) &&
                  fits(&layer->down, dim, hidden_dim);
    return all_fit ? CIRCIUS_OK : CIRCIUS_BAD_ARGUMENT;
}

static size_t lines(size_t n_bytes) {
    return (n_bytes + CIRCIUS_CACHE_LINE - 1) / CIRCIUS_CACHE_LINE * CIRCIUS_CACHE_LINE;
}

/* The next `n` numbers for every token; only counted where there is no scratch. */
static float *carve(char *scratch, size_t *used, int64_t n_tokens, int64_t n) {
    float *carved = scratch ? (float *)(void *)(scratch + *used) : NULL;
    *used += lines((size_t)(n_tokens * n) * sizeof(float));
    return carved;
}

static void plan_products(struct layer_job *job) {
    const struct circius_layer *layer = job->layer;
    job->inward[0] = (struct circius_product){layer->query, job->query, job->query_dim};
    job->inward[1] = (struct circius_product){layer->key, job->key, job->key_dim};
    job->inward[2] = (struct circius_product){layer->value, job->value, job->key_dim};
    job->outward = (struct circius_product){layer->output, job->normed, job->dim};
    job->widening[0] = (struct circius_product){layer->gate, job->gate, job->hidden_dim};
    job->widening[1] = (struct circius_product){layer->up, job->up, job->hidden_dim};
    job->narrowing = (struct circius_product){layer->down, job->normed, job->dim};
    job->project = (struct circius_linears){
        .x = job->normed, .x_stride = job->dim, .n_rows = job->n_tokens, .products = job->inward, .n_products = 3};
    job->join = (struct circius_linears){
        .x = job->mixed, .x_stride = job->query_dim, .n_rows = job->n_tokens, .products = &job->outward, .n_products = 1};
    job->widen = (struct circius_linears){
        .x = job->normed, .x_stride = job->dim, .n_rows = job->n_tokens, .products = job->widening, .n_products = 2};
    job->narrow = (struct circius_linears){
        .x = job->gate, .x_stride = job->hidden_dim, .n_rows = job->n_tokens, .products = &job->narrowing, .n_products = 1};
}

/* Runs the job in `scratch`, or only says how much of it is needed where that is null. */
static int run(struct layer_job *job, const struct circius_attention *attention, char *scratch, size_t *needed) {
    size_t used = 0;
    int64_t n = job->n_tokens;
    job->normed = carve(scratch, &used, n, job->dim);
    job->query = carve(scratch, &used, n, job->query_dim);
    job->key = carve(scratch, &used, n, job->key_dim);
    job->value = carve(scratch, &used, n, job->key_dim);
    job->mixed = carve(scratch, &used, n, job->query_dim);
    job->gate = carve(scratch, &used, n, job->hidden_dim);
    job->up = carve(scratch, &used, n, job->hidden_dim);
    plan_products(job);
    struct circius_linears *all[] = {&job->project, &job->join, &job->widen, &job->narrow};
    size_t largest = 0;
    for (int i = 0; i < 4; i++) {
        size_t own = circius_linears_scratch(all[i]);
        largest = own > largest ? own : largest;
    }
    *needed = used + largest;
    if (!scratch)
        return CIRCIUS_OK;
    for (int i = 0; i < 4; i++) /* one after the other, so in the same place */
        circius_linears_prepare(all[i], scratch + used, attention->n_workers);
    struct circius_attention own = *attention;
    own.query = (const char *)job->query, own.query_stride = job->query_dim;
    own.key = (const char *)job->key, own.key_stride = job->key_dim;
    own.value = (const char *)job->value, own.value_stride = job->key_dim;
    own.out = (char *)job->mixed, own.out_stride = job->query_dim;
    own.format = CIRCIUS_F32;
    int code = circius_attention_prepare(&job->attention, &own);
    if (code == CIRCIUS_OK && job->attention.n_tokens != n)
        code = CIRCIUS_BAD_ARGUMENT;
    if (code == CIRCIUS_OK)
        circius_parallel(layer_work, job, attention->n_workers);
    return code;
}

int circius_packed_layer(const struct circius_layer *layer, const struct circius_attention *attention, float *x,
                         const float *cos, const float *sin, int64_t n_tokens) {
    int code = check(layer, attention, x, cos, sin, n_tokens);
    if (code)
        return code;
    struct layer_job job;
    memset(&job, 0, sizeof job);
    job.layer = layer, job.rows = circius_row_kernels();
    job.x = x, job.cos = cos, job.sin = sin, job.n_tokens = n_tokens;
    job.dim = layer->query.n_inputs, job.hidden_dim = layer->gate.n_outputs;
    job.query_dim = layer->query.n_outputs, job.key_dim = layer->key.n_outputs;
    job.n_heads = attention->n_heads, job.n_kv_heads = attention->n_kv_heads, job.head_dim = attention->head_dim;
    size_t needed = 0;
    run(&job, attention, NULL, &needed);
    char *scratch = circius_scratch_take(needed);
    if (!scratch)
        return CIRCIUS_NO_MEMORY;
    code = run(&job, attention, scratch, &needed);
    circius_scratch_give(scratch);
    return code;
}
