//! Sampled tracing through the real hook, of programs whose truth is known.
//!
//! Cases run one after another on the main thread, so that totals can be compared exactly.

use libtest_mimic::{Arguments, Trial};
use memtrace::{Config, KeyType, Snapshot, Started, Statistic};
use memtrace_tests::rng::Rng;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

const PERIOD: u64 = 16 * 1024;

fn start(config: Config) {
    memtrace::stop();
    assert_eq!(memtrace::start_with(config), Ok(Started::Now));
}

/// A block as the hook sees it.
struct Block {
    addr: usize,
    layout: Layout,
}

impl Block {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not zero.
        let block = black_box(unsafe { alloc(layout) });
        assert!(!block.is_null());
        Self { addr: block.expose_provenance(), layout }
    }

    fn zeroed(size: usize) -> Self {
        let layout = Layout::from_size_align(size, 64).unwrap();
        // SAFETY: the size is not zero.
        let block = black_box(unsafe { alloc_zeroed(layout) });
        assert!(!block.is_null());
        Self { addr: block.expose_provenance(), layout }
    }

    fn resize(&mut self, size: usize) {
        let block = std::ptr::with_exposed_provenance_mut(self.addr);
        // SAFETY: the live block, with its layout.
        let block = black_box(unsafe { realloc(block, self.layout, size) });
        assert!(!block.is_null());
        self.addr = block.expose_provenance();
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
    }

    fn is_recorded(&self) -> bool {
        memtrace_alloc::trace_at(self.addr as u64).is_some()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let block = std::ptr::with_exposed_provenance_mut(self.addr);
        // SAFETY: the live block, with its layout.
        unsafe { dealloc(block, self.layout) };
    }
}

#[inline(never)]
fn small(rng: &mut Rng) -> Block {
    black_box(Block::new(16 + rng.below(100)))
}

#[inline(never)]
fn medium(rng: &mut Rng) -> Block {
    black_box(Block::new(200 + rng.below(8000)))
}

#[inline(never)]
fn large(rng: &mut Rng) -> Block {
    black_box(Block::new(PERIOD as usize + rng.below(100_000)))
}

#[inline(never)]
fn grown(rng: &mut Rng) -> Block {
    let mut block = Block::new(10);
    for _ in 0..3 {
        block.resize(block.layout.size() * (2 + rng.below(3)));
    }
    black_box(block)
}

type Make = fn(&mut Rng) -> Block;

const MAKERS: [(&str, Make, usize); 4] = [
    ("small", small, 40_000),
    ("medium", medium, 800),
    ("large", large, 60),
    ("grown", grown, 9000),
];

/// Blocks of each kind, made by four threads that also release some and hand them over.
fn make_blocks() -> Vec<(&'static str, Vec<Block>)> {
    let of = |seed: usize| {
        let mut rng = Rng::new(seed as u64);
        MAKERS.map(|(name, make, n)| {
            // What the vectors themselves take is none of the program's.
            let mut kept = memtrace::untraced(|| Vec::with_capacity(n));
            for _ in 0..n {
                drop(make(&mut rng));
                kept.push(make(&mut rng));
                if rng.below(10) == 0 {
                    let at = rng.below(kept.len());
                    kept[at] = make(&mut rng);
                }
            }
            (name, kept)
        })
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || of(seed))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn of_function<'a>(statistics: &'a [Statistic], name: &str) -> &'a Statistic {
    let name = format!("<sampling::{name}>");
    statistics.iter().find(|group| *group.traceback[0].filename == *name).unwrap()
}

/// Whether a figure is as near to the truth as its error says; with intervals two and a half times as
/// wide, which hold it in all but one of a million cases.
fn check(what: &str, found: u64, error: u64, truth: u64) {
    assert!(found.abs_diff(truth) <= error * 5 / 2, "{what}: {found} ±{error}, truth {truth}");
}

/// What the traces of a snapshot of heap blocks stand for, rounded one by one as the recorder does.
fn sum_of(snapshot: &Snapshot) -> u64 {
    let period = snapshot.sample_period().unwrap().get();
    let estimate = |size: u64| {
        let p = -(-(size as f64) / period as f64).exp_m1();
        if size >= period { size } else { (size as f64 / p).round() as u64 }
    };
    snapshot.traces().map(|trace| estimate(trace.size)).sum()
}

