//! The copy of the peak against a model that copies everything at every new maximum.

use libtest_mimic::{Arguments, Trial};
use memtrace_alloc::{Options, Peak, PeakTrace, Started, untraced};
use memtrace_tests::rng::Rng;
use std::alloc::{Layout, alloc, dealloc, realloc};
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

fn start(options: Options) {
    memtrace_alloc::stop();
    assert_eq!(memtrace_alloc::start_with(options), Ok(Started::Now));
}

/// What `copy_peak` gives: the bytes it states and its traces. To be called in an untraced section.
#[derive(Debug)]
enum Read {
    Now,
    NotKept,
    Copied { bytes: u64, traces: Vec<PeakTrace> },
}

fn read() -> Read {
    let mut buffer = Vec::new();
    loop {
        match memtrace_alloc::copy_peak(&mut buffer) {
            Peak::NotKept => return Read::NotKept,
            Peak::Now => return Read::Now,
            Peak::NoRoom { n_words } => buffer.resize(n_words + n_words / 8, 0),
            Peak::Copied(copy) => {
                return Read::Copied { bytes: copy.bytes(), traces: copy.traces().collect() };
            }
        }
    }
}

fn sum(traces: &[PeakTrace]) -> u64 {
    traces.iter().map(|trace| trace.size).sum()
}

fn sizes(traces: &[PeakTrace]) -> Vec<(u32, u64)> {
    let mut sizes: Vec<_> = traces.iter().map(|trace| (trace.domain, trace.size)).collect();
    sizes.sort_unstable();
    sizes
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).unwrap()
}

fn allocate(size: usize) -> usize {
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { alloc(layout(size)) });
    assert!(!block.is_null());
    block.expose_provenance()
}

fn release(addr: usize, size: usize) {
    // SAFETY: a live block of this size.
    unsafe { dealloc(std::ptr::with_exposed_provenance_mut(addr), layout(size)) };
}

fn resize(addr: usize, size: usize, new_size: usize) -> usize {
    let block = std::ptr::with_exposed_provenance_mut(addr);
    // SAFETY: a live block of this size.
    let resized = black_box(unsafe { realloc(block, layout(size), new_size) });
    assert!(!resized.is_null());
    resized.expose_provenance()
}

/// Everything that is traced, kept by plain means outside of what is traced.
#[derive(Default)]
struct Model {
    /// Domain and address, or number, of each trace, with its size; blocks are in domain 0.
    live: Vec<((u32, usize), usize)>,
    current: u64,
    peak: u64,
    at_peak: Vec<(u32, u64)>,
}

impl Model {
    fn noted(&mut self, grown: i64) {
        self.current = self.current.checked_add_signed(grown).unwrap();
        assert_eq!(memtrace_alloc::traced_memory().current, self.current);
        if self.current > self.peak {
            self.peak = self.current;
            self.at_peak =
                self.live.iter().map(|&((domain, _), size)| (domain, size as u64)).collect();
            self.at_peak.sort_unstable();
        }
        assert_eq!(memtrace_alloc::traced_memory().peak, self.peak);
    }

    /// Forgets the peak, as if the present were all there ever was.
    fn reset_peak(&mut self) {
        self.peak = 0;
        self.noted(0);
    }

    fn step(&mut self, rng: &mut Rng, grows: bool) {
        let size = match rng.below(8) {
            0 => 1 + rng.below(20_000),
            _ => 1 + rng.below(400),
        };
        let n = self.live.len();
        match rng.below(10) {
            0..=3 => {
                let addr = allocate(size);
                untraced(|| self.live.push(((0, addr), size)));
                untraced(|| self.noted(size as i64));
            }
            4 => {
                // Memory that the program tells of, new or known.
                let (domain, addr) = (1 + rng.below(2) as u32, rng.below(20));
                memtrace_alloc::track(domain, addr as u64, size as u64).unwrap();
                untraced(|| match self.live.iter_mut().find(|(key, _)| *key == (domain, addr)) {
                    Some((_, old)) => {
                        let grown = size as i64 - *old as i64;
                        *old = size;
                        self.noted(grown);
                    }
                    None => {
                        self.live.push(((domain, addr), size));
                        self.noted(size as i64);
                    }
                });
            }
            5 | 6 if n > 0 => {
                let ((domain, addr), old) = self.live[rng.below(n)];
                if domain == 0 {
                    let resized = resize(addr, old, size);
                    untraced(|| {
                        let known = self.live.iter_mut().find(|(key, _)| *key == (0, addr));
                        *known.unwrap() = ((0, resized), size);
                        self.noted(size as i64 - old as i64);
                    });
                }
            }
            _ if n > 0 && !(grows && rng.below(2) == 0) => {
                let ((domain, addr), size) = untraced(|| self.live.swap_remove(rng.below(n)));
                match domain {
                    0 => release(addr, size),
                    _ => memtrace_alloc::untrack(domain, addr as u64).unwrap(),
                }
                untraced(|| self.noted(-(size as i64)));
            }
            _ => {}
        }
    }

