/* A whole decoder layer with packed weights in one parallel region: the stages of matmul.h, rows.h and attention.h, with
 * gates between them. The numbers are those of the stages called one by one. */
#ifndef CIRCIUS_LAYER_H
#define CIRCIUS_LAYER_H

#include <stdint.h>

#include "attention.h"
#include "matmul.h"

struct circius_layer {
    const float *input_norm, *middle_norm; /* (dim) before the attention and before the feed-forward part */
    struct circius_matrix query, key, value, output, gate, up, down;
    float eps;
};

/* x (n_tokens, dim) becomes what the layer makes of it, in place; cos and sin are (n_tokens, head_dim).
 * `attention` tells rows, window, layer, heads, cache format and threads, and has a workspace; what it says of query, key,
 * value and out is not read. At most CIRCIUS_LINEARS_MOST_ROWS tokens. */
int circius_packed_layer(const struct circius_layer *layer, const struct circius_attention *attention, float *x,
                         const float *cos, const float *sin, int64_t n_tokens);

#endif
