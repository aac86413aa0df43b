/* shares.c: the units of a launch, shared out among threads; one that is done with its own takes over from the others.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include "pool.h"

enum { GROUPS_PER_SHARE = 8 };

static int64_t pack(int next, int end) { return (int64_t)next << 32 | end; }

static graphopt_range *units_of(graphopt_pool *pool, int share) {
    return share == 0 ? &pool->units : &pool->workers[share - 1].units;
}

/* Large enough that claims cost nothing, small enough that the last ones end together. The kernel computes the number of
   units in a task as ceil(units / tasks), which is the size of the group as long as that is at most sqrt(units) + 1. */
static int group_size(int units, int shares) {
    int size = units / (shares * GROUPS_PER_SHARE);
    while (size > 1 && (int64_t)(size - 1) * (size - 1) >= units) size--;
    return size > 1 ? size : 1;
}

void graphopt_share_out(graphopt_pool *pool, int units, bool grouped, int shares) {
    graphopt_job *job = &pool->job;
    job->shares = shares;
    job->group = grouped ? group_size(units, shares) : 1;
    job->singles = (TVMParallelGroupEnv){units == shares ? &pool->barrier : NULL, units};
    job->groups = (TVMParallelGroupEnv){NULL, (units + job->group - 1) / job->group};
    for (int64_t i = 0; i < shares; i++)
        atomic_store_explicit(units_of(pool, (int)i), pack((int)(units * i / shares), (int)(units * (i + 1) / shares)),
                              memory_order_relaxed);
}

/* Takes units from the front of a share, or from its back, and runs them; false when none are left. */
static bool run_some(graphopt_pool *pool, int share, bool front) {
    graphopt_job *job = &pool->job;
    graphopt_range *range = units_of(pool, share);
    int64_t units = atomic_load_explicit(range, memory_order_relaxed), rest;
    int first, count;
    do {
        int next = (int)(units >> 32), end = (int)(uint32_t)units, group = job->group;
        if (next >= end) return false;
        bool whole = front ? next % group == 0 && end - next >= group : end % group == 0 && end - next >= 2 * group;
        count = whole ? group : 1;
        first = front ? next : end - count;
        rest = front ? pack(next + count, end) : pack(next, end - count);
    } while (!atomic_compare_exchange_weak_explicit(range, &units, rest, memory_order_relaxed,
                                                    memory_order_relaxed));
    int status = count > 1 ? job->lambda(first / count, &job->groups, job->data)
                           : job->lambda(first, &job->singles, job->data);
    if (status != 0) atomic_store(&pool->failed, true);
    return true;
}

void graphopt_run_share(graphopt_pool *pool, int share) {
    int shares = pool->job.shares;
    while (run_some(pool, share, true)) continue;
    for (int i = 1; i < shares; i++)
        while (run_some(pool, (share + i) % shares, false)) continue;
}
