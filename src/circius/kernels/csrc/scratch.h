/* Memory for intermediate results, kept from one call to the next. */
#ifndef CIRCIUS_SCRATCH_H
#define CIRCIUS_SCRATCH_H

#include <stddef.h>

/* A stretch of at least `size` bytes, aligned to 64, that is the caller's alone until it is given back; NULL if there
 * is no memory. Safe from any number of threads. */
void *circius_scratch_take(size_t size);
void circius_scratch_give(void *scratch);

#endif