    /// Compares the copy with the peak it is of.
    fn check(&self, percent: u64) {
        untraced(|| match read() {
            Read::NotKept => panic!("the peak was asked for"),
            Read::Now => {
                // Scaled up, so that no rounding is in the way.
                assert!(self.current * (100 + percent) >= self.peak * 100);
            }
            Read::Copied { bytes, traces } => {
                assert_eq!(sum(&traces), bytes, "the copy is of one moment");
                assert!(bytes <= self.peak && bytes > self.current);
                assert!(bytes * (100 + percent) >= self.peak * 100, "{bytes} of {}", self.peak);
                if bytes == self.peak {
                    // There may have been several such moments, but hardly here.
                    assert_eq!(sizes(&traces), self.at_peak);
                }
                assert!(percent > 0 || bytes == self.peak);
            }
        });
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        untraced(|| {
            for ((domain, addr), size) in self.live.drain(..) {
                match domain {
                    0 => release(addr, size),
                    _ => drop(memtrace_alloc::untrack(domain, addr as u64)),
                }
            }
        });
    }
}

fn one_threads_copy_is_exact_and_within_the_percentage_of_the_peak() {
    for (seed, percent) in [(1, 0), (2, 1), (3, 1), (4, 5), (5, 20), (6, 300)] {
        let mut rng = Rng::new(seed);
        start(Options::new().frames(5).peak_percent(percent).threads(seed % 2 == 0));
        let mut model = Model::default();
        model.check(percent.into());
        for phase in 0..12 {
            let grows = phase % 3 != 2;
            for _ in 0..rng.below(400) {
                model.step(&mut rng, grows);
                if rng.below(20) == 0 {
                    model.check(percent.into());
                }
            }
            model.check(percent.into());
            match rng.below(5) {
                0 => {
                    memtrace_alloc::reset_peak();
                    untraced(|| model.reset_peak());
                    assert!(untraced(|| matches!(read(), Read::Now)));
                }
                1 => {
                    drop(std::mem::take(&mut model));
                    memtrace_alloc::clear_traces();
                    assert!(untraced(|| matches!(read(), Read::Now)));
                }
                _ => {}
            }
        }
        drop(model);
        assert_eq!(memtrace_alloc::losses(), Default::default());
        memtrace_alloc::stop();
        assert!(matches!(read(), Read::NotKept));
        start(Options::new());
        assert!(matches!(read(), Read::NotKept));
    }
}

fn copies_carry_threads_generations_and_stacks() {
    start(Options::new().threads(true).generations(true).peak_percent(1));
    let old = allocate(100_000);
    let birth = memtrace_alloc::advance_generation();
    let record = memtrace_alloc::trace_at(old as u64).unwrap();
    let (other, other_record) = thread::spawn(|| {
        let addr = allocate(50_000);
        (addr, memtrace_alloc::trace_at(addr as u64).unwrap())
    })
    .join()
    .unwrap();
    release(other, 50_000);
    untraced(|| {
        let Read::Copied { traces, .. } = read() else { panic!("a block was released") };
        for (size, record) in [(100_000, record), (50_000, other_record)] {
            let trace = traces.iter().find(|trace| trace.size == size).unwrap();
            assert_eq!(
                (trace.site, trace.thread, trace.birth),
                (record.site, record.thread, record.birth)
            );
        }
        assert_eq!((record.birth, other_record.birth), (birth, birth + 1));
        assert!(record.thread != other_record.thread && other_record.thread != 0);
    });
    release(old, 100_000);
}

