//! Threads by the thousand, threads that end amid each other's frees, forks, signals: nothing hangs,
//! nothing is lost, and the figures are those of a recount.
//!
//! Each case has a heap of its own, and a watchdog that ends the process if it hangs.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::io::Write;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use memtrace_heap::{Config, Heap};

/// What a case may take on a machine with better things to do.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Ends the process if it lives longer than a case may take.
struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    fn new(case: &'static str) -> Watchdog {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < TIME_LIMIT {
                thread::sleep(Duration::from_millis(100));
                if seen.load(Ordering::Relaxed) {
                    return;
                }
            }
            let _ = writeln!(std::io::stderr(), "{case}: hangs");
            process::abort();
        });
        Watchdog(is_over)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A block on its way to whoever frees it.
struct Parcel {
    ptr: *mut u8,
    layout: Layout,
}

// SAFETY: a block belongs to whoever holds its parcel.
unsafe impl Send for Parcel {}

impl Parcel {
    /// A block full of a byte that depends on its size.
    fn new(heap: &Heap, size: usize) -> Parcel {
        let layout = Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the size is not zero.
        let ptr = unsafe { heap.alloc(layout) };
        assert!(!ptr.is_null());
        // SAFETY: a block of this size.
        unsafe { ptr.write_bytes(size as u8, size) };
        Parcel { ptr, layout }
    }

    fn free(self, heap: &Heap) {
        let Parcel { ptr, layout } = self;
        // SAFETY: a block in use, all written.
        let bytes = unsafe { std::slice::from_raw_parts(ptr, layout.size()) };
        assert!(bytes.iter().all(|&byte| byte == layout.size() as u8), "someone else wrote here");
        // SAFETY: a block in use with its layout.
        unsafe { heap.dealloc(ptr, layout) };
    }
}

fn next_random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

/// Mostly small, now and then of the larger classes or a run.
fn size(random: &mut u64) -> usize {
    let number = next_random(random);
    let limit = match number % 256 {
        0 => 150_000,
        1..8 => 40_000,
        8..40 => 4000,
        _ => 300,
    };
    1 + number / 256 % limit
}

/// A heap for threads that outlive the borrow of a scope.
fn leaked() -> &'static Heap {
    Box::leak(Box::new(Heap::new(Config::new())))
}

fn assert_empty(heap: &Heap) {
    assert_eq!(heap.verify(), Ok(()));
    let stats = heap.stats();
    assert_eq!((stats.n_blocks_used(), stats.requested_bytes()), (0, 0));
    assert!(stats.identities_hold());
}

/// Works for one life: takes blocks, sends most to others, frees what it is sent; then starts its
/// successor and ends.
fn live(heap: &'static Heap, n_lives: u32, to: Sender<Parcel>, inbox: Receiver<Parcel>, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut kept = Vec::new();
    for _ in 0..2000 {
        let parcel = Parcel::new(heap, size(&mut random));
        if next_random(&mut random).is_multiple_of(8) {
            kept.push(parcel);
        } else if let Err(unsent) = to.send(parcel) {
            unsent.0.free(heap);
        }
        inbox.try_iter().take(2).for_each(|parcel| parcel.free(heap));
    }
    kept.into_iter().for_each(|parcel| parcel.free(heap));
    if n_lives > 1 {
        let next = thread::spawn(move || live(heap, n_lives - 1, to, inbox, seed + 1));
        NEXT.lock().unwrap().push(next);
    } else {
        drop(to);
        inbox.into_iter().for_each(|parcel| parcel.free(heap));
    }
}

/// Threads of each line of successors.
const N_LIVES: u32 = 12;

/// Threads that nobody has joined.
static NEXT: Mutex<Vec<thread::JoinHandle<()>>> = Mutex::new(Vec::new());

