/* Frames of kinds that Rust does not make: each function calls `f(data)` from such a frame. */
#include <alloca.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

typedef void (*call)(void *data);
typedef void (*call_with_target)(void *data, void *target);

/* Keeps a value in use until here. */
#define KEEP(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")

/* Fills memory with what looks like return addresses. */
static inline void fill(void **words, size_t n_bytes) {
    for (size_t i = 0; i < n_bytes / sizeof *words; i++) {
        words[i] = __builtin_return_address(0);
    }
}

__attribute__((noinline)) void memtrace_alloca(size_t n_bytes, call f, void *data) {
    void **words = alloca(n_bytes);
    fill(words, n_bytes);
    KEEP(words);
    f(data);
    KEEP(words);
}

__attribute__((noinline)) void memtrace_variable_array(size_t n_bytes, call f, void *data) {
    char bytes[n_bytes];
    bytes[0] = 1;
    KEEP(bytes);
    for (int i = 0; i < 2; i++) {
        char more[n_bytes / 2 + 8];
        more[0] = bytes[0];
        KEEP(more);
        if (i == 1) {
            f(data);
        }
        KEEP(more);
    }
    KEEP(bytes);
}

__attribute__((noinline)) void memtrace_realigned(size_t n_bytes, call f, void *data) {
    double aligned[8] __attribute__((aligned(128)));
    aligned[0] = (double)n_bytes;
    KEEP(aligned);
    f(data);
    KEEP(aligned);
}

__attribute__((noinline)) void memtrace_realigned_array(size_t n_bytes, call f, void *data) {
    double aligned[8] __attribute__((aligned(64)));
    char bytes[n_bytes];
    aligned[0] = (double)n_bytes;
    bytes[0] = 1;
    KEEP(aligned);
    KEEP(bytes);
    f(data);
    KEEP(aligned);
    KEEP(bytes);
}

/* Returns whether `f` jumped here rather than returned. */
__attribute__((noinline)) int memtrace_jump_over(call_with_target f, void *data) {
    jmp_buf target;
    if (setjmp(target) == 0) {
        f(data, &target);
        return 0;
    }
    return 1;
}

__attribute__((noinline, noreturn)) void memtrace_jump_to(void *target) {
    longjmp(*(jmp_buf *)target, 1);
}

typedef void *(*late_call)(call f, void *data, void *decoy);

/* Calls a function of a library from a frame with `n_bytes` full of `decoy`; each number makes a
   function of its own with the same frame. */
#define LATE_CALLER(number)                                                                            \
    __attribute__((noinline)) void *memtrace_late_caller_##number(size_t n_bytes, late_call late,      \
                                                                  call f, void *data, void *decoy) {   \
        void **words = alloca(n_bytes);                                                                \
        for (size_t i = 0; i < n_bytes / sizeof *words; i++) {                                         \
            words[i] = decoy;                                                                          \
        }                                                                                              \
        KEEP(words);                                                                                   \
        void *return_addr = late(f, data, decoy);                                                      \
        __asm__ volatile("" : : "r"(words), "i"(number) : "memory");                                   \
        return return_addr;                                                                            \
    }

LATE_CALLER(0)
LATE_CALLER(1)
LATE_CALLER(2)

__attribute__((noinline)) static void inner(size_t n_bytes, call f, void *data) {
    char *bytes = alloca(n_bytes);
    KEEP(bytes);
    f(data);
    KEEP(bytes);
}

/* Calls `f(data)` two frames deeper, the outer one with room for `n_bytes` and the inner one for the
   rest of `n_all`. Nothing is written to that room: what was there before, stays. */
#define SHARED_ROOM(number)                                                                            \
    __attribute__((noinline)) void memtrace_shared_room_##number(size_t n_bytes, size_t n_all, call f, \
                                                                 void *data) {                         \
        char *bytes = alloca(n_bytes);                                                                 \
        KEEP(bytes);                                                                                   \
        inner(n_all - n_bytes, f, data);                                                               \
        __asm__ volatile("" : : "r"(bytes), "i"(number) : "memory");                                   \
    }

SHARED_ROOM(0)
SHARED_ROOM(1)
