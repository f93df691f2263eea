/* A library that is loaded and unloaded while the program runs. */
#include <stddef.h>

typedef void (*call)(void *data);

/* Calls `f(data)` from a frame that is full of `decoy`, and returns the address it returns to. */
__attribute__((noinline)) void *memtrace_late(call f, void *data, void *decoy) {
    void *words[FRAME / sizeof(void *)];
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        words[i] = decoy;
    }
    __asm__ volatile("" : : "r"(words) : "memory");
    f(data);
    __asm__ volatile("" : : "r"(words) : "memory");
    return __builtin_return_address(0);
}
