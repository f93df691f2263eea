//! The global allocator: memtrace's around the [`Pool`], and around both the comparison of what was
//! recorded with the truth.
//!
//! After every allocation the record of the block is looked up: there must be one of its size, unless
//! a signal handler that interrupted the recorder allocated it. Of every so many the recorded stack is
//! compared with that of the system's unwinder, frame for frame; the newest frames, which are the
//! hook's own, are in neither.
//!
//! Everything here is called by handlers, too, at any instruction of itself.

use crate::pool::{Pool, die};
use crate::truth::{MAX_FRAMES, Truth};
use memtrace_alloc::{Alloc, Site, SiteId};
use memtrace_unwind::End;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::fmt::{self, Write};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Differences that are printed.
const MAX_REPORTS: u64 = 5;

pub(crate) struct Checked {
    inner: Alloc<Pool>,
}

/// What was counted. All `Relaxed`: read when all threads have been joined, or to see progress.
pub(crate) struct Counts {
    /// Allocations and resizes outside and inside of handlers.
    pub(crate) n_outside: AtomicU64,
    pub(crate) n_in_handlers: AtomicU64,
    /// Those of which there is no record.
    pub(crate) n_lost: AtomicU64,
    /// Stacks compared outside and inside of handlers.
    pub(crate) n_compared_outside: AtomicU64,
    pub(crate) n_compared_in_handlers: AtomicU64,
    /// Blocks that a handler resized inside the recorder: these keep the stack that they had.
    pub(crate) n_kept_stacks: AtomicU64,
    pub(crate) n_differences: AtomicU64,
    pub(crate) n_sabotaged: AtomicU64,
}

pub(crate) static COUNTS: Counts = Counts {
    n_outside: AtomicU64::new(0),
    n_in_handlers: AtomicU64::new(0),
    n_lost: AtomicU64::new(0),
    n_compared_outside: AtomicU64::new(0),
    n_compared_in_handlers: AtomicU64::new(0),
    n_kept_stacks: AtomicU64::new(0),
    n_differences: AtomicU64::new(0),
    n_sabotaged: AtomicU64::new(0),
};

/// How allocations are checked.
struct Plan {
    n_frames: usize,
    /// Every so many stacks one is compared, in handlers sixteen times as many.
    every: u64,
    /// Of those every so many one is spoilt; 0 for none.
    sabotage: u64,
    /// The functions between a program's own and the recorder.
    own: Vec<Range<u64>>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();

thread_local! {
    static IS_IN_HANDLER: Cell<bool> = const { Cell::new(false) };
    static N_ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// While [`find_own_frames`] allocates: what it has found.
    static FOUND: Cell<Option<Own>> = const { Cell::new(None) };
}

/// Call addresses in functions of the hook's.
type Own = ([u64; 16], usize);

/// Runs a handler's work.
pub(crate) fn in_handler(f: impl FnOnce()) {
    IS_IN_HANDLER.set(true);
    f();
    IS_IN_HANDLER.set(false);
}

impl Checked {
    pub(crate) const fn new() -> Self {
        Self { inner: Alloc::new(Pool::new()) }
    }

    pub(crate) fn pool(&self) -> &Pool {
        self.inner.inner()
    }

    /// Checks allocations from now. Tracing has been started, and nothing else allocates meanwhile.
    pub(crate) fn begin(&self, n_frames: u16, every: u64, sabotage: u64) {
        let own = memtrace_alloc::untraced(Vec::new);
        let plan = Plan { n_frames: n_frames.into(), every, sabotage, own };
        let (addrs, len) = find_own_frames();
        let addrs = addrs[..len].iter().copied().chain([compare as *const () as u64]);
        let ranges = addrs.filter_map(memtrace_unwind::function_range);
        let own = memtrace_alloc::untraced(|| ranges.collect());
        if PLAN.set(Plan { own, ..plan }).is_err() {
            die("begun twice\n");
        }
    }

