#define DENSE_KERNELS circius_dense_avx2
#include "dense_body.h"
