#include "cpu.h"

#include <stdatomic.h>

#if defined(__x86_64__)
#include <cpuid.h>

static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29));
}

static int best(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return CIRCIUS_PORTABLE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
        return CIRCIUS_AVX512;
    return CIRCIUS_AVX2;
}

static int can(int isa) {
    return isa == CIRCIUS_PORTABLE || (isa <= CIRCIUS_AVX512 && isa <= best());
}

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>

static int has_dot_product(void) {
    return (getauxval(AT_HWCAP) >> 20) & 1; /* HWCAP_ASIMDDP */
}
#else
static int has_dot_product(void) {
    return 1; /* every 64-bit Arm processor that Apple put into a computer */
}
#endif

static int best(void) {
    return has_dot_product() ? CIRCIUS_NEON : CIRCIUS_PORTABLE;
}

static int can(int isa) {
    return isa == CIRCIUS_PORTABLE || isa == best();
}

#else
static int best(void) {
    return CIRCIUS_PORTABLE;
}

static int can(int isa) {
    return isa == CIRCIUS_PORTABLE;
}
#endif

static atomic_int in_use = -1; /* not asked yet */

int circius_interface(void) {
    return CIRCIUS_INTERFACE;
}

int circius_isa(void) {
    int isa = atomic_load_explicit(&in_use, memory_order_relaxed);
    if (isa < 0) {
        isa = best();
        atomic_store_explicit(&in_use, isa, memory_order_relaxed);
    }
    return isa;
}

int circius_force_isa(int isa) {
    if (isa < -1 || isa > CIRCIUS_NEON || (isa >= 0 && !can(isa)))
        return CIRCIUS_BAD_ARGUMENT;
    atomic_store_explicit(&in_use, isa, memory_order_relaxed);
    return CIRCIUS_OK;
}
