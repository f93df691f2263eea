//! Captures compared, frame for frame, with the system's own unwinder (`_Unwind_Backtrace`, through
//! the `backtrace` crate) on randomised call paths.
#![cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]

use memtrace_unwind::{End, SiteCache, Sites, StackBounds, StackHash, Walk, capture, prepare};
use std::cell::Cell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

const MAX_FRAMES: usize = 400;

thread_local! {
    static N_CHECKED: Cell<u64> = const { Cell::new(0) };
}

/// Captures here by both means and compares all frames but the newest, whose two calls differ.
#[inline(never)]
fn check() {
    let stack = StackBounds::current();
    let mut mine = [0; MAX_FRAMES];
    let walk = capture(&stack, &mut mine);
    let mine = &mine[..walk.len];

    let mut theirs = Vec::with_capacity(MAX_FRAMES);
    let here = memtrace_unwind::function_range(check as *const () as u64).unwrap();
    let mut is_below = false;
    // SAFETY: one thread at a time uses the tracing machinery of each thread; nothing is shared.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let pc = frame.ip() as u64;
            is_below |= here.contains(&pc);
            if is_below && pc != 0 {
                theirs.push(pc);
            }
            true
        });
    }
    assert!(theirs.len() < MAX_FRAMES, "the test's stacks outgrew its buffer");
    assert_eq!(walk.end, End::Outermost, "{mine:x?}\n{theirs:x?}");
    assert_eq!(mine.len(), theirs.len(), "{mine:x?}\n{theirs:x?}");
    assert!(here.contains(&mine[0]));
    for (i, (&mine_addr, &their_pc)) in mine.iter().zip(&theirs).enumerate().skip(1) {
        // They report return addresses, or the interrupted instruction below a signal frame.
        assert!(
            mine_addr == their_pc - 1 || mine_addr == their_pc && is_signal_return(theirs[i - 1]),
            "frame {i}: {mine_addr:#x}, {their_pc:#x}\n{mine:x?}\n{theirs:x?}"
        );
    }
    N_CHECKED.with(|n| n.set(n.get() + 1));

    // A shorter buffer holds the same newest frames and says that there are more.
    let mut short = [0; 5];
    let walk = capture(&stack, &mut short);
    if mine.len() > short.len() {
        assert_eq!((walk.len, walk.end), (short.len(), End::Limit));
        assert_eq!(short[1..], mine[1..short.len()]);
    }
}

/// Whether code is at the C library's `rt_sigreturn` trampoline: `mov $15, %rax`.
fn is_signal_return(pc: u64) -> bool {
    // SAFETY: `pc` was found on the stack as a code address.
    unsafe { (pc as *const [u8; 7]).read_unaligned() == [0x48, 0xC7, 0xC0, 0x0F, 0, 0, 0] }
}

/// A small generator with a full period, so that runs repeat.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 27) % n
    }
}

type Next<'a> = &'a mut dyn FnMut(&mut Rng);

trait Shape {
    fn call(&self, rng: &mut Rng, next: Next<'_>) -> u64;
}
struct Small(u64);
struct Large([u64; 700]);
impl Shape for Small {
    #[inline(never)]
    fn call(&self, rng: &mut Rng, next: Next<'_>) -> u64 {
        next(rng);
        black_box(self.0)
    }
}
impl Shape for Large {
    #[inline(never)]
    fn call(&self, rng: &mut Rng, next: Next<'_>) -> u64 {
        let copy = black_box(self.0);
        next(rng);
        copy[rng.below(700) as usize]
    }
}

#[inline(never)]
fn recurse(n: u64, rng: &mut Rng, next: Next<'_>) -> u64 {
    if n == 0 {
        next(rng);
        return 1;
    }
    black_box(recurse(n - 1, rng, next)) + 1
}

#[inline(never)]
fn generic<T: Copy + Into<u64>>(value: T, rng: &mut Rng, next: Next<'_>) -> u64 {
    let twice = black_box([value, value]);
    next(rng);
    twice[0].into() + twice[1].into()
}

#[inline(never)]
fn through_c(rng: &mut Rng, next: Next<'_>) -> u64 {
    struct State<'a, 'b> {
        rng: &'a mut Rng,
        next: Next<'b>,
        is_done: bool,
    }
    thread_local! {
        static STATE: Cell<*mut libc::c_void> = const { Cell::new(std::ptr::null_mut()) };
    }
    extern "C" fn compare(_: *const libc::c_void, _: *const libc::c_void) -> libc::c_int {
        let state = STATE.get().cast::<State<'_, '_>>();
        // SAFETY: set below to a live value for the time of the call to `qsort`.
        let state = unsafe { &mut *state };
        if !std::mem::replace(&mut state.is_done, true) {
            (state.next)(state.rng);
            // A nested call may have put its own state there.
            STATE.set((state as *mut State<'_, '_>).cast());
        }
        0
    }
    let mut state = State { rng, next, is_done: false };
    STATE.set((&raw mut state).cast());
    let mut items = [3u32, 1, 2];
    // SAFETY: three items of four bytes; the comparison is total.
    unsafe { libc::qsort(items.as_mut_ptr().cast(), 3, 4, Some(compare)) };
    items[0].into()
}

#[inline(never)]
fn through_panic(rng: &mut Rng, next: Next<'_>) -> u64 {
    struct OnDrop<'a>(&'a Cell<u64>);
    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            check();
            self.0.set(self.0.get() + 1);
        }
    }
    let n_drops = Cell::new(0);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _guard = OnDrop(&n_drops);
        next(rng);
        resume_unwind(Box::new(()));
    }));
    assert!(caught.is_err());
    n_drops.get()
}

