//! memtrace's counts against those of an allocator beneath it that counts by the plainest means.
//!
//! At every check nothing else allocates, and then blocks and bytes must agree to the last: in
//! `traced_memory`, in the sum over a snapshot, and block by block.

use super::truth;
use libtest_mimic::{Arguments, Trial};
use memtrace::{KeyType, SnapshotError, Started};
use memtrace_tests::rng::Rng;
use memtrace_tests::truth::Count;
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::cell::RefCell;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;

/// A time in which memtrace and the truth count the same things.
struct Session {
    /// What memtrace itself holds, for names and the like: counted by the truth alone.
    own: Count,
    n_checks: u32,
}

impl Session {
    fn start() -> Self {
        memtrace::stop();
        truth().begin();
        assert_eq!(memtrace::start(25), Ok(Started::Now));
        Self { own: Count::default(), n_checks: 0 }
    }

    /// Compares everything there is to compare. No other thread may allocate meanwhile.
    fn check(&mut self) -> Count {
        let traced = memtrace::traced_memory();
        let count = truth().count();
        let expected = count - self.own;
        assert_eq!(traced.current as i64, expected.bytes, "traced_memory, of {expected:?}");
        assert!(traced.peak >= traced.current);

        let mut untraced = Count::default();
        let mut n_wrong_sizes = 0;
        truth().for_each(|addr, size| match memtrace_alloc::trace_at(addr as u64) {
            Some(trace) => n_wrong_sizes += u32::from(trace.size != size as u64),
            None => untraced += Count { blocks: 1, bytes: size as i64 },
        });
        assert_eq!(n_wrong_sizes, 0);
        assert_eq!(untraced, self.own, "blocks that the truth knows and memtrace does not");

        let snapshot = memtrace::take_snapshot().unwrap();
        let in_snapshot =
            Count { blocks: snapshot.n_traces() as i64, bytes: snapshot.total_size() as i64 };
        assert_eq!(in_snapshot, expected, "the sum over the snapshot");
        // Grouping loses nothing. The lists are this test's own: gone before the next count.
        for key in [KeyType::Filename, KeyType::Lineno, KeyType::Traceback] {
            let groups = memtrace::untraced(|| snapshot.statistics(key));
            let bytes: u64 = groups.iter().map(|group| group.size).sum();
            let blocks: u64 = groups.iter().map(|group| group.count).sum();
            assert_eq!(Count { blocks: blocks as i64, bytes: bytes as i64 }, expected, "{key:?}");
            memtrace::untraced(|| drop(groups));
        }
        drop(snapshot);
        self.own += truth().count() - count;
        self.n_checks += 1;
        assert_eq!(memtrace::traced_memory().current as i64, expected.bytes);
        expected
    }
}

/// Runs `work` in `n` threads beside `meanwhile`, and waits for the threads to be gone: a scope alone
/// waits for closures, not for what a thread releases after its closure.
fn with_threads<R>(n: usize, work: impl Fn(usize) + Sync, meanwhile: impl FnOnce() -> R) -> R {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..n).map(|t| scope.spawn(move || work(t))).collect();
        let result = meanwhile();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        result
    })
}

/// Blocks of random layouts, with a pattern in them that tells whether their contents were kept.
struct Blocks {
    rng: Rng,
    live: Vec<(usize, Layout)>,
}

