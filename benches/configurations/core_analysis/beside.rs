//! Threads that allocate and give back at full speed, while another thread takes snapshots, or does
//! something that has nothing to do with the tracer.

use crate::heap::Heap;
use crate::sites::allocate;
use memtrace_benches::analysis::{Beside, BesideFigures, Plan, Planned, State};
use std::error::Error;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// For how long everybody works, at least.
const WINDOW: Duration = Duration::from_millis(500);

/// What the other thread does.
#[derive(Clone, Copy)]
enum Other {
    Sleeps,
    Spins,
    Reads,
    TakesSnapshots,
}

impl Other {
    const ALL: [Self; 4] = [Self::Sleeps, Self::Spins, Self::Reads, Self::TakesSnapshots];

    fn name(self) -> &'static str {
        match self {
            Self::Sleeps => "sleeps",
            Self::Spins => "spins",
            Self::Reads => "reads memory",
            Self::TakesSnapshots => "takes snapshots",
        }
    }

    /// Does it once.
    fn run(self, memory: &[u64]) {
        match self {
            Self::Sleeps => thread::sleep(WINDOW),
            Self::Spins => (0..100_000_u32).for_each(|i| {
                black_box(i);
            }),
            Self::Reads => {
                black_box(memory.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word)));
            }
            Self::TakesSnapshots => {
                black_box(memtrace::take_snapshot().expect("tracing is on"));
            }
        }
    }
}

/// What one window showed.
struct Window {
    pairs_per_second: f64,
    longest_gap: Duration,
    other_ms: f64,
}

/// Measures one and two threads beside each [`Other`], in turn.
pub(crate) fn measure(n_blocks: usize, n_rounds: usize) -> Result<BesideFigures, Box<dyn Error>> {
    let heap = Heap::start(Plan::new(n_blocks))?;
    heap.enter(State::Old);
    // Names are found once.
    memtrace::take_snapshot()?;
    let live_table_bytes = memtrace::tracer_memory().live_table;
    let memory = memtrace::untraced(|| vec![1_u64; live_table_bytes as usize / 8]);
    let mut beside: Vec<Beside> = [1, 2]
        .into_iter()
        .flat_map(|n_threads| {
            Other::ALL.map(|other| {
                Beside { n_threads, other: other.name().to_owned(), ..Beside::default() }
            })
        })
        .collect();
    for round in 0..n_rounds {
        for i in 0..beside.len() {
            let i = (i + round) % beside.len();
            let other = Other::ALL[i % Other::ALL.len()];
            let window = watch(beside[i].n_threads, other, &memory, heap.plan());
            beside[i].pairs_per_second.push(window.pairs_per_second);
            beside[i].longest_gap_ms.push(window.longest_gap.as_secs_f64() * 1000.0);
            beside[i].other_ms.push(window.other_ms);
        }
    }
    Ok(BesideFigures { n_live_traces: heap.plan().n_blocks() as u64, live_table_bytes, beside })
}

fn watch(n_threads: usize, other: Other, memory: &[u64], plan: &Plan) -> Window {
    let barrier = Barrier::new(n_threads + 1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|i| {
                let planned = &plan.kept()[i * 1000..(i + 1) * 1000];
                let (barrier, is_over) = (&barrier, &is_over);
                scope.spawn(move || allocate_until(is_over, barrier, planned))
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let mut n_done = 0;
        while start.elapsed() < WINDOW {
            other.run(memory);
            n_done += 1;
        }
        let elapsed = start.elapsed();
        is_over.store(true, Relaxed);
        let mut window = Window {
            pairs_per_second: 0.0,
            longest_gap: Duration::ZERO,
            other_ms: elapsed.as_secs_f64() * 1000.0 / f64::from(n_done),
        };
        for thread in threads {
            let (pairs_per_second, longest_gap) = thread.join().expect("the thread only allocates");
            window.pairs_per_second += pairs_per_second;
            window.longest_gap = window.longest_gap.max(longest_gap);
        }
        window
    })
}

/// Allocates and gives back until told to end; returns pairs per second, and the longest time from
/// the end of one to the end of the next.
fn allocate_until(is_over: &AtomicBool, barrier: &Barrier, planned: &[Planned]) -> (f64, Duration) {
    barrier.wait();
    let start = Instant::now();
    let (mut last, mut longest_gap, mut n_pairs) = (start, Duration::ZERO, 0_u64);
    // Relaxed: the flag publishes nothing.
    for &planned in planned.iter().cycle() {
        if is_over.load(Relaxed) {
            break;
        }
        drop(black_box(allocate(planned)));
        n_pairs += 1;
        let now = Instant::now();
        longest_gap = longest_gap.max(now - last);
        last = now;
    }
    (n_pairs as f64 / (last - start).as_secs_f64(), longest_gap)
}
