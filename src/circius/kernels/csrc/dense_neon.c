#define DENSE_KERNELS circius_dense_neon
#include "dense_body.h"
