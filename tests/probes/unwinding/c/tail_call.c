/* Last calls that become jumps: `memtrace_tail_call` has no frame when `f` runs. */
#include <stddef.h>

typedef void (*call)(void *data);

__attribute__((noinline)) static void callee(size_t n, call f, void *data) {
    char bytes[200];
    bytes[n % 200] = 1;
    __asm__ volatile("" : : "r"(bytes) : "memory");
    f(data);
    __asm__ volatile("" : : "r"(bytes) : "memory");
}

__attribute__((noinline)) void memtrace_tail_call(size_t n, call f, void *data) {
    if (n > 0) {
        memtrace_tail_call(n - 1, f, data);
        return;
    }
    callee(n, f, data);
}