/// Descends by a random path, checking at every node.
fn descend(depth: u64, rng: &mut Rng) {
    check();
    if depth == 0 {
        return;
    }
    let next: Next<'_> = &mut |rng: &mut Rng| descend(depth - 1, rng);
    black_box(match rng.below(9) {
        0 => Small(1).call(rng, next),
        1 => Large([1; 700]).call(rng, next),
        2 => recurse(rng.below(6), rng, next),
        3 => generic(1u8, rng, next),
        4 => generic(1u64, rng, next),
        5 => through_c(rng, next),
        6 => through_panic(rng, next),
        7 => {
            let shapes: [Box<dyn Shape>; 2] = [Box::new(Small(2)), Box::new(Large([3; 700]))];
            shapes[rng.below(2) as usize].call(rng, next)
        }
        _ => (0..2)
            .map(|i| {
                if i == 0 {
                    next(rng)
                }
            })
            .count() as u64,
    });
    check();
}

fn check_many(seed: u64) -> u64 {
    let before = N_CHECKED.get();
    let mut rng = Rng(seed);
    for _ in 0..60 {
        let depth = rng.below(14);
        descend(depth, &mut rng);
    }
    N_CHECKED.get() - before
}

#[test]
fn random_paths_are_captured_as_the_system_unwinder_sees_them() {
    // Before and after `prepare` addresses are looked up by different means.
    let mut n_checked = check_many(1);
    prepare();
    memtrace_unwind::forget_unloaded();
    n_checked += check_many(2);
    let threads: Vec<_> = (3..6).map(|seed| std::thread::spawn(move || check_many(seed))).collect();
    n_checked += threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>();
    assert!(n_checked > 3_000, "{n_checked}");
}

#[test]
fn captures_in_signal_handlers_lead_back_into_the_interrupted_code() {
    extern "C" fn on_signal(_: libc::c_int) {
        check();
    }
    prepare();
    let raise_in = |rng: &mut Rng| {
        let mut raise = |_: &mut Rng| {
            // SAFETY: the handler is installed below.
            unsafe { libc::raise(libc::SIGUSR1) };
        };
        through_c(rng, &mut |rng| {
            recurse(3, rng, &mut raise);
        })
    };
    for flags in [0, libc::SA_ONSTACK] {
        let mut alternate = vec![0u8; 1 << 17];
        let stack = libc::stack_t {
            ss_sp: alternate.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: alternate.len(),
        };
        // SAFETY: the memory outlives its use, which ends with the call that disables it below.
        assert_eq!(unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) }, 0);
        // SAFETY: all-zero bytes are a valid value of this type.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = flags;
        // SAFETY: the handler has the signature of a handler without SA_SIGINFO.
        assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
        let before = N_CHECKED.get();
        raise_in(&mut Rng(7));
        assert_eq!(N_CHECKED.get(), before + 1);
        let off = libc::stack_t { ss_flags: libc::SS_DISABLE, ..stack };
        // SAFETY: no handler runs now.
        assert_eq!(unsafe { libc::sigaltstack(&off, std::ptr::null_mut()) }, 0);
    }
}

#[test]
#[cfg(feature = "portable")]
fn the_portable_walker_sees_the_same_frames() {
    let stack = StackBounds::current();
    let (mut mine, mut portable) = ([0; 64], [0; 64]);
    let walk = capture(&stack, &mut mine);
    let portable_walk = memtrace_unwind::portable::capture(&stack, &mut portable);
    assert_eq!(walk, portable_walk);
    assert_eq!(mine[1..walk.len], portable[1..walk.len]);
    let short = memtrace_unwind::portable::capture(&stack, &mut portable[..2]);
    assert_eq!((short.len, short.end), (2, End::Limit));
}

/// Numbers stacks in the order of their coming; the frames in `own` are the tool's.
#[cfg(feature = "portable")]
struct Numbered {
    own: Range<u64>,
    stacks: std::cell::RefCell<Vec<(StackHash, Vec<u64>, End)>>,
}

#[cfg(feature = "portable")]
impl Sites for Numbered {
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        let place = self.stacks.borrow().iter().position(|stack| stack.0 == hash)?;
        NonZeroU32::new(u32::try_from(place + 1).unwrap())
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        assert_eq!(hash, StackHash::of(call_addrs, end));
        self.stacks.borrow_mut().push((hash, call_addrs.to_vec(), end));
        self.find(hash)
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        Some(f(&mut vec![0; len]))
    }

    fn is_own(&self, call_addr: u64) -> bool {
        self.own.contains(&call_addr)
    }
}