impl Blocks {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), live: Vec::with_capacity(100_000) }
    }

    fn layout(&mut self) -> Layout {
        let size = match self.rng.below(10) {
            0 => 1 + self.rng.below(8),
            1..=6 => 1 + self.rng.below(256),
            7..=8 => 1 + self.rng.below(8 << 10),
            _ => 1 + self.rng.below(300 << 10),
        };
        let align = match self.rng.below(8) {
            0 => 1 << self.rng.below(13),
            _ => 1 << self.rng.below(5),
        };
        Layout::from_size_align(size, align).unwrap()
    }

    fn allocate(&mut self) {
        let layout = self.layout();
        let is_zeroed = self.rng.below(3) == 0;
        let allocate = if is_zeroed { alloc_zeroed } else { alloc };
        // SAFETY: the size is not zero.
        let block = unsafe { allocate(layout) };
        assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
        assert!(!is_zeroed || bytes(block, layout.size()).iter().all(|&byte| byte == 0));
        mark(block, layout.size());
        self.live.push((block.addr(), layout));
    }

    fn release(&mut self) {
        if !self.live.is_empty() {
            let i = self.rng.below(self.live.len());
            release(self.live.swap_remove(i));
        }
    }

    fn resize(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let i = self.rng.below(self.live.len());
        let (addr, layout) = self.live[i];
        let new_size = match self.rng.below(4) {
            0 => layout.size(),
            1 => 1 + layout.size() / 2,
            2 => layout.size() + 1 + self.rng.below(64),
            _ => self.layout().size(),
        };
        let block = std::ptr::with_exposed_provenance_mut::<u8>(addr);
        check_mark(block, layout.size());
        // SAFETY: a live block of this layout.
        let resized = unsafe { realloc(block, layout, new_size) };
        if resized.is_null() {
            check_mark(block, layout.size());
            return;
        }
        assert_eq!(bytes(resized, new_size)[0], mark_of(layout.size()));
        mark(resized, new_size);
        let layout = Layout::from_size_align(new_size, layout.align()).unwrap();
        self.live[i] = (resized.expose_provenance(), layout);
    }

    fn step(&mut self) {
        match self.rng.below(10) {
            0..=4 => self.allocate(),
            5..=7 => self.release(),
            _ => self.resize(),
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.live.drain(..).for_each(release);
    }
}

fn mark_of(size: usize) -> u8 {
    (size % 251) as u8 + 1
}

fn mark(block: *mut u8, size: usize) {
    block.expose_provenance();
    let bytes = bytes(block, size);
    bytes[size - 1] = mark_of(size);
    bytes[0] = mark_of(size);
}

fn check_mark(block: *mut u8, size: usize) {
    let bytes = bytes(block, size);
    assert_eq!((bytes[0], bytes[size - 1]), (mark_of(size), mark_of(size)));
}

fn bytes<'a>(block: *mut u8, size: usize) -> &'a mut [u8] {
    // SAFETY: the block has this size; those of its bytes that are read were written; it is used by
    // nobody else.
    unsafe { std::slice::from_raw_parts_mut(block, size) }
}

fn release((addr, layout): (usize, Layout)) {
    let block = std::ptr::with_exposed_provenance_mut::<u8>(addr);
    check_mark(block, layout.size());
    // SAFETY: a live block of this layout.
    unsafe { dealloc(block, layout) };
}

fn one_thread_with_random_layouts_and_resizes() {
    let mut session = Session::start();
    let mut blocks = Blocks::new(1);
    for _ in 0..20 {
        (0..3000).for_each(|_| blocks.step());
        assert!(session.check().blocks > 100);
    }
    drop(blocks);
    assert_eq!(session.check(), Count::default());
}

fn resizes_in_every_direction_and_ones_that_fail() {
    let mut session = Session::start();
    let mut blocks = Blocks::new(2);
    (0..500).for_each(|_| blocks.allocate());
    for fail_every in [0, 1, 2, 3] {
        truth().fail_resizes(fail_every);
        for _ in 0..3 {
            (0..1000).for_each(|_| blocks.resize());
            truth().fail_resizes(0);
            session.check();
            truth().fail_resizes(fail_every);
        }
    }
    truth().fail_resizes(0);
    drop(blocks);
    assert_eq!(session.check(), Count::default());
}

fn eight_threads_at_once() {
    let mut session = Session::start();
    let barrier = Barrier::new(9);
    let work = |seed: usize| {
        let mut blocks = Blocks::new(seed as u64);
        for _ in 0..5 {
            (0..3000).for_each(|_| blocks.step());
            barrier.wait();
            barrier.wait();
        }
        drop(blocks);
        barrier.wait();
        barrier.wait();
    };
    with_threads(8, work, || {
        for round in 0..6 {
            barrier.wait();
            let count = session.check();
            assert!(round == 5 || count.blocks > 1000, "{count:?}");
            barrier.wait();
        }
    });
    session.check();
}