#[test]
fn threads_that_free_each_others_blocks_and_are_succeeded_lose_nothing() {
    let _watchdog = Watchdog::new("succession");
    let heap = leaked();
    let n_threads = 6;
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..n_threads).map(|_| channel()).unzip();
    // In a ring.
    senders.rotate_left(1);
    for (index, (to, inbox)) in senders.into_iter().zip(receivers).enumerate() {
        let first =
            thread::spawn(move || live(heap, N_LIVES, to, inbox, 1000 * (1 + index as u64)));
        NEXT.lock().unwrap().push(first);
    }
    loop {
        let Some(thread) = NEXT.lock().unwrap().pop() else { break };
        thread.join().unwrap();
    }
    assert_eq!(heap.stats().invalid_frees.n_total(), 0);
    assert_empty(heap);
    // Those that ended were succeeded, not added to. How many lived at once is the scheduler's business.
    let n_owners = heap.stats().n_owners;
    assert!(n_owners < n_threads * N_LIVES as usize, "{n_owners} owners");
}

#[test]
fn children_forked_while_threads_free_remotely_can_use_the_heap() {
    let _watchdog = Watchdog::new("forks");
    let heap = leaked();
    let is_over = AtomicBool::new(false);
    let mut failed = Vec::new();
    thread::scope(|scope| {
        // Bounded: the more is under way, the longer a fork takes.
        let (to, inbox) = sync_channel::<Parcel>(2000);
        let (is_over, mut random) = (&is_over, 77);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                to.send(Parcel::new(heap, size(&mut random))).unwrap();
            }
        });
        scope.spawn(move || inbox.into_iter().for_each(|parcel| parcel.free(heap)));
        for round in 0..100 {
            // SAFETY: the child uses the heap only, and leaves without running destructors.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let status = if child_works(heap, round) { 7 } else { 1 };
                // SAFETY: no preconditions.
                unsafe { libc::_exit(status) };
            }
            let status = wait_for(child);
            if !status.is_some_and(|status| libc::WIFEXITED(status) && status >> 8 == 7) {
                failed.push((round, status));
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed, [], "children failed (their status) or hang (none)");
    assert_eq!(heap.stats().invalid_frees.n_total(), 0);
    assert_empty(heap);
}

/// What a forked child does with the heap of its parent.
fn child_works(heap: &Heap, round: u64) -> bool {
    let mut random = 1 + round;
    (0..3).all(|_| {
        let parcels: [Parcel; 200] = std::array::from_fn(|_| Parcel::new(heap, size(&mut random)));
        parcels.into_iter().for_each(|parcel| parcel.free(heap));
        heap.verify().is_ok()
    })
}

/// Waits for `child`, but not for ever.
fn wait_for(child: libc::pid_t) -> Option<libc::c_int> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        let mut status = 0;
        // SAFETY: `status` is writable.
        if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: a child of this process, not waited for yet.
    unsafe { libc::kill(child, libc::SIGKILL) };
    None
}

/// The heap that signal handlers use.
static SIGNALLED: Heap = Heap::new(Config::new());
/// A block that a handler has taken and another is to free.
static LEFT_BY_HANDLER: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static N_HANDLED: AtomicU64 = AtomicU64::new(0);
static N_REFUSED: AtomicU64 = AtomicU64::new(0);
const LEFT: Layout = Layout::new::<[u64; 6]>();

