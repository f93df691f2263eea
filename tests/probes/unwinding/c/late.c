/* A library that is loaded and unloaded while the program runs. */
typedef void (*call)(void *data);

__attribute__((noinline)) void memtrace_late(call f, void *data) {
    char bytes[FRAME];
    bytes[0] = 1;
    __asm__ volatile("" : : "r"(bytes) : "memory");
    f(data);
    __asm__ volatile("" : : "r"(bytes) : "memory");
}
