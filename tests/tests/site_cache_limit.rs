//! What threads remember of their captures stays within its limit, and is as much as they need without one.

use memtrace_alloc::{Options, tracer_memory};
use memtrace_tests::paths::allocate;
use std::thread;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

const HAS_CACHES: bool =
    cfg!(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)));

/// Allocates on 8192 stacks, often enough for them to be remembered; returns the bytes that caches then take.
fn remembered() -> u64 {
    let work = || {
        for _ in 0..10 {
            (0..1 << 13).for_each(|path| drop(allocate(path, 13)));
        }
        tracer_memory().site_caches
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

#[test]
fn caches_stay_within_their_limit_and_grow_beyond_it_without() {
    for limit in [0, 1 << 20] {
        memtrace_alloc::start_with(Options::new().frames(60).site_cache_limit(limit)).unwrap();
        let bytes = remembered();
        memtrace_alloc::stop();
        assert!(bytes <= limit, "{bytes} of {limit}");
        assert_eq!(bytes != 0, limit != 0 && HAS_CACHES, "{bytes} of {limit}");
    }
    memtrace_alloc::start_with(Options::new().frames(60)).unwrap();
    let bytes = remembered();
    memtrace_alloc::stop();
    if HAS_CACHES {
        assert!((4 << 20..16 << 20).contains(&bytes), "{bytes}");
    }
}