    fn allocated(&self, block: *mut u8, size: usize, before: SiteId) {
        if block.is_null() {
            return;
        }
        if let Some(mut found) = FOUND.get() {
            learn(block, &mut found);
            return FOUND.set(Some(found));
        }
        let Some(plan) = PLAN.get() else { return };
        let is_in_handler = IS_IN_HANDLER.get();
        let n_here = N_ALLOCATIONS.get();
        N_ALLOCATIONS.set(n_here.wrapping_add(1));
        if is_in_handler { &COUNTS.n_in_handlers } else { &COUNTS.n_outside }.fetch_add(1, Relaxed);
        let Some(trace) = memtrace_alloc::trace_at(block.addr() as u64) else {
            if is_in_handler {
                COUNTS.n_lost.fetch_add(1, Relaxed);
                self.pool().mark_lost(block);
            } else {
                differs("a block allocated outside of handlers is not recorded");
            }
            return;
        };
        if trace.size != size as u64 {
            differs("a block is recorded with another size");
        }
        let every = if is_in_handler { plan.every.div_ceil(16) } else { plan.every };
        if n_here.is_multiple_of(every) {
            compare(plan, trace.site, if is_in_handler { before } else { SiteId::UNKNOWN });
        }
    }
}

/// Compares the stack of a site with the one that there is here. A resized block that `before` was at
/// the same site may have kept it.
#[inline(never)]
fn compare(plan: &Plan, site: SiteId, before: SiteId) {
    let mut truth = Truth::new();
    truth.take();
    let is_in_handler = IS_IN_HANDLER.get();
    let truth_end = truth.end();
    let Some(call_addrs) = without_own(truth.call_addrs(), |addr| plan.is_own(addr)) else {
        return differs("a stack does not lead through the hook");
    };
    let (call_addrs, truth_end) = match call_addrs.get(..plan.n_frames) {
        Some(newest) if call_addrs.len() > newest.len() => (newest, End::Limit),
        _ => (call_addrs, truth_end),
    };
    let found = memtrace_alloc::site_frames(site);
    let mut frames = [0; MAX_FRAMES];
    let copy = |site: Site| {
        frames.iter_mut().zip(site.call_addrs()).map(|(frame, addr)| *frame = addr).count()
    };
    let n_frames = found.map_or(0, copy);
    let (answer, end) = (&frames[..n_frames], found.map_or(End::Limit, |site| site.end));
    let counts = &COUNTS;
    let n_compared =
        if is_in_handler { &counts.n_compared_in_handlers } else { &counts.n_compared_outside };
    let n_compared = n_compared.fetch_add(1, Relaxed) + 1;
    let is_spoilt = plan.sabotage != 0 && n_compared.is_multiple_of(plan.sabotage);
    let answer = if is_spoilt {
        counts.n_sabotaged.fetch_add(1, Relaxed);
        &answer[..answer.len().saturating_sub(1)]
    } else {
        answer
    };
    if (answer, end) == (call_addrs, truth_end) {
        return;
    }
    if is_in_handler && !is_spoilt && site == before && site != SiteId::UNKNOWN {
        counts.n_kept_stacks.fetch_add(1, Relaxed);
        return;
    }
    if counts.n_differences.fetch_add(1, Relaxed) < MAX_REPORTS {
        let _ = report(is_in_handler, (answer, end), (call_addrs, truth_end));
    }
}

impl Plan {
    fn is_own(&self, call_addr: u64) -> bool {
        self.own.iter().any(|range| range.contains(&call_addr))
    }
}

/// Leaves the newest frames out that are own, and those before the first of these: the comparison's.
fn without_own(call_addrs: &[u64], is_own: impl Fn(u64) -> bool) -> Option<&[u64]> {
    let first = call_addrs.iter().position(|&addr| is_own(addr))?;
    let n_own = call_addrs[first..].iter().position(|&addr| !is_own(addr))?;
    Some(&call_addrs[first + n_own..])
}

/// Finds the functions between the program's own and the recorder, by allocating in each way where
/// nothing is remembered yet: they are those before the first frame of the recorded stack.
fn find_own_frames() -> Own {
    FOUND.set(Some(([0; 16], 0)));
    let mut boxed = std::hint::black_box(vec![1_u64; 3]);
    boxed.reserve_exact(std::hint::black_box(100));
    drop(std::hint::black_box((boxed, vec![0_u64; 5])));
    FOUND.take().unwrap_or_else(|| die("the hook was not called\n"))
}

fn learn(block: *mut u8, (addrs, len): &mut Own) {
    let mut truth = Truth::new();
    truth.take();
    let site = memtrace_alloc::trace_at(block.addr() as u64).map(|trace| trace.site);
    let site = site.and_then(memtrace_alloc::site_frames);
    let first = site.and_then(|site| site.call_addrs().next());
    let call_addrs = truth.call_addrs();
    let Some(n_own) = call_addrs.iter().position(|&addr| Some(addr) == first) else {
        die("the first frame that was recorded is not on the stack\n")
    };
    for &addr in &call_addrs[..n_own] {
        match addrs.get_mut(*len) {
            Some(slot) => *slot = addr,
            None => die("the hook has more frames than there is room for\n"),
        }
        *len += 1;
    }
}

fn differs(what: &str) {
    if COUNTS.n_differences.fetch_add(1, Relaxed) < MAX_REPORTS {
        let _ = writeln!(Stderr, "difference: {what}");
    }
}

fn report(
    is_in_handler: bool,
    (answer, answer_end): (&[u64], End),
    (truth, truth_end): (&[u64], End),
) -> fmt::Result {
    let mut out = Stderr;
    writeln!(out, "difference: in a handler: {is_in_handler}")?;
    writeln!(out, "   answer: {} frames, {answer_end:?}", answer.len())?;
    writeln!(out, "    truth: {} frames, {truth_end:?}", truth.len())?;
    for i in 0..answer.len().max(truth.len()) {
        let (mine, theirs) = (answer.get(i).copied(), truth.get(i).copied());
        let mark = if mine == theirs { "" } else { "  <<" };
        let (mine, theirs) = (mine.unwrap_or(0), theirs.unwrap_or(0));
        writeln!(out, "  {i:3} {mine:14x} {theirs:14x}{mark}")?;
    }
    Ok(())
}

/// Standard error without a lock or a buffer.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the bytes are readable.
        let written = unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        if written < 0 { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The site of a block, if it has one.
fn site_of(block: *mut u8) -> SiteId {
    if PLAN.get().is_none() || !IS_IN_HANDLER.get() {
        return SiteId::UNKNOWN;
    }
    memtrace_alloc::trace_at(block.addr() as u64).map_or(SiteId::UNKNOWN, |trace| trace.site)
}

// SAFETY: every request goes to the wrapped allocator and its answer goes back unchanged; nothing
// here unwinds or allocates.
unsafe impl GlobalAlloc for Checked {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.inner.alloc(layout) };
        self.allocated(block, layout.size(), SiteId::UNKNOWN);
        block
    }

    #[inline(never)]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.inner.alloc_zeroed(layout) };
        self.allocated(block, layout.size(), SiteId::UNKNOWN);
        block
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.inner.dealloc(block, layout) };
    }

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let before = site_of(block);
        // SAFETY: the caller's promise.
        let resized = unsafe { self.inner.realloc(block, layout, new_size) };
        self.allocated(resized, new_size, before);
        resized
    }
}
