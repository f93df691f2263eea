//! Prints where a busy program spends its time: a timer signal captures the stack of whatever runs.
//!
//! ```text
//! cargo run --release -p memtrace-unwind --example stack_sampler
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DEPTH: usize = 16;
const MAX_SAMPLES: usize = 1000;
static SAMPLES: [[AtomicU64; DEPTH]; MAX_SAMPLES] =
    [const { [const { AtomicU64::new(0) }; DEPTH] }; MAX_SAMPLES];
static N_SAMPLES: AtomicUsize = AtomicUsize::new(0);

/// Runs in a signal handler: a capture neither allocates nor locks.
extern "C" fn on_timer(_: libc::c_int) {
    let mut call_addrs = [0; DEPTH];
    memtrace_unwind::capture(&memtrace_unwind::StackBounds::current(), &mut call_addrs);
    let i = N_SAMPLES.fetch_add(1, Relaxed);
    if let Some(sample) = SAMPLES.get(i) {
        sample.iter().zip(call_addrs).for_each(|(slot, addr)| slot.store(addr, Relaxed));
    }
}

fn main() {
    memtrace_unwind::prepare();
    let interval = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the handler has a handler's signature and calls only what is safe in one.
    unsafe { libc::signal(libc::SIGPROF, on_timer as *const () as usize) };
    // SAFETY: `timer` is a valid value.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) };

    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        let mut words: Vec<String> = (0..20_000u64).map(|i| (i * i % 9973).to_string()).collect();
        words.sort();
    }

    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGPROF, libc::SIG_IGN) };
    let n_samples = N_SAMPLES.load(Relaxed).min(MAX_SAMPLES);
    let mut n_by_function: HashMap<String, usize> = HashMap::new();
    for sample in &SAMPLES[..n_samples] {
        // The frames below the handler's own and the signal trampoline's.
        let addr = sample[2].load(Relaxed);
        backtrace::resolve(addr as *mut _, |symbol| {
            let name = symbol.name().map_or("?".into(), |name| format!("{name:#}"));
            *n_by_function.entry(name).or_default() += 1;
        });
    }
    let mut rows: Vec<_> = n_by_function.into_iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.1));
    println!("{n_samples} samples");
    for (function, n) in rows.iter().take(8) {
        println!("{n:6}  {function}");
    }
}