fn blocks_released_and_resized_by_other_threads() {
    let mut session = Session::start();
    let barrier = Barrier::new(5);
    type Channel =
        (mpsc::Sender<Vec<(usize, Layout)>>, Mutex<mpsc::Receiver<Vec<(usize, Layout)>>>);
    let channel = || {
        let (sender, receiver) = mpsc::channel();
        (sender, Mutex::new(receiver))
    };
    let channels: Vec<Channel> = (0..4).map(|_| channel()).collect();
    let work = |i: usize| {
        let mut blocks = Blocks::new(i as u64 + 10);
        for _ in 0..50 {
            (0..200).for_each(|_| blocks.allocate());
            channels[(i + 1) % 4].0.send(blocks.live.split_off(50)).unwrap();
            let mut taken = channels[i].1.lock().unwrap().recv().unwrap();
            taken.drain(..60).for_each(release);
            blocks.live.append(&mut taken);
            (0..50).for_each(|_| blocks.resize());
            (0..100).for_each(|_| blocks.release());
        }
        barrier.wait();
        barrier.wait();
    };
    with_threads(4, work, || {
        barrier.wait();
        assert!(session.check().blocks > 1000);
        barrier.wait();
    });
    session.check();
}

fn blocks_from_before_the_start() {
    memtrace::stop();
    let mut blocks = Blocks::new(3);
    (0..2000).for_each(|_| blocks.allocate());
    let mut session = Session::start();
    assert_eq!(session.check(), Count::default());
    // Those that are released are not counted off, those that are resized become known.
    (0..500).for_each(|_| blocks.release());
    assert_eq!(session.check(), Count::default());
    (0..500).for_each(|_| blocks.resize());
    assert!(session.check().blocks > 100);
    drop(blocks);
    assert_eq!(session.check(), Count::default());
}

fn blocks_from_before_clear_traces() {
    let mut session = Session::start();
    let mut blocks = Blocks::new(4);
    for _ in 0..3 {
        (0..2000).for_each(|_| blocks.step());
        session.check();
        truth().begin();
        memtrace::clear_traces();
        session.own = Count::default();
        assert_eq!(memtrace::traced_memory(), Default::default());
        assert_eq!(session.check(), Count::default());
        (0..300).for_each(|_| blocks.release());
        assert_eq!(session.check(), Count::default());
    }
    (0..300).for_each(|_| blocks.resize());
    session.check();
    drop(blocks);
    assert_eq!(session.check(), Count::default());
}

fn a_thousand_threads_coming_and_going() {
    thread_local! {
        static KEPT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    }
    /// Allocates and releases while the thread is being torn down.
    struct AtExit(Vec<String>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.0.push(format!("{} strings", self.0.len()));
            black_box(self.0.join(", "));
        }
    }
    static N_LEFT: AtomicU64 = AtomicU64::new(0);

    let mut session = Session::start();
    let left = Mutex::new(Vec::new());
    let work = |t: usize| {
        let strings = (0..20).map(|i| format!("thread {t}, string {i}"));
        KEPT.set(Some(AtExit(strings.collect())));
        left.lock().unwrap().push(vec![0u8; 100 + t]);
        N_LEFT.fetch_add(1, Relaxed);
    };
    (0..100).for_each(|_| with_threads(10, work, || {}));
    assert_eq!(N_LEFT.load(Relaxed), 1000);
    assert!(session.check().blocks >= 1001);
    drop(left);
    session.check();
    assert_eq!(memtrace::tracer_memory().losses, Default::default());
}

