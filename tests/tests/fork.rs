//! Tracing across a fork of a program whose other threads allocate.

use memtrace_tests::rng::Rng;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

#[test]
fn a_forked_child_goes_on_tracing() {
    memtrace::start(25).unwrap();
    let is_done = AtomicBool::new(false);
    // Stacks of many depths, so that new sites are interned all the time.
    fn at_depth(n: usize, rng: &mut Rng) -> usize {
        if n == 0 {
            return black_box(vec![0u8; 1 + rng.below(100)]).len();
        }
        black_box(at_depth(n - 1, rng) + black_box(vec![0u8; n]).len())
    }
    let work = |seed: usize| {
        let mut rng = Rng::new(seed as u64);
        while !is_done.load(Relaxed) {
            let depth = rng.below(200);
            at_depth(depth, &mut rng);
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || work(seed))).collect();
        for n in 0..200 {
            // A tool's own section must not change what a fork does.
            let fork = || {
                // SAFETY: the child uses memory, which glibc's allocator allows after a fork, and
                // ends without unwinding into the parent's code.
                unsafe { libc::fork() }
            };
            let pid = if n % 2 == 0 { fork() } else { memtrace::untraced(fork) };
            if pid == 0 {
                // Threads that the child does not have were in the middle of something: still, its
                // own totals are those of its own table.
                let mut n_bytes = 0;
                memtrace_alloc::for_each_block(|block| n_bytes += block.size);
                let agrees = n_bytes == memtrace::traced_memory().current;
                let kept: Vec<String> = (0..1000).map(|i| format!("{i}")).collect();
                let is_right = agrees
                    && memtrace::is_tracing()
                    && memtrace_alloc::trace_at(kept[7].as_ptr().addr() as u64).is_some()
                    && memtrace::traced_memory().current > 1000;
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(if is_right { 0 } else { 1 }) };
            }
            wait_for(pid);
        }
        is_done.store(true, Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let snapshot = memtrace::take_snapshot().unwrap();
    assert_eq!(snapshot.total_size(), memtrace::traced_memory().current);
}

/// Waits for a child to succeed, for at most 20 seconds.
fn wait_for(pid: libc::pid_t) {
    assert!(pid > 0, "fork failed");
    let mut status = 0;
    for _ in 0..20_000 {
        // SAFETY: `status` is a valid place for the result.
        let ended = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if ended == pid {
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
            return;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    // SAFETY: the child is this process's own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    panic!("a forked child hung");
}
