#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

/* A stretch begins with a line that says how long it is. The kept ones lie in a few slots; whoever takes one empties
 * its slot, so there are never more of them than calls at the same time. */
enum { N_SLOTS = 8, LINE = 64 };

static void *_Atomic slots[N_SLOTS];

static size_t size_of(const char *whole) {
    return *(const size_t *)(const void *)whole;
}

static char *make(size_t size) {
    /* In steps of an eighth of a MiB, so that a prompt that grows does not ask anew each time. */
    const size_t step = (size_t)1 << 17;
    if (size > SIZE_MAX - 2 * step)
        return NULL;
    size_t whole_size = (size + LINE + step - 1) / step * step;
    char *whole = aligned_alloc(LINE, whole_size);
    if (whole)
        *(size_t *)(void *)whole = whole_size - LINE;
    return whole;
}

void *circius_scratch_take(size_t size) {
    char *whole = NULL;
    for (int i = 0; i < N_SLOTS && !whole; i++)
        whole = atomic_exchange(&slots[i], NULL);
    if (whole && size_of(whole) < size) {
        free(whole);
        whole = NULL;
    }
    if (!whole)
        whole = make(size);
    return whole ? whole + LINE : NULL;
}

void circius_scratch_give(void *scratch) {
    if (!scratch)
        return;
    void *whole = (char *)scratch - LINE;
    for (int i = 0; i < N_SLOTS; i++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&slots[i], &empty, whole))
            return;
    }
    free(whole);
}
