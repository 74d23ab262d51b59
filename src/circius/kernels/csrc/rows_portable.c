#define CIRCIUS_PLAIN
#define ROW_KERNELS circius_rows_portable
#include "rows_body.h"