fn a_program_of_four_threads_is_estimated_within_its_intervals() {
    start(Config::new().frames(10).threads(true).sample_every(PERIOD));
    assert_eq!(memtrace::sample_period(), NonZeroU64::new(PERIOD));
    let blocks = make_blocks();
    let snapshot = memtrace::take_snapshot().unwrap();
    let current = memtrace::traced_memory().current;
    assert_eq!(snapshot.sample_period(), NonZeroU64::new(PERIOD));
    memtrace::untraced(|| {
        let statistics = snapshot.statistics(KeyType::InclusiveFunction);
        let mut n_blocks = 0;
        for (name, _, _) in MAKERS {
            let all = blocks.iter().filter(|(of, _)| *of == name).flat_map(|(_, blocks)| blocks);
            let (mut size, mut count) = (0, 0);
            for block in all {
                size += block.layout.size() as u64;
                count += 1;
            }
            n_blocks += count;
            let group = of_function(&statistics, name);
            let error = group.error.unwrap();
            check(name, group.size, error.size, size);
            check(name, group.count, error.count, count);
            if name == "large" {
                assert_eq!((group.size, group.count), (size, count));
                assert_eq!((error.size, error.count), (0, 0));
            }
        }
        assert!((snapshot.n_traces() as u64) < n_blocks / 10, "{snapshot:?}");
        let threads = snapshot.statistics(KeyType::Thread);
        let sum: u64 = threads.iter().map(|group| group.count).sum();
        assert!(threads.len() >= 4 && sum.abs_diff(snapshot.total_count()) <= threads.len() as u64);
        // What the recorder has counted is what the snapshot's traces stand for, to the byte.
        assert_eq!(current, sum_of(&snapshot));
        assert!(current.abs_diff(snapshot.total_size()) <= snapshot.n_traces() as u64);
    });
    memtrace::untraced(|| drop(blocks));
}

fn nothing_is_left_of_what_was_freed() {
    start(Config::new().sample_every(PERIOD));
    let before = memtrace::traced_memory().current;
    let blocks = make_blocks();
    assert!(memtrace::traced_memory().current > before + 4_000_000);
    drop(blocks);
    assert_eq!(memtrace::traced_memory().current, before);
    assert_eq!(memtrace_alloc::n_traces(), 0);
    assert_eq!(before, 0);
}

/// Of threads whose blocks lie in the same pages, some too large for what a release looks at first.
fn no_release_is_missed_where_threads_share_pages() {
    start(Config::new().sample_every(300));
    for round in 0..4 {
        let blocks: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|seed| {
                    scope.spawn(move || {
                        let mut rng = Rng::new(seed + 8 * round);
                        let mut kept: Vec<Block> =
                            (0..200).map(|_| Block::new(1 + rng.below(200))).collect();
                        kept.extend([15, 16, 17].map(|n| Block::new((n << 20) - 1)));
                        for _ in 0..20_000 {
                            let at = rng.below(200);
                            match rng.below(3) {
                                0 => kept[at].resize(1 + rng.below(200)),
                                1 => kept[at] = Block::zeroed(1 + rng.below(200)),
                                _ => kept[at] = Block::new(1 + rng.below(200)),
                            }
                        }
                        kept
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(blocks.len(), 8 * 203);
        if round == 2 {
            memtrace::clear_traces();
        }
        drop(blocks);
        assert_eq!((memtrace_alloc::n_traces(), memtrace::traced_memory().current), (0, 0));
    }
}

/// Sixteen threads allocate, resize, release and track while `disturb` runs; returns what they have then.
fn while_threads_allocate(disturb: impl FnOnce()) -> Vec<Vec<Block>> {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|seed| {
                let is_done = &is_done;
                scope.spawn(move || {
                    let mut rng = Rng::new(seed);
                    let mut kept: Vec<Block> =
                        (0..50).map(|_| Block::new(1 + rng.below(500))).collect();
                    while !is_done.load(Relaxed) {
                        let at = rng.below(kept.len());
                        match rng.below(4) {
                            0 => kept[at].resize(1 + rng.below(1000)),
                            1 => kept[at] = Block::zeroed(1 + rng.below(100)),
                            2 => kept[at] = Block::new(1 + rng.below(1000)),
                            _ => {
                                // Fail while tracing is off.
                                let addr = kept[at].addr as u64;
                                let _ = memtrace::track(0, addr, 1 + rng.below(1000) as u64);
                                let _ = memtrace::untrack(0, addr);
                            }
                        }
                    }
                    kept
                })
            })
            .collect();
        disturb();
        is_done.store(true, Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Starts and stops time and again, and leaves tracing on at last.
fn start_time_and_again(n_times: usize, config: impl Fn(usize) -> Config) {
    memtrace::stop();
    for n in 0..n_times {
        assert_eq!(memtrace::start_with(config(n)), Ok(Started::Now));
        if n % 7 == 0 {
            memtrace::clear_traces();
        }
        thread::yield_now();
        if n < n_times - 1 {
            memtrace::stop();
        }
    }
}

/// What was allocated at each site in this run and not given back is what is traced there.
fn totals_by_site_are_those_of_the_last_of_many_runs() {
    let kept = while_threads_allocate(|| {
        start_time_and_again(60, |n| {
            let periods = [300, 0, PERIOD, 0];
            let config = Config::new().frames(5).sample_every(periods[n % 4]);
            config.site_totals(n % 3 != 1).lifetimes(n % 5 == 4)
        });
        for _ in 0..20 {
            memtrace::clear_traces();
            thread::yield_now();
        }
    });
    memtrace::untraced(|| {
        let mut traced = BTreeMap::<u32, (i64, i64)>::new();
        memtrace_alloc::for_each_block(|block| {
            let (n_blocks, bytes) = traced.entry(block.site.get()).or_default();
            (*n_blocks, *bytes) = (*n_blocks + 1, *bytes + block.size as i64);
        });
        let mut counted = BTreeMap::new();
        assert!(memtrace_alloc::for_each_site_totals(|site, totals| {
            let live = |allocated: u64, freed: u64| allocated as i64 - freed as i64;
            let n_blocks = live(totals.n_allocated, totals.n_freed);
            counted
                .insert(site.get(), (n_blocks, live(totals.allocated_bytes, totals.freed_bytes)));
        }));
        counted.retain(|_, live| *live != (0, 0));
        // Only threads that began in this run, or were given a block in it, have any.
        assert!(!counted.is_empty());
        assert_eq!(counted, traced);
    });
    drop(kept);
}

/// Who asks while another thread clears the traces of a run that has to be begun anew.
fn tracing_is_on_while_traces_are_cleared() {
    start(Config::new().sample_every(300).site_totals(true));
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !is_done.load(Relaxed) {
                assert!(memtrace_alloc::is_tracing());
                assert_eq!(memtrace::sample_period(), NonZeroU64::new(300));
                assert!(memtrace::churn().is_ok());
                assert_eq!(
                    memtrace::take_snapshot().unwrap().sample_period(),
                    NonZeroU64::new(300)
                );
            }
        });
        for _ in 0..400 {
            memtrace::clear_traces();
        }
        is_done.store(true, Relaxed);
        asking.join().unwrap();
    });
}

