//! Threads that allocate and give back at full speed, while another thread takes snapshots, or does
//! something that has nothing to do with the tracer.

use crate::heap::Heap;
use crate::sites::allocate;
use memtrace_benches::analysis::{Beside, BesideFigures, Plan, Planned, State};
use memtrace_benches::stopwatch::waited;
use std::error::Error;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// For how long everybody works, at least.
const WINDOW: Duration = Duration::from_millis(500);

/// Times above this are looked into: how much of them was waiting for a CPU.
const LONG_GAP: Duration = Duration::from_micros(200);
/// Blocks that one thread allocates in turn.
const N_PLANNED: usize = 1000;

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

/// What one thread did in a window, or all together.
#[derive(Clone, Copy, Default)]
struct Done {
    pairs_per_second: f64,
    pairs_per_own_second: f64,
    longest_gap: Duration,
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
            Other::ALL.map(|other| Beside {
                n_threads,
                other: other.name().to_owned(),
                ..Beside::default()
            })
        })
        .collect();
    for round in 0..n_rounds {
        for i in 0..beside.len() {
            let i = (i + round) % beside.len();
            let other = Other::ALL[i % Other::ALL.len()];
            let (done, other) = watch(beside[i].n_threads, other, &memory, heap.plan());
            let millis = |time: Duration| time.as_secs_f64() * 1000.0;
            beside[i].pairs_per_second.push(done.pairs_per_second);
            beside[i].pairs_per_own_second.push(done.pairs_per_own_second);
            beside[i].longest_gap_ms.push(millis(done.longest_gap));
            beside[i].other_ms.push(millis(other));
        }
    }
    Ok(BesideFigures { n_live_traces: heap.plan().n_blocks() as u64, live_table_bytes, beside })
}

/// Lets everybody work for a window; returns what the threads did, and how long the other took for
/// what it did, on average.
fn watch(n_threads: usize, other: Other, memory: &[u64], plan: &Plan) -> (Done, Duration) {
    let barrier = Barrier::new(n_threads + 1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|i| {
                let planned = &plan.kept()[i * N_PLANNED..(i + 1) * N_PLANNED];
                let (barrier, is_over) = (&barrier, &is_over);
                scope.spawn(move || allocate_until(is_over, barrier, planned))
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let mut n_times = 0;
        while start.elapsed() < WINDOW {
            other.run(memory);
            n_times += 1;
        }
        let other = start.elapsed() / n_times;
        is_over.store(true, Relaxed);
        let mut all = Done::default();
        for thread in threads {
            let done = thread.join().expect("the thread only allocates");
            all.pairs_per_second += done.pairs_per_second;
            all.pairs_per_own_second += done.pairs_per_own_second;
            all.longest_gap = all.longest_gap.max(done.longest_gap);
        }
        (all, other)
    })
}

/// Allocates and gives back until told to end.
fn allocate_until(is_over: &AtomicBool, barrier: &Barrier, planned: &[Planned]) -> Done {
    // Allocates once what there is to allocate once.
    drop(black_box(allocate(planned[0])));
    barrier.wait();
    let (start, waited_before) = (Instant::now(), waited());
    let (mut last, mut last_waited) = (start, waited_before);
    let (mut longest_gap, mut n_pairs) = (Duration::ZERO, 0_u32);
    for &planned in planned.iter().cycle() {
        // Relaxed: the flag publishes nothing.
        if is_over.load(Relaxed) {
            break;
        }
        drop(black_box(allocate(planned)));
        n_pairs += 1;
        let now = Instant::now();
        let mut gap = now - last;
        last = now;
        if gap > LONG_GAP {
            let waited = waited();
            gap = gap.saturating_sub(waited - last_waited);
            // What the look at the waiting took is nobody's gap.
            (last, last_waited) = (Instant::now(), waited);
        }
        longest_gap = longest_gap.max(gap);
    }
    let passed = start.elapsed();
    let per_second = |time: Duration| f64::from(n_pairs) / time.as_secs_f64();
    Done {
        pairs_per_second: per_second(passed),
        pairs_per_own_second: per_second(passed.saturating_sub(waited() - waited_before)),
        longest_gap,
    }
}