#[cfg(feature = "portable")]
#[inline(never)]
fn ask_both(sites: &Numbered, limit: usize, is_native_first: bool) {
    let (stack, mut portable) =
        (StackBounds::current(), memtrace_unwind::portable::SiteCache::new());
    let mut native = SiteCache::new();
    let mut found = [None; 2];
    for is_native in [is_native_first, !is_native_first] {
        found[usize::from(is_native)] = if is_native {
            native.site_of_caller(&stack, limit, sites)
        } else {
            portable.site_of_caller(&stack, limit, sites)
        };
    }
    assert!(found[0].is_some() && found[0] == found[1], "{found:?}: {:x?}", sites.stacks);
    let start = memtrace_unwind::portable::here();
    let later = further_down(&mut portable, start, &stack, limit, sites);
    assert_eq!(later, found[0], "from further down the stack");
    assert_eq!(portable.counts().n_plain, 2);
    assert_eq!((portable.memory(), memtrace_unwind::portable::cache_memory()), (0, 0));
}

#[cfg(feature = "portable")]
#[inline(never)]
fn further_down(
    cache: &mut memtrace_unwind::portable::SiteCache,
    start: memtrace_unwind::Registers,
    stack: &StackBounds,
    limit: usize,
    sites: &Numbered,
) -> Option<NonZeroU32> {
    let room = black_box([0_u8; 3000]);
    // SAFETY: read in the caller, which has not returned.
    let site = unsafe { cache.site_from(start, stack, limit, sites) };
    black_box(room);
    site
}

#[cfg(feature = "portable")]
#[test]
fn the_portable_cache_gives_the_site_that_the_native_one_gives() {
    let own = memtrace_unwind::function_range(ask_both as *const () as u64).unwrap();
    let sites = Numbered { own, stacks: Default::default() };
    let check = |seed: u64| {
        let mut rng = Rng(seed);
        for _ in 0..200 {
            let (depth, limit) = (rng.below(40), [1, 2, 7, 25, 64, 400][rng.below(6) as usize]);
            let is_native_first = rng.below(2) == 0;
            let ask = |rng: &mut Rng| {
                let next: Next<'_> = &mut |_| ask_both(&sites, limit as usize, is_native_first);
                match rng.below(4) {
                    0 => generic(1_u32, rng, next),
                    1 => Small(1).call(rng, next),
                    2 => Large([1; 700]).call(rng, next),
                    _ => recurse(1, rng, next),
                }
            };
            recurse(depth, &mut rng, &mut |rng| _ = black_box(ask(rng)));
        }
    };
    check(1);
    std::thread::scope(|scope| {
        let own = sites.own.clone();
        scope.spawn(move || {
            let sites = Numbered { own, stacks: Default::default() };
            ask_both(&sites, 400, false);
            assert_eq!(sites.stacks.borrow()[0].2, End::Outermost);
        });
    });
    let stacks = sites.stacks.borrow();
    assert!(
        [End::Outermost, End::Limit].iter().all(|end| stacks.iter().any(|stack| stack.2 == *end))
    );
    assert!(stacks.len() > 50, "{}", stacks.len());
}

/// Keeps the last stack that was asked for; the frames in `own` are the tool's.
struct LastStack {
    own: Range<u64>,
    stack: Cell<(Vec<u64>, End)>,
}

impl Sites for &LastStack {
    fn find(&self, _: StackHash) -> Option<NonZeroU32> {
        None
    }

    fn insert(&self, _: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        self.stack.set((call_addrs.to_vec(), end));
        Some(NonZeroU32::MIN)
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        Some(f(&mut vec![0; len]))
    }

    fn is_own(&self, call_addr: u64) -> bool {
        self.own.contains(&call_addr)
    }
}

/// Captures, and asks for the site, below some frames of this function.
#[inline(never)]
fn own(n_more: u64, limit: usize, sites: &LastStack, frames: &mut [u64]) -> Walk {
    if n_more > 0 {
        return black_box(own(n_more - 1, limit, sites, frames));
    }
    let bounds = StackBounds::current();
    let walk = capture(&bounds, frames);
    assert!(SiteCache::new().site_of_caller(&bounds, limit, &sites).is_some());
    walk
}

#[test]
fn the_newest_own_frames_are_left_out_of_a_site_and_take_no_part_of_its_limit() {
    let own_code = memtrace_unwind::function_range(own as *const () as u64).unwrap();
    let sites = LastStack { own: own_code, stack: Cell::new((vec![], End::Truncated)) };
    for limit in [1, 3, MAX_FRAMES] {
        let mut frames = [0; MAX_FRAMES];
        let walk = own(2, limit, &sites, &mut frames);
        let (found, end) = sites.stack.replace((vec![], End::Truncated));
        assert_eq!(found, frames[3..walk.len][..limit.min(walk.len - 3)]);
        assert_eq!(end, if limit == MAX_FRAMES { End::Outermost } else { End::Limit });
    }
}
