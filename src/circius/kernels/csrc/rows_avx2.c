#define ROW_KERNELS circius_rows_avx2
#include "rows_body.h"
