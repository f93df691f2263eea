//! Allocates while signals interrupt it whose handlers allocate, and compares every trace with the
//! truth.
//!
//! ```text
//! signals --milliseconds N --seed S [--frames F] [--every E] [--sabotage M]
//! ```
//!
//! Three threads allocate, resize and give back below calls of many kinds ([`work`]), and a timer
//! interrupts each a thousand times a second ([`signals`]): one on its own stack, one on an alternate
//! stack, and one that is always a new thread, which lives for some milliseconds and is interrupted to
//! its last instruction. The handlers do the same work. Of every `E`th allocation, in a handler or not,
//! the recorded stack is compared with what the system's unwinder says ([`hook`]); when all is done the
//! blocks that are recorded are compared with those that are live ([`pool`]).
//!
//! It prints a line for each figure, its name and its value separated by a tab, and fails if anything
//! differs. It ends itself, with a message, if a thread gets no further for ten seconds. With
//! `--sabotage` every Mth answer is spoilt before it is compared: each must show as a difference.

mod arguments;
mod hook;
#[path = "../../unwinding/src/options.rs"]
mod options;
mod pool;
#[path = "../../unwinding/src/rng.rs"]
mod rng;
mod signals;
mod truth;
mod work;

use arguments::Arguments;
use hook::{COUNTS, Checked};
use pool::die;
use signals::{N_SIGNALS, Stack, Timer};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use work::Work;

#[global_allocator]
static ALLOC: Checked = Checked::new();

/// Calls that a thread goes down at most.
const MAX_DEPTH: usize = 60;
/// Steps in the life of a thread that does not live long.
const N_SHORT_STEPS: u64 = 300;
/// Time after which a thread that got no further is taken to be stuck.
const PATIENCE: Duration = Duration::from_secs(10);

