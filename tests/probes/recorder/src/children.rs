//! Forked children, which check what they have inherited.

use crate::canaries::{Canary, Scans};
use crate::compare;
use crate::report::{FIGURES, count, differs, ensure};
use crate::truth::IS_CHILD;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

/// Seconds that a child may take.
const PATIENCE: libc::c_uint = 30;

/// Forks, and waits for the child to find everything well. `scans` is nobody else's.
pub(crate) fn fork(canaries: &[Canary], scans: &mut Scans) {
    // SAFETY: the child uses memory, which glibc's allocator allows after a fork, and ends without unwinding.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        IS_CHILD.store(true, Relaxed);
        // SAFETY: the default action ends the process.
        unsafe { libc::alarm(PATIENCE) };
        live(canaries, scans);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    ensure!(pid > 0, "a fork failed");
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let ended = unsafe { libc::waitpid(pid, &mut status, 0) };
    if ended != pid || status != 0 {
        let is_hung = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGALRM;
        differs(format_args!(
            "a forked child {}, with status {status:#x}",
            if is_hung { "hung" } else { "failed" }
        ));
    }
    count(&FIGURES.n_forks);
}

fn live(canaries: &[Canary], scans: &mut Scans) {
    // Threads that the child does not have were in the middle of something; its totals are those of its
    // own table.
    compare_sums("after a fork");
    scans.scan(canaries);
    if !memtrace_alloc::is_tracing() {
        return;
    }
    let before = memtrace_alloc::losses();
    let kept: Vec<String> = (0..1000).map(|i| format!("{i}")).collect();
    let n_recorded = kept.iter().filter(|text| is_recorded(text)).count();
    let after = memtrace_alloc::losses();
    let n_lost = after.n_blocks_without_record - before.n_blocks_without_record;
    ensure!(
        n_recorded as u64 + n_lost >= 1000 || is_sampled(),
        "of 1000 blocks that a forked child allocated {n_recorded} are recorded, {n_lost} are lost"
    );
    compare_sums("with more blocks");
    drop(black_box(kept));
    compare_sums("with these given back");
    scans.scan(canaries);
    memtrace_alloc::clear_traces();
    compare::expect_nothing("in a forked child that has forgotten all traces");
}

fn is_sampled() -> bool {
    memtrace_alloc::sample_period().is_some()
}

fn is_recorded(text: &str) -> bool {
    memtrace_alloc::trace_at(text.as_ptr().addr() as u64).is_some()
}

fn compare_sums(when: &str) {
    let (mut n_blocks, mut n_bytes) = (0_u64, 0_u64);
    memtrace_alloc::for_each_block(|block| {
        n_blocks += 1;
        n_bytes += block.size;
    });
    // What a sample stands for is not known here.
    let n_bytes = match memtrace_alloc::is_tracing() {
        true if is_sampled() => memtrace_alloc::traced_memory().current,
        true => n_bytes,
        false => 0,
    };
    let (current, n_traces) = (memtrace_alloc::traced_memory().current, memtrace_alloc::n_traces());
    ensure!(
        (current, n_traces) == (n_bytes, n_blocks),
        "in a forked child, {when}: {current} bytes and {n_traces} blocks in the totals, {n_bytes} bytes \
         and {n_blocks} blocks recorded"
    );
}