/// Takes blocks and frees them, and exchanges one with what an earlier handler left, maybe in another
/// thread.
extern "C" fn handle(_: libc::c_int) {
    for layout in [LEFT, Layout::new::<[u8; 2000]>(), Layout::new::<[u8; 20_000]>()] {
        // SAFETY: the size is not zero.
        let ptr = unsafe { SIGNALLED.alloc(layout) };
        if ptr.is_null() {
            // It came while its thread held the heap's lock, which is documented.
            N_REFUSED.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        // SAFETY: a block of this size.
        unsafe { ptr.write_bytes(1, layout.size()) };
        // SAFETY: a block in use with its layout.
        unsafe { SIGNALLED.dealloc(ptr, layout) };
    }
    // SAFETY: the size is not zero.
    let new = unsafe { SIGNALLED.alloc(LEFT) };
    let old = LEFT_BY_HANDLER.swap(new, Ordering::AcqRel);
    if !old.is_null() {
        // SAFETY: taken with this layout by a handler, and by the swap this one's alone.
        unsafe { SIGNALLED.dealloc(old, LEFT) };
    }
    N_HANDLED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn handlers_that_allocate_a_thousand_times_a_second_lose_nothing() {
    let _watchdog = Watchdog::new("signals");
    // SAFETY: zero is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = handle;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler uses only the heap, which bears that, and atomics.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()) }, 0);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|index| {
                let is_over = &is_over;
                let (sender, receiver) = channel();
                let worker = scope.spawn(move || {
                    // SAFETY: no preconditions.
                    sender.send(unsafe { libc::pthread_self() }).unwrap();
                    let mut random = 5 + index;
                    let mut kept: Vec<Parcel> = Vec::new();
                    while !is_over.load(Ordering::Relaxed) {
                        kept.push(Parcel::new(&SIGNALLED, size(&mut random)));
                        if kept.len() > 300 {
                            let which = next_random(&mut random) % kept.len();
                            kept.swap_remove(which).free(&SIGNALLED);
                        }
                        if kept.len() > 200 && next_random(&mut random).is_multiple_of(500) {
                            kept.drain(..).for_each(|parcel| parcel.free(&SIGNALLED));
                        }
                    }
                    kept.into_iter().for_each(|parcel| parcel.free(&SIGNALLED));
                });
                (worker, receiver.recv().unwrap())
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            for (_, thread) in &workers {
                // SAFETY: the thread runs until it is joined.
                assert_eq!(unsafe { libc::pthread_kill(*thread, libc::SIGPROF) }, 0);
            }
            thread::sleep(Duration::from_millis(1));
        }
        is_over.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|(worker, _)| worker.join().unwrap());
    });
    let left = LEFT_BY_HANDLER.swap(std::ptr::null_mut(), Ordering::AcqRel);
    if !left.is_null() {
        // SAFETY: a block in use, which no handler can have any more.
        unsafe { SIGNALLED.dealloc(left, LEFT) };
    }
    let (n_handled, n_refused) =
        (N_HANDLED.load(Ordering::Relaxed), N_REFUSED.load(Ordering::Relaxed));
    println!("{n_handled} handlers, {n_refused} of {} requests refused", 3 * n_handled);
    assert!(n_handled > 1000, "only {n_handled} handlers ran");
    assert_eq!(SIGNALLED.stats().invalid_frees.n_total(), 0);
    assert_empty(&SIGNALLED);
}

/// Where destructors of thread-specific data allocate.
static LATE: Heap = Heap::new(Config::new());
static N_LATE: AtomicUsize = AtomicUsize::new(0);
static LATE_KEY: AtomicUsize = AtomicUsize::new(0);
/// How often the C library calls destructors that set their values again.
const N_ROUNDS: usize = 4;

thread_local!(static ROUND: Cell<usize> = const { Cell::new(0) });

/// Frees what the round before has taken, takes another, and is to be called again.
unsafe extern "C" fn take_late(value: *mut c_void) {
    let layout = Layout::new::<[u8; 200]>();
    // SAFETY: the size is not zero.
    let next = unsafe { LATE.alloc(layout) };
    if value.addr() > 1 {
        // SAFETY: the value of the round before: a block in use with its layout.
        unsafe { LATE.dealloc(value.cast(), layout) };
    }
    N_LATE.fetch_add(1, Ordering::Relaxed);
    let round = ROUND.get() + 1;
    ROUND.set(round);
    if round < N_ROUNDS {
        let key = LATE_KEY.load(Ordering::Relaxed) as libc::pthread_key_t;
        // SAFETY: the key exists.
        unsafe { libc::pthread_setspecific(key, next.cast()) };
    } else {
        // SAFETY: a block in use with its layout.
        unsafe { LATE.dealloc(next, layout) };
    }
}

#[test]
fn destructors_that_allocate_after_the_threads_own_end_lose_nothing() {
    let _watchdog = Watchdog::new("destructors");
    // Used first, so that the heap's key is older, and its destructor runs before.
    Parcel::new(&LATE, 100).free(&LATE);
    let mut key = 0;
    // SAFETY: `key` is writable, and the destructor is a function of this program.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(take_late)) }, 0);
    LATE_KEY.store(key as usize, Ordering::Relaxed);
    let n_threads = 500;
    for index in 0..n_threads {
        let thread = thread::spawn(move || {
            Parcel::new(&LATE, 1 + index).free(&LATE);
            let no_block = std::ptr::without_provenance(1);
            // SAFETY: the key exists.
            assert_eq!(unsafe { libc::pthread_setspecific(key, no_block) }, 0);
        });
        thread.join().unwrap();
    }
    assert_eq!(N_LATE.load(Ordering::Relaxed), n_threads * N_ROUNDS);
    assert_eq!(LATE.stats().invalid_frees.n_total(), 0);
    assert_empty(&LATE);
    assert!(LATE.stats().n_owners <= 4, "{} owners", LATE.stats().n_owners);
}