fn starting_stopping_and_clearing_while_four_threads_allocate() {
    memtrace::stop();
    let is_done = AtomicBool::new(false);
    let barrier = Barrier::new(5);
    let work = |seed: usize| {
        let mut blocks = Blocks::new(seed as u64 + 20);
        while !is_done.load(Relaxed) {
            (0..100).for_each(|_| blocks.step());
            (0..20).for_each(|_| blocks.release());
        }
        barrier.wait();
        barrier.wait();
        drop(blocks);
    };
    let mut session = with_threads(4, work, || {
        let mut rng = Rng::new(5);
        let mut n_snapshots = 0;
        // An optimised build does many more in the same time.
        let n_calls = if cfg!(debug_assertions) { 300 } else { 3000 };
        for _ in 0..n_calls {
            match rng.below(8) {
                0..=2 => drop(memtrace::start(1 + rng.below(40) as u16).unwrap()),
                3..=4 => {
                    memtrace::stop();
                    memtrace_alloc::for_each_block(|block| panic!("{block:?} was left behind"));
                }
                5 => memtrace::clear_traces(),
                6 => memtrace::reset_peak(),
                _ if rng.below(4) == 0 => match memtrace::take_snapshot() {
                    Ok(_) => n_snapshots += 1,
                    Err(error) => assert_eq!(error, SnapshotError::NotTracing),
                },
                _ => {}
            }
        }
        assert!(n_snapshots > 0);
        is_done.store(true, Relaxed);
        barrier.wait();
        // Off: nothing may be left over for the next start to find.
        memtrace::stop();
        let mut session = Session::start();
        assert_eq!(session.check(), Count::default());
        barrier.wait();
        session
    });
    // The threads' blocks are from before the start; releasing them changes nothing.
    session.check();
}

fn the_peak_follows_pythons_rules() {
    let _session = Session::start();
    let layout = Layout::from_size_align(1000, 8).unwrap();
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { alloc(layout) });
    let base = memtrace::traced_memory().current;
    memtrace::reset_peak();
    // A resize never counts old and new together.
    // SAFETY: a live block of this layout.
    let block = black_box(unsafe { realloc(block, layout, 5000) });
    assert_eq!(memtrace::traced_memory(), traced(base + 4000, base + 4000));
    let layout = Layout::from_size_align(5000, 8).unwrap();
    // SAFETY: a live block of this layout.
    let block = black_box(unsafe { realloc(block, layout, 10) });
    assert_eq!(memtrace::traced_memory(), traced(base - 990, base + 4000));
    memtrace::reset_peak();
    assert_eq!(memtrace::traced_memory(), traced(base - 990, base - 990));
    // SAFETY: a live block of this layout.
    unsafe { dealloc(block, Layout::from_size_align(10, 8).unwrap()) };
    assert_eq!(memtrace::traced_memory(), traced(base - 1000, base - 990));
    memtrace::clear_traces();
    assert_eq!(memtrace::traced_memory(), Default::default());
    memtrace::stop();
    assert_eq!(memtrace::traced_memory(), Default::default());
    assert_eq!(memtrace::traceback_limit(), 25);
}

fn traced(current: u64, peak: u64) -> memtrace::TracedMemory {
    let mut traced = memtrace::TracedMemory::default();
    traced.current = current;
    traced.peak = peak;
    traced
}

