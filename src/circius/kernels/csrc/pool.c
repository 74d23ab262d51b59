#include "pool.h"

#include <sched.h>
#include <stddef.h>

#include "cpu.h"

typedef void (*openmp_parallel)(void (*work)(void *), void *job, unsigned n_threads, unsigned flags);
typedef int (*openmp_count)(void);

/* Written once, when the library is loaded. */
static openmp_parallel run_parallel;
static openmp_count thread_num;
static openmp_count num_threads;

struct shared_work {
    circius_work work;
    void *job;
};

static void run_one(void *pointer) {
    const struct shared_work *shared = pointer;
    shared->work(shared->job, thread_num(), num_threads());
}

int circius_use_openmp(void *parallel, void *thread, void *threads) {
    if (!parallel || !thread || !threads) {
        run_parallel = NULL;
        return 0;
    }
    thread_num = (openmp_count)thread;
    num_threads = (openmp_count)threads;
    run_parallel = (openmp_parallel)parallel;
    return 0;
}

int circius_has_threads(void) {
    return run_parallel != NULL;
}

void circius_parallel(circius_work work, void *job, int n_workers) {
    if (n_workers <= 1 || !run_parallel) {
        work(job, 0, 1);
        return;
    }
    struct shared_work shared = {work, job};
    run_parallel(run_one, &shared, (unsigned)n_workers, 0);
}

/* Long enough to cover the uneven end of a stage, short enough not to hold up a neighbour on a busy machine. */
enum { SPINS_BEFORE_YIELD = 4096 };

static void wait_a_little(int spins) {
    if (spins < SPINS_BEFORE_YIELD)
        circius_pause();
    else
        sched_yield();
}

void circius_gate_wait(struct circius_gate *gate, int n_workers) {
    if (n_workers <= 1)
        return;
    int before = atomic_load_explicit(&gate->opened, memory_order_acquire);
    if (atomic_fetch_add_explicit(&gate->arrived, 1, memory_order_acq_rel) == n_workers - 1) {
        atomic_store_explicit(&gate->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&gate->opened, before + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&gate->opened, memory_order_acquire) == before; spins++)
        wait_a_little(spins);
}

void circius_stage_wait(struct circius_stage *stage, int64_t n_tickets) {
    for (int spins = 0; atomic_load_explicit(&stage->n_done, memory_order_acquire) < n_tickets; spins++)
        wait_a_little(spins);
}