#[test]
fn ten_thousand_threads_one_after_another_use_the_pools_of_a_few() {
    let _watchdog = Watchdog::new("ten thousand");
    let heap = leaked();
    let (to, inbox) = channel::<Parcel>();
    for seed in 0..10_000 {
        let to = to.clone();
        let work = move || {
            let mut random = 1 + seed;
            for _ in 0..5 {
                to.send(Parcel::new(heap, size(&mut random))).unwrap();
                Parcel::new(heap, size(&mut random)).free(heap);
            }
        };
        thread::Builder::new().stack_size(64 * 1024).spawn(work).unwrap().join().unwrap();
        if seed % 64 == 0 {
            inbox.try_iter().for_each(|parcel| parcel.free(heap));
        }
    }
    inbox.try_iter().for_each(|parcel| parcel.free(heap));
    assert_eq!(heap.stats().invalid_frees.n_total(), 0);
    assert_empty(heap);
    assert!(heap.stats().n_owners <= 4, "{} owners", heap.stats().n_owners);
}

#[test]
fn two_thousand_threads_at_once_each_have_pools_and_leave_them_to_the_next() {
    let _watchdog = Watchdog::new("two thousand");
    let heap = leaked();
    let n_threads = 2000;
    for _ in 0..2 {
        let all_are_here = Arc::new(Barrier::new(n_threads));
        let (to, inbox) = channel::<Parcel>();
        let threads: Vec<_> = (0..n_threads)
            .map(|index| {
                let (all_are_here, to) = (Arc::clone(&all_are_here), to.clone());
                let work = move || {
                    let sent = Parcel::new(heap, 1 + index % 300);
                    let own = Parcel::new(heap, 1 + index * 7 % 5000);
                    all_are_here.wait();
                    to.send(sent).unwrap();
                    own.free(heap);
                };
                thread::Builder::new().stack_size(64 * 1024).spawn(work).unwrap()
            })
            .collect();
        drop(to);
        inbox.into_iter().for_each(|parcel| parcel.free(heap));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_empty(heap);
    }
    assert_eq!(heap.stats().invalid_frees.n_total(), 0);
    // The second two thousand took over what the first had, and this thread has one, too.
    assert!(heap.stats().n_owners <= n_threads + 2, "{} owners", heap.stats().n_owners);
}

#[test]
fn blocks_that_two_strangers_to_their_pool_free_at_once_are_freed_once() {
    let _watchdog = Watchdog::new("double frees");
    let heap = leaked();
    let (n_rounds, n_blocks) = (300, 200);
    let layout = Layout::new::<[u8; 64]>();
    for round in 0..n_rounds {
        let blocks: Vec<AtomicPtr<u8>> = (0..n_blocks)
            // SAFETY: the size is not zero.
            .map(|_| AtomicPtr::new(unsafe { heap.alloc(layout) }))
            .collect();
        let start = Barrier::new(2);
        let free_all = || {
            start.wait();
            for block in &blocks {
                // SAFETY: the second call is not valid by GlobalAlloc's contract; this heap defines it.
                unsafe { heap.dealloc(block.load(Ordering::Relaxed), layout) };
            }
        };
        thread::scope(|scope| {
            scope.spawn(free_all);
            scope.spawn(free_all);
        });
        assert_eq!(heap.verify(), Ok(()), "round {round}");
        let again: Vec<usize> = (0..n_blocks)
            // SAFETY: the size is not zero.
            .map(|_| unsafe { heap.alloc(layout) }.addr())
            .collect();
        let mut distinct = again.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), n_blocks, "a block was handed out twice");
        for addr in again {
            // SAFETY: a block in use with its layout.
            unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(addr), layout) };
        }
    }
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!(heap.stats().invalid_frees.n_double, (n_rounds * n_blocks) as u64);
    assert_eq!(heap.stats().classes[3].n_blocks_used, 0);
}
