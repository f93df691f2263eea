//! What caches take: within the budget however many threads there are, next to nothing when these have ended,
//! and answers are right with memory, with little, and with none.
//!
//! One test after the other, each with the whole budget of the process.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]

use memtrace_unwind::{
    Counts, End, SiteCache, Sites, StackBounds, StackHash, cache_memory, capture_plainly,
    set_cache_budget,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

const BUDGET: u64 = 256 << 20;
const LIMIT: usize = 40;

/// What is kept of threads that have ended, at most.
const MAX_KEPT: u64 = 608 << 10;

static BUDGET_IS_MINE: Mutex<()> = Mutex::new(());

fn lock() -> MutexGuard<'static, ()> {
    BUDGET_IS_MINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left of all caches but what is kept for threads to come, of which there is none afterwards.
fn memory_in_use() -> u64 {
    set_cache_budget(0);
    set_cache_budget(BUDGET);
    cache_memory()
}

/// Sites of all threads: their stacks, by number and by hash.
#[derive(Default)]
struct Table(Mutex<Stacks>);

#[derive(Default)]
struct Stacks {
    by_hash: HashMap<StackHash, NonZeroU32>,
    stacks: Vec<(Box<[u64]>, End)>,
}

impl Table {
    fn stacks(&self) -> MutexGuard<'_, Stacks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sites for Table {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        self.stacks().by_hash.get(&hash).copied()
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        let mut stacks = self.stacks();
        stacks.stacks.push((call_addrs.into(), end));
        let site = NonZeroU32::new(u32::try_from(stacks.stacks.len()).unwrap()).unwrap();
        // Another thread may have been first: then its number stays, and this one is good, too.
        Some(*stacks.by_hash.entry(hash).or_insert(site))
    }
}

thread_local! {
    static CACHE: RefCell<SiteCache> = const { RefCell::new(SiteCache::new()) };
}

/// Captures by a cache and, if asked to, compares with a plain walk.
#[inline(never)]
fn capture(cache: &mut SiteCache, stack: &StackBounds, table: &Table, is_compared: bool) {
    let site = cache.site_of_caller(stack, LIMIT, table).expect("the table has room");
    if !is_compared {
        return;
    }
    let mut expected = [0; LIMIT];
    let walk = capture_plainly(stack, &mut expected);
    let stacks = table.stacks();
    let (call_addrs, end) = &stacks.stacks[site.get() as usize - 1];
    // The newest frame is this function's, at another instruction.
    let here = memtrace_unwind::function_range(capture as *const () as u64).unwrap();
    assert!(here.contains(&call_addrs[0]));
    assert_eq!((&call_addrs[1..], *end), (&expected[1..walk.len], walk.end));
}

/// One of many stacks: a path of calls, bit by bit. A frame a bit in every build.
#[inline(always)]
fn descend(path: u32, n_bits: u32, leaf: &mut dyn FnMut()) -> u32 {
    if n_bits == 0 {
        leaf();
        return black_box(1);
    }
    if path & 1 == 0 { by_left(path, n_bits, leaf) } else { by_right(path, n_bits, leaf) }
}

// Two functions, since an optimized build makes one call of two in branches.
#[inline(never)]
fn by_left(path: u32, n_bits: u32, leaf: &mut dyn FnMut()) -> u32 {
    black_box(descend(path >> 1, n_bits - 1, leaf)) + 1
}

#[inline(never)]
fn by_right(path: u32, n_bits: u32, leaf: &mut dyn FnMut()) -> u32 {
    black_box(descend(path >> 1, n_bits - 1, leaf)) + 2
}

/// Captures `n` times by the thread's cache, on stacks of which `n_distinct` are distinct.
fn capture_many(table: &Table, n: u32, n_distinct: u32) -> Counts {
    let stack = StackBounds::current();
    let mut cache = CACHE.take();
    for i in 0..n {
        let is_compared = i % 32 == 31;
        // Each four times, so that there are hits.
        descend(i / 4 % n_distinct, 10, &mut || capture(&mut cache, &stack, table, is_compared));
    }
    let counts = cache.counts();
    CACHE.set(cache);
    counts
}

