/* spin.h: waiting for a short while without giving up the CPU.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_SPIN_H
#define GRAPHOPT_SPIN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { POLLS_PER_CLOCK = 64 };

static inline void graphopt_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#else
    sched_yield();
#endif
}

static inline int64_t graphopt_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

typedef struct {
    long limit;
    unsigned polls;
    int64_t deadline;
} spinner;

/* Pauses for a moment and returns true until the limit has passed; looks at the clock only now and then. */
static inline bool spin(spinner *s) {
    if (s->limit == 0) return false;
    graphopt_relax();
    if (++s->polls % POLLS_PER_CLOCK != 0) return true;
    int64_t now = graphopt_nanoseconds();
    if (s->polls == POLLS_PER_CLOCK) s->deadline = now + s->limit;
    return now < s->deadline;
}

#endif
