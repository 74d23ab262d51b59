/* Work on several threads, which are torch's own: the library starts none. */
#ifndef CIRCIUS_POOL_H
#define CIRCIUS_POOL_H

#include <stdatomic.h>
#include <stdint.h>

#define CIRCIUS_CACHE_LINE 64

/* Runs once on every worker; `n_workers` is how many there really are, which may be fewer than were asked for. */
typedef void (*circius_work)(void *job, int worker, int n_workers);

/* Runs `work` on up to `n_workers` threads, the caller among them, and returns when all are done. */
void circius_parallel(circius_work work, void *job, int n_workers);

/* The entry points of the OpenMP runtime to run on: GOMP_parallel, omp_get_thread_num and omp_get_num_threads.
 * Null pointers, and a library that was never told, mean a single thread. To be called before any work. */
int circius_use_openmp(void *parallel, void *thread_num, void *num_threads);

/* Whether there is a runtime, so whether more than one thread can work. */
int circius_has_threads(void);

/* Hands out 0, 1, 2, ... to whoever asks next, so that a delayed worker costs little. Zeroed before use. */
struct circius_tickets {
    _Alignas(CIRCIUS_CACHE_LINE) _Atomic int64_t next;
};

static inline int64_t circius_take(struct circius_tickets *tickets) {
    return atomic_fetch_add_explicit(&tickets->next, 1, memory_order_relaxed);
}

/* A place inside a work function where every worker waits for all the others, any number of times. Zeroed before use.
 * What was written before it is seen by all after it. */
struct circius_gate {
    _Alignas(CIRCIUS_CACHE_LINE) _Atomic int arrived;
    _Alignas(CIRCIUS_CACHE_LINE) _Atomic int opened;
};

void circius_gate_wait(struct circius_gate *gate, int n_workers);

/* Tickets whose work others wait for, without waiting for a worker that has not come yet: where more programs than
 * processors run, that may be long. Zeroed before use. */
struct circius_stage {
    struct circius_tickets tickets;
    _Alignas(CIRCIUS_CACHE_LINE) _Atomic int64_t n_done;
};

/* To be told when the work of a ticket is done. */
static inline void circius_stage_done(struct circius_stage *stage) {
    atomic_fetch_add_explicit(&stage->n_done, 1, memory_order_release);
}

/* Waits until the work of `n_tickets` is done; what was written for them is then seen. */
void circius_stage_wait(struct circius_stage *stage, int64_t n_tickets);

#endif
