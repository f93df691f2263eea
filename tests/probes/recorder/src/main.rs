//! Allocates on many threads at random, and compares every trace with the truth.
//!
//! ```text
//! recorder --milliseconds N --seed S [--threads T]
//!          [--miss-frees M | --drop-records M | --drop-canaries M]
//! ```
//!
//! The program's allocator is memtrace's around one that keeps the [`truth`]. Threads allocate, resize, give
//! back and hand to each other ([`load`]); others scan ([`canaries`]), and stop, start and clear; children
//! are forked ([`children`]). Again and again everything falls quiet ([`rounds`]), and all traces and totals
//! are [compared](compare) with the truth.
//!
//! The first difference ends the process, with a message that names it. So does a time of thirty seconds in
//! which nothing moves. It prints a line for each figure, its name and its value separated by a tab. The last
//! three options break something on purpose, which must show as a difference.

mod arguments;
mod canaries;
mod children;
mod compare;
mod held;
mod load;
#[path = "../../unwinding/src/options.rs"]
mod options;
mod report;
#[path = "../../unwinding/src/rng.rs"]
mod rng;
mod rounds;
mod sites;
mod truth;

use arguments::Arguments;
use memtrace_alloc::Alloc;
use report::{FIGURES, differs};
use rng::Rng;
use rounds::Rounds;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use truth::Truth;

#[global_allocator]
static ALLOC: Alloc<Truth> = Alloc::new(Truth::new());

/// Seconds after which nothing is expected to move any more.
const PATIENCE: u32 = 30;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("error: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let Arguments { milliseconds, seed, n_threads, sabotage } = arguments;
    // What a first use allocates for good is not to be seen as left over.
    drop(thread::spawn(watch));
    load::make_key(0);
    let begun = Instant::now();
    let mut rng = Rng::new(!seed);
    let mut rounds = Rounds::new(seed, n_threads, sabotage);
    load::make_key(1);
    loop {
        let left = Duration::from_millis(milliseconds).saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        let time = if rng.below(3) == 0 { rng.below(4000) } else { rng.below(600) };
        rounds.run(Duration::from_millis(20 + time as u64).min(left));
    }
    memtrace_alloc::stop();
    compare::expect_nothing("at the end");
    report::print_figures();
    ExitCode::SUCCESS
}

/// Ends the process if nothing moves.
fn watch() {
    let moved = || {
        let counts = ALLOC.inner().counts();
        counts.n_allocations + counts.n_releases + FIGURES.n_scans.load(Relaxed)
    };
    let (mut last, mut n_seconds) = (moved(), 0);
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = moved();
        n_seconds = if now == last { n_seconds + 1 } else { 0 };
        last = now;
        if n_seconds >= PATIENCE {
            differs(format_args!("nothing has moved for {PATIENCE} seconds"));
        }
    }
}
