//! A run: the main thread, threads beside it, and a thread that is interrupted.

use crate::arguments::Arguments;
use crate::calls::{coroutine, late, signal};
use crate::comparison::Comparer;
use crate::descent::descend;
use crate::kind::Kind;
use crate::plan::{Place, Plans};
use crate::tally::Tally;
use std::process;
use std::thread;
use std::time::Duration;

/// Threads at a time.
const N_THREADS: u64 = 3;
/// Captures that a thread makes before it ends.
const CAPTURES_A_THREAD: u64 = 20_000;
/// Plans that are taken before the library is prepared, when addresses are looked up otherwise.
const PLANS_UNPREPARED: usize = 20;

/// Compares as many captures as were asked for and returns the counts.
pub(crate) fn run(arguments: &Arguments) -> Tally {
    let &Arguments { n_captures, seed, sabotage } = arguments;
    end_after(Duration::from_secs(120 + n_captures / 10_000));
    signal::install_handlers();
    let mut tally = Tally::new(sabotage.is_some());
    let mut comparer = Comparer::new(true, sabotage);
    let ours: *mut Comparer = &mut *comparer;
    let _stack = signal::AlternateStack::new();

    let mut plans = Plans::new(Place::Thread, seed);
    coroutine::begin(seed);
    Comparer::with(ours, || {
        for _ in 0..PLANS_UNPREPARED {
            descend(&plans.next(), Kind::Root, &mut || {});
        }
        memtrace_unwind::prepare();
        memtrace_unwind::forget_unloaded();
        // At least until a library was unloaded and another came to lie where it was.
        while n_comparisons(ours) < n_captures / 2
            || Kind::Late.is_possible() && !late::is_address_reused()
        {
            descend(&plans.next(), Kind::Root, &mut || {});
        }
    });
    coroutine::end();

    let until = n_captures * 3 / 4;
    let mut seed = seed;
    let mut n_others = 0;
    while n_comparisons(ours) + n_others < until || n_others == 0 {
        let share = (until.saturating_sub(n_comparisons(ours) + n_others) / N_THREADS)
            .clamp(100, CAPTURES_A_THREAD);
        let threads: Vec<_> = (0..N_THREADS)
            .map(|_| {
                seed = seed.wrapping_add(0x1_0000_0001);
                thread::spawn(move || run_thread(share, seed, sabotage))
            })
            .collect();
        for thread in threads {
            let of_thread = thread.join().expect("no thread panics");
            n_others += of_thread.n_comparisons();
            tally.add(&of_thread);
        }
    }

    let mut in_handler = Comparer::new(false, sabotage);
    let mut plans = Plans::new(Place::Interrupted, !seed);
    Comparer::with(ours, || {
        let timer = Kind::Interrupted.is_possible().then(|| signal::Timer::start(&mut in_handler));
        while n_comparisons(ours) + n_others < n_captures
            || timer.as_ref().is_some_and(|timer| timer.n_interruptions() < 20)
        {
            descend(&plans.next(), Kind::Root, &mut || {});
        }
    });
    tally.add(in_handler.tally());
    tally.add(comparer.tally());
    tally
}

/// Ends the program if it takes many times what it should: captures that wait for each other would
/// never end.
fn end_after(time: Duration) {
    thread::spawn(move || {
        thread::sleep(time);
        eprintln!("stopped: not done after {time:?}");
        process::abort();
    });
}

fn run_thread(n_captures: u64, seed: u64, sabotage: Option<u64>) -> Tally {
    let mut comparer = Comparer::new(true, sabotage);
    let ours: *mut Comparer = &mut *comparer;
    let _stack = signal::AlternateStack::new();
    let mut plans = Plans::new(Place::Thread, seed);
    coroutine::begin(seed);
    Comparer::with(ours, || {
        while n_comparisons(ours) < n_captures {
            descend(&plans.next(), Kind::Root, &mut || {});
        }
    });
    coroutine::end();
    comparer.tally().clone()
}

/// The count so far of a comparer that is in use by this thread.
fn n_comparisons(comparer: *const Comparer) -> u64 {
    // SAFETY: the comparer is alive, and between two nodes nothing refers to it.
    unsafe { &*comparer }.tally().n_comparisons()
}