static IS_OVER: AtomicBool = AtomicBool::new(false);
/// Steps of each thread.
static N_STEPS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
static N_THREADS: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("error: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let Arguments { milliseconds, seed, n_frames, every, sabotage } = arguments;
    // What a first use allocates is not to be seen.
    println!("figure\tvalue");
    signals::install_handlers();
    if let Err(error) = memtrace_alloc::start(n_frames) {
        eprintln!("error: {error:?}");
        return ExitCode::from(2);
    }
    ALLOC.begin(n_frames, every, sabotage);
    memtrace_alloc::clear_traces();
    ALLOC.pool().begin();
    let before = memtrace_alloc::losses();

    let threads = [
        thread::spawn(move || work_until_over(0, Stack::Own, seed)),
        thread::spawn(move || work_until_over(1, Stack::Alternate, seed + 1)),
        thread::spawn(move || work_on_new_threads(2, seed + 2)),
    ];
    let kept = watch(threads, Duration::from_millis(milliseconds));
    let is_good = compare_all(before);
    drop(kept);
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Works and is interrupted; returns what thread and handler have kept.
fn work_until_over(number: usize, stack: Stack, seed: u64) -> Vec<Work> {
    signals::set_alternate_stack();
    let mut work = Box::new(Work::new(seed));
    let mut handlers = Box::new(Work::new(!seed));
    let handlers_work: *mut Work = &mut *handlers;
    // SAFETY: nobody else uses it before the timer is stopped.
    let timer = unsafe { Timer::start(stack, handlers_work) };
    while !IS_OVER.load(Relaxed) {
        work.step(MAX_DEPTH);
        N_STEPS[number].fetch_add(1, Relaxed);
    }
    timer.stop();
    vec![*work, *handlers]
}

/// Lets one thread after the other work and be interrupted, to its end.
fn work_on_new_threads(number: usize, seed: u64) -> Vec<Work> {
    let mut seed = seed;
    let mut kept = Vec::new();
    while !IS_OVER.load(Relaxed) {
        seed = seed.wrapping_add(0x1_0000_0001);
        let mut handlers = Box::new(Work::new(!seed));
        let handlers_work = (&raw mut *handlers).expose_provenance();
        let short_life = move || {
            let mut work = Box::new(Work::new(seed));
            work.step(MAX_DEPTH);
            // SAFETY: nobody else uses it before this thread has been joined.
            let timer = unsafe {
                Timer::start(Stack::Own, std::ptr::with_exposed_provenance_mut(handlers_work))
            };
            for _ in 0..N_SHORT_STEPS {
                work.step(MAX_DEPTH);
                N_STEPS[number].fetch_add(1, Relaxed);
            }
            (work, timer)
        };
        let (work, timer) = thread::spawn(short_life).join().expect("no thread panics");
        drop(timer);
        N_THREADS.fetch_add(1, Relaxed);
        kept = vec![*work, *handlers];
    }
    kept
}

/// Waits for the time to be over and the threads to end, and sees to it that they get on.
fn watch(threads: [JoinHandle<Vec<Work>>; 3], time: Duration) -> Vec<Work> {
    let begun = Instant::now();
    let mut last = [(0, begun); 3];
    while !threads.iter().all(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(20));
        if begun.elapsed() >= time {
            IS_OVER.store(true, Relaxed);
        }
        for ((n_steps, thread), (seen, since)) in N_STEPS.iter().zip(&threads).zip(&mut last) {
            let now = n_steps.load(Relaxed);
            if now != *seen || thread.is_finished() {
                (*seen, *since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE {
                die("a thread got no further for ten seconds\n");
            }
        }
    }
    threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect()
}

/// Compares what is recorded with what is live, prints all figures, and returns whether all is well.
fn compare_all(before: memtrace_alloc::Losses) -> bool {
    let (mut n_live, mut n_bytes, mut n_live_lost, mut n_unlike) = (0_u64, 0_u64, 0_u64, 0_u64);
    ALLOC.pool().for_each_live(|block| {
        let recorded = memtrace_alloc::trace_at(block.addr).map(|trace| trace.size);
        if block.is_lost {
            n_live_lost += 1;
        } else {
            n_live += 1;
            n_bytes += block.size;
        }
        n_unlike += u64::from(recorded != (!block.is_lost).then_some(block.size));
    });
    let (mut n_recorded, mut n_recorded_bytes) = (0_u64, 0_u64);
    memtrace_alloc::for_each_block(|block| {
        n_recorded += 1;
        n_recorded_bytes += block.size;
    });
    let total = memtrace_alloc::traced_memory().current;
    let n_traces = memtrace_alloc::n_traces();
    let losses = memtrace_alloc::losses();
    let n_nested = losses.n_nested - before.n_nested;
    let n_without_room = losses.n_blocks_without_record - before.n_blocks_without_record;
    let get = |count: &AtomicU64| count.load(Relaxed);
    let figures = [
        ("signals", get(&N_SIGNALS)),
        ("threads ended while interrupted", get(&N_THREADS)),
        ("allocations outside of handlers", get(&COUNTS.n_outside)),
        ("allocations in handlers", get(&COUNTS.n_in_handlers)),
        ("stacks compared outside of handlers", get(&COUNTS.n_compared_outside)),
        ("stacks compared in handlers", get(&COUNTS.n_compared_in_handlers)),
        ("differences", get(&COUNTS.n_differences)),
        ("spoilt", get(&COUNTS.n_sabotaged)),
        ("stacks kept by nested resizes", get(&COUNTS.n_kept_stacks)),
        ("allocations without a record", get(&COUNTS.n_lost)),
        ("nested losses", n_nested),
        ("losses without room", n_without_room),
        ("losses of stacks", losses.n_blocks_without_site),
        ("live blocks recorded", n_recorded),
        ("live blocks", n_live),
        ("live blocks lost", n_live_lost),
        ("live blocks unlike their record", n_unlike),
        ("live bytes recorded", n_recorded_bytes),
        ("live bytes", n_bytes),
        ("live bytes in the totals", total),
    ];
    memtrace_alloc::stop();
    for (name, value) in figures {
        println!("{name}\t{value}");
    }
    get(&COUNTS.n_differences) == 0
        && n_nested + n_without_room == get(&COUNTS.n_lost)
        && losses.n_blocks_without_site == before.n_blocks_without_site
        && n_unlike == 0
        && [n_recorded, n_traces] == [n_live; 2]
        && [n_recorded_bytes, total] == [n_bytes; 2]
}