/// Captures that were answered with the help of what is remembered, and all others.
fn with_and_without_memory(counts: Counts) -> (u64, u64) {
    (counts.n_hits + counts.n_joined + counts.n_walked, counts.n_plain)
}

#[test]
fn ten_thousand_threads_at_once_stay_within_the_budget_and_give_all_of_it_back() {
    const N_THREADS: usize = 10_000;
    const STACK_BYTES: usize = 64 << 10;
    let _budget = lock();
    assert_eq!(memory_in_use(), 0);
    let table = Arc::new(Table::default());
    let [have_captured, are_seen] = [(); 2].map(|()| Arc::new(Barrier::new(N_THREADS + 1)));
    let mut threads = Vec::with_capacity(N_THREADS);
    for _ in 0..N_THREADS {
        let (table, have_captured, are_seen) =
            (Arc::clone(&table), Arc::clone(&have_captured), Arc::clone(&are_seen));
        let live = move || {
            let counts = capture_many(&table, 400, 150);
            let memory = CACHE.with_borrow(SiteCache::memory);
            have_captured.wait();
            are_seen.wait();
            (counts, memory)
        };
        match thread::Builder::new().stack_size(STACK_BYTES).spawn(live) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // Those that wait for the others would wait for ever.
                eprintln!(
                    "this machine lets a process have {} threads, not {N_THREADS} ({error}): raise the \
                     limits (ulimit -u, cgroup pids.max, vm.max_map_count, kernel.threads-max)",
                    threads.len()
                );
                std::process::exit(1);
            }
        }
    }
    have_captured.wait();
    let all = cache_memory();
    let n_maps = std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
    assert!(all <= BUDGET, "{all} bytes");
    are_seen.wait();
    let figures: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let of_caches: usize = figures.iter().map(|&(_, memory)| memory).sum();
    // Some may be kept of a thread that got the first of what it needs and not the second.
    let n_kept = all.checked_sub(of_caches as u64);
    assert!(n_kept.is_some_and(|n_kept| n_kept <= MAX_KEPT), "{of_caches} of caches, {all} in all");
    let n_with_memory = figures.iter().filter(|&&(_, memory)| memory != 0).count();
    let n_hits: u64 = figures.iter().map(|(counts, _)| counts.n_hits).sum();
    println!(
        "{N_THREADS} threads: {all} bytes, {n_with_memory} with memory, {n_hits} hits; {n_maps} mappings"
    );
    assert!(n_with_memory > N_THREADS / 2, "{n_with_memory}");
    assert!((1..=MAX_KEPT).contains(&cache_memory()), "all threads have ended");
    assert_eq!(memory_in_use(), 0);
}

#[test]
fn a_small_budget_is_kept_and_captures_stay_right_without_memory() {
    let _budget = lock();
    assert_eq!(memory_in_use(), 0);
    let table = Table::default();
    set_cache_budget(1 << 20);
    let [have_captured, are_seen] = [(); 2].map(|()| Barrier::new(101));
    let (n_without, all) = thread::scope(|scope| {
        let (table, have_captured, are_seen) = (&table, &have_captured, &are_seen);
        let threads: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(move || {
                    let counts = capture_many(table, 2000, 700);
                    let memory = CACHE.with_borrow(SiteCache::memory);
                    have_captured.wait();
                    are_seen.wait();
                    if memory == 0 {
                        // By a walk each.
                        assert_eq!(with_and_without_memory(counts), (0, 2000));
                    }
                    memory
                })
            })
            .collect();
        have_captured.wait();
        let all = cache_memory();
        are_seen.wait();
        let memory = threads.into_iter().map(|thread| thread.join().unwrap());
        (memory.filter(|&memory| memory == 0).count(), all)
    });
    set_cache_budget(BUDGET);
    assert!(all > 0 && all <= 1 << 20, "{all} bytes");
    assert!((40..100).contains(&n_without), "{n_without} of 100 threads got no memory");
    assert_eq!(memory_in_use(), 0);
}

