/* What the processor has, and the small things that differ between processors. */
#ifndef CIRCIUS_CPU_H
#define CIRCIUS_CPU_H

/* Goes up whenever a public function or struct changes, here and in native.py: an old library is then not used. */
#define CIRCIUS_INTERFACE 1

enum circius_isa {
    CIRCIUS_PORTABLE = 0, /* plain C, runs anywhere */
    CIRCIUS_AVX2 = 1,     /* with FMA and F16C */
    CIRCIUS_AVX512 = 2,   /* F, BW, VL, DQ and VNNI, and all of the above */
    CIRCIUS_NEON = 3,     /* 64-bit Arm with the dot product */
};

/* What every public function returns. */
enum circius_error {
    CIRCIUS_OK = 0,
    CIRCIUS_BAD_ARGUMENT = 1,
    CIRCIUS_NO_MEMORY = 2,
};

int circius_interface(void);

/* The instructions in use: the best that the processor has, unless others were forced. */
int circius_isa(void);

/* Uses lesser instructions from now on; -1 goes back to the best. Refuses what the processor cannot do. For tests. */
int circius_force_isa(int isa);

static inline void circius_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
