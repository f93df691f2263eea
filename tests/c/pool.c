/* A pool of memory in a C library that knows memtrace. */
#include "memtrace.h"

#include <stdlib.h>

#define POOL_DOMAIN 77u

__attribute__((noinline)) int pool_open(void **pool, size_t size) {
    *pool = malloc(size);
    int code = memtrace_track(POOL_DOMAIN, (uintptr_t)*pool, size);
    /* Not a tail call: this function is a frame of the stack. */
    __asm__ volatile("");
    return code;
}

int pool_close(void *pool) {
    int code = memtrace_untrack(POOL_DOMAIN, (uintptr_t)pool);
    free(pool);
    return code;
}
