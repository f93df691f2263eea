//! Snapshots across a fork of a program that is taking one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

#[test]
#[ignore = "rarely, the thread that the child does not have held the loader's own lock"]
fn a_child_takes_snapshots_though_another_thread_was_taking_one() {
    memtrace::start(25).unwrap();
    let kept: Vec<Box<usize>> = (0..50_000).map(Box::new).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                memtrace::take_snapshot().unwrap();
            }
        });
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(5));
            // SAFETY: the child uses memory, which glibc's allocator allows after a fork, and ends
            // without unwinding into the parent's code.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // A child that waits for a thread which it does not have is ended by the alarm.
                // SAFETY: takes a number.
                unsafe { libc::alarm(20) };
                let n_traces = memtrace::take_snapshot().map_or(0, |snapshot| snapshot.n_traces());
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(if n_traces >= kept.len() { 0 } else { 1 }) };
            }
            assert!(pid > 0, "fork failed");
            let mut status = 0;
            // SAFETY: `status` is a valid place for the result.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
        }
        is_done.store(true, Relaxed);
    });
}
