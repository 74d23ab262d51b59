#define CIRCIUS_PLAIN
#define DENSE_KERNELS circius_dense_portable
#include "dense_body.h"