/// Threads allocate, resize and release while tracing stops and starts with other periods.
fn periods_that_change_while_threads_allocate_leave_nothing_behind() {
    const PERIODS: [u64; 6] = [0, 2, 300, PERIOD, 100, 1 << 20];
    drop(while_threads_allocate(|| {
        start_time_and_again(60, |n| {
            let every = PERIODS[n % PERIODS.len()];
            Config::new().frames(5).sample_every(every).generations(n % 5 == 0)
        });
    }));
    let snapshot = memtrace::take_snapshot().unwrap();
    assert_eq!(memtrace::traced_memory().current, sum_of(&snapshot));
    memtrace::stop();
    assert_eq!(memtrace_alloc::n_traces(), 0);
    start(Config::new().sample_every(1 << 30));
    // A sum below zero would be told as zero.
    memtrace::track(7, 0x1000, 1 << 40).unwrap();
    assert_eq!(memtrace::traced_memory().current, 1 << 40);
    memtrace::untrack(7, 0x1000).unwrap();
}

fn what_the_program_tells_of_counts_for_itself_whatever_its_domain() {
    start(Config::new().sample_every(1 << 20));
    memtrace::track(0, 0x1000, 100).unwrap();
    memtrace::track(7, 0x1000, 10).unwrap();
    // A block that is recorded for sure, and one that is not.
    let recorded = Block::new(1 << 20);
    let other = loop {
        let block = Block::new(1000);
        if !block.is_recorded() {
            break block;
        }
    };
    assert_eq!(memtrace::traced_memory().current, (1 << 20) + 110);
    for (block, size) in [(&recorded, 2000), (&other, 3000)] {
        memtrace::track(0, block.addr as u64, size).unwrap();
    }
    assert_eq!(memtrace::traced_memory().current, 5110);
    let snapshot = memtrace::take_snapshot().unwrap();
    assert_eq!((snapshot.total_size(), snapshot.total_count()), (5110, 4));
    assert_eq!(snapshot.total_error().map(|error| (error.size, error.count)), Some((0, 0)));
    let path = std::env::temp_dir().join(format!("sampling-{}.snap", std::process::id()));
    snapshot.dump(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((loaded.total_size(), loaded.total_error()), (5110, snapshot.total_error()));
    for block in [&recorded, &other] {
        memtrace::untrack(0, block.addr as u64).unwrap();
    }
    memtrace::untrack(7, 0x1000).unwrap();
    memtrace::untrack(0, 0x1000).unwrap();
    assert_eq!(memtrace::traced_memory().current, 0);
    drop((recorded, other));
    assert_eq!(memtrace::traced_memory().current, 0);
}

/// A block that is resized is decided on anew: what is recorded of it is its new size, or nothing.
fn a_resized_block_is_recorded_by_the_chance_of_its_new_size() {
    start(Config::new().sample_every(1 << 16));
    let mut n_recorded = 0;
    for _ in 0..2000 {
        let mut block = Block::new(1 << 16);
        assert!(block.is_recorded());
        block.resize(1 << 12);
        let record = memtrace_alloc::trace_at(block.addr as u64);
        assert!(record.is_none_or(|record| record.size == 1 << 12));
        n_recorded += u32::from(record.is_some());
        block.resize(1 << 20);
        assert!(block.is_recorded());
        let expected = 1 << 20;
        assert_eq!(memtrace::traced_memory().current, expected);
    }
    // 2000 × (1 - exp(-1/16)) = 121, with a standard deviation of 11.
    assert!((60..190).contains(&n_recorded), "{n_recorded}");
    assert_eq!(memtrace::traced_memory().current, 0);
}

fn the_peak_of_samples_is_kept_and_estimated() {
    start(Config::new().sample_every(4096).peak_percent(0));
    let mut rng = Rng::new(5);
    memtrace::track(0, 0x2000, 500).unwrap();
    let blocks: Vec<Block> = memtrace::untraced(|| Vec::with_capacity(20_000));
    let mut blocks = blocks;
    blocks.extend((0..20_000).map(|_| small(&mut rng)));
    let top = memtrace::traced_memory().current;
    let size: u64 = blocks.iter().map(|block| block.layout.size() as u64).sum();
    blocks.clear();
    let peak = memtrace::peak_snapshot().unwrap();
    assert_eq!(memtrace::traced_memory().peak, top);
    let statistics = peak.statistics(KeyType::InclusiveFunction);
    let group = of_function(&statistics, "small");
    check("peak", group.size, group.error.unwrap().size, size);
    assert!(peak.total_size().abs_diff(top) <= peak.n_traces() as u64);
    assert_eq!(memtrace::traced_memory().current, 500);
    memtrace::untrack(0, 0x2000).unwrap();
}

fn a_forked_child_counts_samples_as_its_parent() {
    start(Config::new().sample_every(PERIOD));
    let blocks = memtrace::untraced(make_blocks);
    let more = make_blocks();
    let current = memtrace::traced_memory().current;
    // SAFETY: the child uses memory, which glibc's allocator allows after a fork, and ends without
    // unwinding into the parent's code.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut is_right = memtrace::traced_memory().current == current;
        drop(more);
        drop(blocks);
        is_right &= memtrace::traced_memory().current == 0;
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(if is_right { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    drop((blocks, more));
}

fn one_byte_and_none_are_every_block() {
    for every in [0, 1] {
        start(Config::new().sample_every(every));
        assert_eq!(memtrace::sample_period(), None);
        let blocks = [1, 16, 100].map(Block::new);
        assert!(blocks.iter().all(Block::is_recorded));
        assert_eq!(memtrace::traced_memory().current, 117);
        let snapshot = memtrace::take_snapshot().unwrap();
        assert_eq!((snapshot.sample_period(), snapshot.total_error()), (None, None));
        drop(blocks);
        assert_eq!(memtrace::traced_memory().current, 0);
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); memtrace::stop(); Ok(()) })),*]
        };
    }
    let trials = trials![
        // First, while there is little to sweep.
        periods_that_change_while_threads_allocate_leave_nothing_behind,
        totals_by_site_are_those_of_the_last_of_many_runs,
        tracing_is_on_while_traces_are_cleared,
        a_program_of_four_threads_is_estimated_within_its_intervals,
        nothing_is_left_of_what_was_freed,
        no_release_is_missed_where_threads_share_pages,
        what_the_program_tells_of_counts_for_itself_whatever_its_domain,
        a_resized_block_is_recorded_by_the_chance_of_its_new_size,
        the_peak_of_samples_is_kept_and_estimated,
        a_forked_child_counts_samples_as_its_parent,
        one_byte_and_none_are_every_block,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