fn copies_become_no_more_than_growth_by_the_percentage_allows() {
    start(Options::new().frames(1).peak_percent(10));
    let n_copies = || memtrace_alloc::tracer_memory().n_peak_copies;
    let before = n_copies();
    // Grows a hundredfold, with a release after each step, and then stays.
    let mut kept = vec![allocate(10_000)];
    for _ in 0..99 {
        kept.push(allocate(10_000));
        release(allocate(10), 10);
    }
    let grown = n_copies() - before;
    // ln 100 / ln 1.1 is 48.3; the first one comes at once, and the first steps are longer.
    assert!((20..=50).contains(&grown), "{grown}");
    for _ in 0..10_000 {
        release(allocate(10), 10);
    }
    assert_eq!(n_copies() - before, grown);
    assert!(memtrace_alloc::tracer_memory().peak > 0);
    kept.into_iter().for_each(|addr| release(addr, 10_000));
    memtrace_alloc::stop();
}

/// Ends the threads that look at a flag, also by a panic, which would wait for them otherwise.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Four threads whose memory rises and falls together.
fn tide(is_done: &AtomicBool, seed: u64, level: &AtomicU64) {
    let mut rng = Rng::new(seed);
    let mut blocks: Vec<(usize, usize)> = untraced(|| Vec::with_capacity(200_000));
    while !is_done.load(Relaxed) {
        let level = level.load(Relaxed) as usize;
        for _ in 0..100 {
            let rises = if blocks.len() < level { 3 } else { 1 };
            if rng.below(4) < rises && blocks.len() < blocks.capacity() {
                let size = 1 + rng.below(500);
                blocks.push((allocate(size), size));
            } else if !blocks.is_empty() {
                let (addr, size) = blocks.swap_remove(rng.below(blocks.len()));
                release(addr, size);
            }
        }
    }
    blocks.drain(..).for_each(|(addr, size)| release(addr, size));
    untraced(|| drop(blocks));
}

fn copies_made_while_four_threads_work_are_near_the_peak() {
    start(Options::new().frames(5).peak_percent(1));
    let is_done = AtomicBool::new(false);
    let level = AtomicU64::new(0);
    let worst = AtomicI64::new(0);
    thread::scope(|scope| {
        let (is_done, level) = (&is_done, &level);
        let ending = Ending(is_done);
        let threads: Vec<_> =
            (0..4).map(|seed| scope.spawn(move || tide(is_done, seed, level))).collect();
        for n in 1..=5u64 {
            let n_blocks = 4 * 1000 * n;
            level.store(n_blocks / 4, Relaxed);
            memtrace_alloc::reset_peak();
            // The tide stays high until copies have been made of it: what rises and falls while one is
            // made may be in none.
            let deadline = Instant::now() + Duration::from_secs(20);
            while memtrace_alloc::n_traces() < n_blocks && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(20));
                // Waits for a copy that is being made.
                assert!(memtrace_alloc::tracer_memory().n_peak_copies > 0);
            }
            level.store(100, Relaxed);
            while memtrace_alloc::n_traces() > n_blocks / 2 && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            untraced(|| {
                let peak = memtrace_alloc::traced_memory().peak as i64;
                let Read::Copied { traces, .. } = read() else { panic!("the tide has fallen") };
                let of_sum = (peak - sum(&traces) as i64).abs() * 10_000 / peak;
                worst.fetch_max(of_sum, Relaxed);
            });
        }
        drop(ending);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let worst = worst.into_inner();
    assert!(worst <= 500, "{worst} of 10000");
}

/// Allocates and releases, and is where a copy may be interrupted.
extern "C" fn on_signal(_: libc::c_int) {
    release(allocate(100), 100);
    N_SIGNALS.fetch_add(1, Relaxed);
}

static N_SIGNALS: AtomicU64 = AtomicU64::new(0);

