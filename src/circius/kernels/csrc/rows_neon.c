#define ROW_KERNELS circius_rows_neon
#include "rows_body.h"
