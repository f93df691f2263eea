/* memtrace for C: tell the tracer of memory that Rust's global allocator does not see.
 *
 * The functions are part of every Rust program that depends on memtrace. They may be called from any
 * thread at any time, also while tracing is off.
 */
#ifndef MEMTRACE_H
#define MEMTRACE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Records `size` bytes at `addr`, with the calling stack.
 *
 * `domain` tells kinds of memory apart, as the program likes; 0 is that of the global allocator. The
 * same address in two domains is two traces. Memory that is recorded already takes the new size and
 * stack.
 *
 * Returns 0; -1 if there is no memory for the record; -2 if tracing is off.
 */
int memtrace_track(unsigned int domain, uintptr_t addr, size_t size);

/* Forgets memory that was recorded. Memory that is not known is ignored.
 *
 * Returns 0; -2 if tracing is off.
 */
int memtrace_untrack(unsigned int domain, uintptr_t addr);

#ifdef __cplusplus
}
#endif

#endif