fn tracked_memory_counts_like_blocks() {
    let mut session = Session::start();
    let block = Box::new([0u8; 100]);
    let base = memtrace::traced_memory().current;
    let addr = (&raw const *block).addr() as u64;
    memtrace::track(7, 4096, 1 << 40).unwrap();
    memtrace::track(8, 4096, 5).unwrap();
    memtrace::track(7, 4096, 50).unwrap();
    assert_eq!(memtrace::traced_memory(), traced(base + 55, base + (1 << 40) + 5));
    memtrace::untrack(8, 4096).unwrap();
    memtrace::untrack(8, 4096).unwrap();
    assert_eq!(memtrace::traced_memory().current, base + 50);

    let here = line!() + 1;
    memtrace::track(389_047, u64::MAX, 77).unwrap();
    let snapshot = memtrace::take_snapshot().unwrap();
    memtrace::untraced(|| {
        let mut of_domain = snapshot.traces().filter(|trace| trace.domain == 389_047);
        let trace = of_domain.next().unwrap();
        assert_eq!((trace.size, of_domain.next()), (77, None));
        let attribution = memtrace::Attribution::default();
        let newest = if cfg!(memtrace_portable) {
            // The extent of functions is not known there: stacks begin in the recorder.
            attribution.attributed(&trace.traceback).unwrap()
        } else {
            trace.traceback.newest().unwrap()
        };
        assert_eq!((&*newest.filename, newest.lineno), (file!(), here), "{}", trace.traceback);
        assert_eq!(snapshot.traces().filter(|trace| trace.domain == 7).count(), 1);
    });

    // Domain 0 is that of blocks: the same address is the same trace.
    memtrace::track(0, addr, 10).unwrap();
    assert_eq!(memtrace::traced_memory().current, base + 50 + 77 - 90);
    memtrace::untrack(0, addr).unwrap();
    memtrace::untrack(7, 4096).unwrap();
    memtrace::untrack(389_047, u64::MAX).unwrap();
    assert_eq!(memtrace::traced_memory().current, base - 100);
    drop((block, snapshot));
    memtrace::clear_traces();
    truth().begin();
    session.own = Count::default();
    session.check();
    memtrace::stop();
    assert_eq!(memtrace::track(7, 4096, 1), Err(memtrace::TrackError::NotTracing));
    assert_eq!(memtrace::untrack(7, 4096), Err(memtrace::TrackError::NotTracing));
}

fn allocations_before_main_and_at_exit() {
    let itself = std::env::current_exe().unwrap();
    let run = |value: Option<&str>| {
        let mut command = Command::new(&itself);
        command.arg(CHILD).env_remove("MEMTRACE");
        if let Some(value) = value {
            command.env("MEMTRACE", value);
        }
        let output = command.output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        stdout
    };
    assert_eq!(run(Some("5")), "before main: traced with limit 5\nat exit: traced\n");
    assert_eq!(run(None), "before main: not traced\nat exit: not traced\n");
}

const CHILD: &str = "--allocate-before-main-and-at-exit";
static BEFORE_MAIN: AtomicU64 = AtomicU64::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn construct() {
        BEFORE_MAIN.store(Box::leak(Box::new([7u8; 48])).as_ptr().addr() as u64, Relaxed);
    }
    construct
};

fn child() -> ExitCode {
    extern "C" fn at_exit() {
        let kept = black_box(vec![0u8; 1000]);
        let trace = memtrace_alloc::trace_at(kept.as_ptr().addr() as u64);
        println!("at exit: {}", if trace.is_some() { "traced" } else { "not traced" });
    }
    // SAFETY: the function may run at any time.
    unsafe { libc::atexit(at_exit) };
    match memtrace_alloc::trace_at(BEFORE_MAIN.load(Relaxed)) {
        Some(trace) => {
            assert_eq!(trace.size, 48);
            println!("before main: traced with limit {}", memtrace::traceback_limit());
        }
        None => println!("before main: not traced"),
    }
    // A thread that never ends must not keep the process from ending, nor be in its way.
    thread::spawn(|| {
        loop {
            black_box(vec![1, 2, 3]);
        }
    });
    ExitCode::SUCCESS
}

pub(crate) fn main(more: Vec<Trial>) -> ExitCode {
    if std::env::args().any(|arg| arg == CHILD) {
        return child();
    }
    let mut arguments = Arguments::from_args();
    // One after another on the main thread: nothing else allocates while counts are compared.
    arguments.test_threads = Some(1);
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); Ok(()) })),*]
        };
    }
    let mut trials = trials![
        one_thread_with_random_layouts_and_resizes,
        resizes_in_every_direction_and_ones_that_fail,
        eight_threads_at_once,
        blocks_released_and_resized_by_other_threads,
        blocks_from_before_the_start,
        blocks_from_before_clear_traces,
        a_thousand_threads_coming_and_going,
        starting_stopping_and_clearing_while_four_threads_allocate,
        the_peak_follows_pythons_rules,
        tracked_memory_counts_like_blocks,
        allocations_before_main_and_at_exit,
    ];
    trials.extend(more);
    libtest_mimic::run(&arguments, trials).exit_code()
}
