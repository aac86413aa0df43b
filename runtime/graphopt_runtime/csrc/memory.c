/* memory.c: where handles take their memory from, unless their creator says otherwise.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _DEFAULT_SOURCE
#include <stdlib.h>

#include "graphopt_rt.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { HUGE_PAGE = 2 << 20 };

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Large blocks start at huge pages, which the system is asked to use for them. */
static void *allocate(void *context, size_t bytes, size_t alignment) {
    (void)context;
    if (bytes < HUGE_PAGE) return aligned_alloc(alignment, round_up(bytes, alignment));
    void *memory = aligned_alloc(HUGE_PAGE, round_up(bytes, HUGE_PAGE));
#if defined(MADV_HUGEPAGE)
    if (memory != NULL) madvise(memory, round_up(bytes, HUGE_PAGE), MADV_HUGEPAGE);
#endif
    return memory;
}

static void release(void *context, void *memory) {
    (void)context;
    free(memory);
}

const graphopt_allocator graphopt_system_allocator = {allocate, release, NULL};

void *graphopt_allocate(const graphopt_allocator *allocator, size_t bytes) {
    return allocator->allocate(allocator->context, bytes > 0 ? bytes : 1, GRAPHOPT_ALIGNMENT);
}

void graphopt_release(const graphopt_allocator *allocator, void *memory) {
    if (memory != NULL) allocator->release(allocator->context, memory);
}