fn signals_that_interrupt_a_copy_may_allocate_and_release() {
    // With 0 %, nearly every release of a growing heap makes a copy.
    start(Options::new().frames(5).peak_percent(0));
    let mut blocks: Vec<usize> = untraced(|| Vec::with_capacity(20_000));
    for _ in 0..20_000 {
        blocks.push(allocate(64));
    }
    // SAFETY: an action of zeroes has no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    // SAFETY: the handler is a function of this program.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
    let is_done = AtomicBool::new(false);
    // SAFETY: asks for the calling thread.
    let copier = unsafe { libc::pthread_self() };
    let copies_before = memtrace_alloc::tracer_memory().n_peak_copies;
    thread::scope(|scope| {
        let is_done = &is_done;
        let ending = Ending(is_done);
        let sender = scope.spawn(move || {
            while !is_done.load(Relaxed) {
                // SAFETY: the thread is alive until the scope ends.
                unsafe { libc::pthread_kill(copier, libc::SIGUSR1) };
                thread::sleep(Duration::from_micros(100));
            }
        });
        let mut addr = 1u64;
        let mut size = 1_000_000;
        let deadline = Instant::now() + Duration::from_secs(60);
        let n_copies = || memtrace_alloc::tracer_memory().n_peak_copies - copies_before;
        while (N_SIGNALS.load(Relaxed) < 100 || n_copies() < 30) && Instant::now() < deadline {
            // Copies, and calls no allocator, in the middle of which a handler could not allocate.
            memtrace_alloc::track(7, addr, size + 100_000).unwrap();
            memtrace_alloc::untrack(7, addr).unwrap();
            size += 100_000;
            addr += 1;
        }
        drop(ending);
        sender.join().unwrap();
    });
    assert!(N_SIGNALS.load(Relaxed) >= 100, "{}", N_SIGNALS.load(Relaxed));
    assert!(memtrace_alloc::tracer_memory().n_peak_copies >= copies_before + 30);
    blocks.into_iter().for_each(|addr| release(addr, 64));
    untraced(|| {
        let Read::Copied { bytes, traces } = read() else { panic!("memory was released") };
        assert!(bytes >= 20_000 * 64 && traces.len() >= 20_000);
    });
    memtrace_alloc::stop();
}

fn children_forked_while_copies_are_made_have_a_whole_copy_and_make_their_own() {
    start(Options::new().frames(5).peak_percent(0));
    let base: Vec<usize> = (0..5000).map(|_| allocate(64)).collect();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let is_done = &is_done;
        let ending = Ending(is_done);
        let threads: Vec<_> = (0..2)
            .map(|t| {
                scope.spawn(move || {
                    let mut size = 1000;
                    while !is_done.load(Relaxed) {
                        memtrace_alloc::track(t, 1, size).unwrap();
                        memtrace_alloc::untrack(t, 1).unwrap();
                        size += 1000;
                    }
                })
            })
            .collect();
        for _ in 0..50 {
            // SAFETY: the child uses memory, which the system's allocator allows after a fork, and
            // ends without unwinding.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let has_copy = match untraced(read) {
                    Read::Copied { traces, .. } => {
                        traces.iter().filter(|trace| trace.size == 64).count() >= 5000
                    }
                    // Memory was tracked that is larger than any that was released.
                    Read::Now => true,
                    Read::NotKept => false,
                };
                let n_copies = memtrace_alloc::tracer_memory().n_peak_copies;
                memtrace_alloc::track(9, 9, 1 << 50).unwrap();
                memtrace_alloc::untrack(9, 9).unwrap();
                let has_made_one = memtrace_alloc::tracer_memory().n_peak_copies > n_copies;
                let is_of_it = matches!(
                    untraced(read),
                    Read::Copied { traces, .. } if traces.iter().any(|trace| trace.size == 1 << 50)
                );
                let code =
                    u8::from(!has_copy) | u8::from(!has_made_one) << 1 | u8::from(!is_of_it) << 2;
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(code.into()) };
            }
            wait_for(pid);
        }
        drop(ending);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    base.into_iter().for_each(|addr| release(addr, 64));
    memtrace_alloc::stop();
}

/// Waits for a child to succeed, for at most 20 seconds.
fn wait_for(pid: libc::pid_t) {
    assert!(pid > 0, "fork failed");
    let mut status = 0;
    for _ in 0..20_000 {
        // SAFETY: `status` is a valid place for the result.
        let ended = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if ended == pid {
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: the child is this process's own.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    panic!("a forked child hung");
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One after another on the main thread: each starts and stops the tracing of the process.
    arguments.test_threads = Some(1);
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); Ok(()) })),*]
        };
    }
    let trials = trials![
        one_threads_copy_is_exact_and_within_the_percentage_of_the_peak,
        copies_carry_threads_generations_and_stacks,
        copies_become_no_more_than_growth_by_the_percentage_allows,
        copies_made_while_four_threads_work_are_near_the_peak,
        signals_that_interrupt_a_copy_may_allocate_and_release,
        children_forked_while_copies_are_made_have_a_whole_copy_and_make_their_own,
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}