#[test]
fn without_any_budget_captures_are_right_and_take_nothing() {
    let _budget = lock();
    set_cache_budget(0);
    let table = Table::default();
    let counts =
        thread::scope(|scope| scope.spawn(|| capture_many(&table, 1000, 300)).join().unwrap());
    assert_eq!(cache_memory(), 0);
    set_cache_budget(BUDGET);
    assert_eq!(with_and_without_memory(counts), (0, 1000));
}

#[test]
fn a_retired_cache_has_given_back_its_memory_and_takes_none_again() {
    let _budget = lock();
    let table = Table::default();
    let check = || {
        capture_many(&table, 1000, 30);
        assert!(CACHE.with_borrow(SiteCache::memory) > 0 && cache_memory() > 0);
        CACHE.with_borrow_mut(SiteCache::retire);
        assert_eq!(CACHE.with_borrow(SiteCache::memory), 0);
        assert!(cache_memory() <= MAX_KEPT);
        assert_eq!(memory_in_use(), 0);
        let before = CACHE.with_borrow(SiteCache::counts);
        let after = capture_many(&table, 1000, 30);
        let (with, without) = with_and_without_memory(before);
        assert_eq!(with_and_without_memory(after), (with, without + 1000));
        assert_eq!(cache_memory(), 0);
    };
    thread::scope(|scope| scope.spawn(check).join().unwrap());
}

/// Captures one frame a thousand times, and returns how often it was told without a walk.
#[inline(never)]
fn capture_one_frame(cache: &mut SiteCache, table: &Table) -> u64 {
    let (stack, n_before) = (StackBounds::current(), cache.counts().n_hits);
    for _ in 0..1000 {
        let site = cache.site_of_caller(&stack, 1, table).expect("the table has room");
        let stacks = table.stacks();
        let (call_addrs, end) = &stacks.stacks[site.get() as usize - 1];
        let here = capture_one_frame as *const () as u64;
        let here = memtrace_unwind::function_range(here).unwrap();
        assert!(call_addrs.len() == 1 && here.contains(&call_addrs[0]) && *end == End::Limit);
    }
    cache.counts().n_hits - n_before
}

#[test]
fn one_frame_is_right_with_memory_without_a_budget_and_when_retired() {
    let _budget = lock();
    let (table, mut cache) = (Table::default(), SiteCache::new());
    set_cache_budget(0);
    assert_eq!(capture_one_frame(&mut cache, &table), 0);
    assert_eq!((cache.memory(), cache_memory()), (0, 0));
    set_cache_budget(BUDGET);
    // Memory is asked for when as many captures came without: at the 1024th.
    let n_hits = capture_one_frame(&mut cache, &table);
    assert!((950..1000).contains(&n_hits), "{n_hits}");
    assert_eq!(cache.memory(), 8 << 10);
    cache.retire();
    assert_eq!((cache.memory(), memory_in_use()), (0, 0));
    assert_eq!(capture_one_frame(&mut cache, &table), 0);
    assert_eq!(cache.memory(), 0);
}

/// Captures each of `1 << n_bits` stacks once, in turn; returns the bytes that the cache took at most.
fn capture_each(cache: &mut SiteCache, table: &Table, n_bits: u32) -> usize {
    let stack = StackBounds::current();
    let mut peak = 0;
    for path in 0..1 << n_bits {
        let is_compared = path % 64 == 63;
        // By as many frames as are captured, whatever the test's own are.
        descend(path, LIMIT as u32 - 8, &mut || capture(cache, &stack, table, is_compared));
        peak = peak.max(cache.memory());
    }
    peak
}

