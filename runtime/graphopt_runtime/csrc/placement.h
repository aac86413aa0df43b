/* placement.h: keeps a worker that wakes up off the CPU of the thread that wakes it.

   A sleeping thread wakes on the CPU it last ran on. If the leader has slept too and woke up there, both share that CPU,
   and the next one stays idle until the kernel balances its load, tens of milliseconds later. On Linux the waker then bars
   its own CPU to the worker; elsewhere nothing is done.
   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_PLACEMENT_H
#define GRAPHOPT_PLACEMENT_H

#include <sched.h>
#include <stdatomic.h>

typedef struct {
    atomic_int cpu; /* where the worker last fell asleep; -1 before */
#if defined(__linux__)
    int thread;
    cpu_set_t allowed;
#endif
} graphopt_placement;

void graphopt_placement_reset(graphopt_placement *placement);

/* Called by the worker when it starts, and before it sleeps. */
void graphopt_placement_start(graphopt_placement *placement);
void graphopt_placement_sleep(graphopt_placement *placement);

/* Called by whoever is about to wake the worker. */
void graphopt_placement_wake(graphopt_placement *placement);

#endif