/// Passes through `1 << n_bits` stacks, as many times as told: for each pass the part of captures that a record
/// answered, and the bytes that the cache took at most.
fn pass_through(n_bits: u32, n_passes: usize) -> Vec<(f64, usize)> {
    let table = Table::default();
    let pass_through = || {
        let mut cache = SiteCache::new();
        let passes = (0..n_passes).map(|_| {
            let before = cache.counts().n_hits;
            let peak = capture_each(&mut cache, &table, n_bits);
            let n_hits = cache.counts().n_hits - before;
            (n_hits as f64 / f64::from(1 << n_bits), peak)
        });
        passes.collect()
    };
    // On a stack that is the same each time.
    thread::scope(|scope| scope.spawn(pass_through).join().unwrap())
}

#[test]
fn stacks_that_come_again_get_the_memory_that_they_need() {
    // As much as a thread has at most while its stacks are new.
    const SMALL: usize = 2 << 20;
    let _budget = lock();
    let passes = pass_through(13, 8);
    assert!(passes[0].1 <= SMALL, "{passes:?}");
    // 8,192 stacks, 3 MB.
    assert!(passes[7].0 > 0.99 && (8 << 20..10 << 20).contains(&passes[7].1), "{passes:?}");
    // Large records get no more than three eighths of the budget.
    set_cache_budget(16 << 20);
    let passes = pass_through(13, 8);
    set_cache_budget(BUDGET);
    assert!(passes.iter().all(|&(_, memory)| memory <= SMALL), "{passes:?}");
    // 131,072 stacks, more than there ever is room for: what they got is given back.
    let passes = pass_through(17, 5);
    assert!(passes[0].1 <= SMALL && passes[1].1 > 64 << 20, "{passes:?}");
    assert!(passes[2..].iter().any(|&(_, memory)| memory <= SMALL), "{passes:?}");
    assert_eq!(memory_in_use(), 0);
}

#[test]
fn what_is_kept_of_threads_does_not_add_up_and_is_in_nobodys_way() {
    let _budget = lock();
    assert_eq!(memory_in_use(), 0);
    let table = Table::default();
    let live = || {
        thread::scope(|scope| scope.spawn(|| capture_many(&table, 1000, 30)).join().unwrap());
        cache_memory()
    };
    for _ in 0..50 {
        let kept = live();
        assert!((1..=MAX_KEPT / 4).contains(&kept), "of one thread at a time: {kept}");
    }
    let kept = cache_memory();
    set_cache_budget(kept);
    assert!((1..=kept).contains(&live()));
    set_cache_budget(cache_memory() - 1);
    assert_eq!(cache_memory(), 0);
    set_cache_budget(BUDGET);
}

#[test]
fn where_the_system_has_no_memory_captures_are_right_without() {
    const IS_CHILD: &str = "MEMTRACE_TEST_WITHOUT_MEMORY";
    const NAME: &str = "where_the_system_has_no_memory_captures_are_right_without";
    if std::env::var_os(IS_CHILD).is_some() {
        return capture_without_memory();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(IS_CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("no mapping succeeded"), "{output:?}");
}

fn capture_without_memory() {
    let table = Table::default();
    // In a loop, so that the stacks are the same: those of the second turn are in the table already.
    for turn in 0..3 {
        let most = if turn == 1 { 1 << 20 } else { libc::RLIM_INFINITY };
        let limit = libc::rlimit { rlim_cur: most, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: a valid limit; if not none, less than what is mapped, so that nothing more can be.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
        CACHE.set(SiteCache::new());
        assert_eq!(memory_in_use(), 0);
        let counts = capture_many(&table, 2000, 300);
        if turn == 1 {
            // What failed is not counted as used.
            assert_eq!((with_and_without_memory(counts), cache_memory()), ((0, 2000), 0));
        } else {
            assert!(cache_memory() > 0 && counts.n_hits > 0, "{counts:?}");
        }
    }
    println!("no mapping succeeded");
}
