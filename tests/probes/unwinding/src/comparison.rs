//! One node of a path: several captures, compared with one truth.
//!
//! Each thread has a comparer with caches of its own: one for each limit, and one whose limit
//! changes from node to node. All captures are made in [`check`] or a function that only it calls;
//! its own frame is the newest that is compared, by function rather than by address.

use crate::calls::c_frame;
use crate::kind::Kind;
use crate::rng::Rng;
use crate::sites::{Table, WithOwn};
use crate::tally::Tally;
use crate::truth::Truth;
use libc::c_void;
use memtrace_unwind::{End, SiteCache, StackBounds, Walk, capture, capture_plainly};
use std::cell::Cell;
use std::fmt::{self, Write};
use std::num::NonZeroU32;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// Frames that the caches are asked for.
const LIMITS: [usize; 6] = [1, 5, 10, 25, 64, 128];
/// Frames that [`check_barely`] asks for.
const BARE_LIMIT: usize = 64;
/// As much as a truth has room for, so that no walk of the whole stack is cut.
const MAX_FRAMES: usize = 1024;
/// Differences that are printed, of each thread.
const MAX_REPORTS: u64 = 3;

static SITES: Table = Table::new();
static SITES_WITH_OWN: WithOwn<'_> = WithOwn(&SITES);

thread_local! {
    static CURRENT: Cell<*mut Comparer> = const { Cell::new(ptr::null_mut()) };
}

/// The functions whose frames are left out of sites, as a tool leaves out its hooks.
struct OwnCode {
    check: Range<u64>,
    others: [Range<u64>; 3],
}

impl OwnCode {
    fn get() -> &'static Self {
        static OWN_CODE: OnceLock<OwnCode> = OnceLock::new();
        OWN_CODE.get_or_init(|| {
            let range = |function: *const ()| {
                memtrace_unwind::function_range(function as u64).expect("compiled code has CFI")
            };
            Self {
                check: range(check as *const ()),
                others: [
                    ask as *const (),
                    check_barely as *const (),
                    crate::calls::own_frame::relay as *const (),
                ]
                .map(range),
            }
        })
    }

    fn contains(&self, call_addr: u64) -> bool {
        self.check.contains(&call_addr) || self.others.iter().any(|own| own.contains(&call_addr))
    }
}

/// Whether a frame is left out of a site while it is among the newest.
pub(crate) fn is_own(call_addr: u64) -> bool {
    OwnCode::get().contains(call_addr)
}

/// By what means a capture was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Walk,
    PlainWalk,
    CacheOfOneLimit,
    CacheOfManyLimits,
    /// For one frame, of a stack of which none is left out.
    CacheOfNewest,
}

impl Means {
    /// Whether own frames are left out of what it answers.
    fn leaves_out_own(self) -> bool {
        matches!(self, Self::CacheOfOneLimit | Self::CacheOfManyLimits)
    }
}

/// Captures and compares on one thread.
pub(crate) struct Comparer {
    own_code: &'static OwnCode,
    bounds: StackBounds,
    /// `None` where a cache must not be asked: in a handler that may interrupt one.
    caches: Option<Caches>,
    truth: Truth,
    /// The frame of [`check`] among those of the truth.
    start: usize,
    /// Newest frames of the truth that are own.
    n_own: usize,
    /// What is compared with the truth.
    answer: Box<[u64; MAX_FRAMES]>,
    /// What [`check_barely`] was told.
    bare_site: Option<NonZeroU32>,
    n_nodes: usize,
    tally: Tally,
    sabotage: Option<Sabotage>,
}

struct Caches {
    of_one_limit: [SiteCache; LIMITS.len()],
    of_many_limits: SiteCache,
    of_newest: SiteCache,
    /// Asked by [`check_barely`].
    bare: SiteCache,
}

impl Caches {
    fn new() -> Self {
        Self {
            of_one_limit: LIMITS.map(|_| SiteCache::new()),
            of_many_limits: SiteCache::new(),
            of_newest: SiteCache::new(),
            bare: SiteCache::new(),
        }
    }
}

/// Spoils answers, so that the comparison is seen to fail.
struct Sabotage {
    every: u64,
    n_answers: u64,
    rng: Rng,
}

impl Comparer {
    /// A comparer for the current thread. `sabotage` says how many answers there are to a spoilt
    /// one; `None` spoils none.
    pub(crate) fn new(has_caches: bool, sabotage: Option<u64>) -> Box<Self> {
        Box::new(Self {
            own_code: OwnCode::get(),
            bounds: StackBounds::current(),
            caches: has_caches.then(Caches::new),
            truth: Truth::new(),
            start: 0,
            n_own: 0,
            answer: Box::new([0; MAX_FRAMES]),
            bare_site: None,
            n_nodes: 0,
            tally: Tally::new(sabotage.is_some()),
            sabotage: sabotage.map(|every| Sabotage { every, n_answers: 0, rng: Rng::new(every) }),
        })
    }

    /// Lets [`check`] use a comparer for as long as `f` runs.
    pub(crate) fn with<R>(this: *mut Self, f: impl FnOnce() -> R) -> R {
        let before = CURRENT.replace(this);
        let result = f();
        CURRENT.set(before);
        result
    }

    /// The comparer that [`check`] uses on this thread.
    pub(crate) fn current() -> *mut Self {
        CURRENT.get()
    }

    /// The counts of this thread so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Finds in the truth the frame of the function that took it: [`check`] or [`check_barely`].
    fn find_start(&mut self) {
        let call_addrs = self.truth.call_addrs();
        let is_own = |&call_addr: &u64| self.own_code.contains(call_addr);
        self.start = call_addrs.iter().position(is_own).expect("the truth leads to its caller");
        let is_other = |&call_addr: &u64| !self.own_code.contains(call_addr);
        self.n_own = call_addrs[self.start..].iter().position(is_other).unwrap_or(0);
        assert!(self.n_own > 0, "there is a frame that called: {call_addrs:x?}");
    }

    /// Compares what [`check_barely`] found.
    pub(crate) fn compare_bare_site(&mut self, kind: Kind) {
        self.find_start();
        if self.caches.is_some() {
            self.compare_site(kind, Means::CacheOfOneLimit, BARE_LIMIT, self.bare_site);
        }
    }

    /// Compares the site that a cache gave with the truth.
    fn compare_site(&mut self, kind: Kind, means: Means, limit: usize, site: Option<NonZeroU32>) {
        let found = site.and_then(|site| SITES.copy(site, &mut self.answer[..]));
        // Without a site, or with one that was never given, the answer is an empty stack.
        let (len, end) = found.unwrap_or((0, End::Limit));
        self.compare(kind, means, limit, Walk { len, end });
    }

    /// Compares the answer, which is in its buffer, with the truth.
    fn compare(&mut self, kind: Kind, means: Means, limit: usize, walk: Walk) {
        let walk = self.spoil(walk);
        let start = self.start + if means.leaves_out_own() { self.n_own } else { 0 };
        let truth = &self.truth.call_addrs()[start..];
        let (truth, end) = if truth.len() > limit {
            (&truth[..limit], End::Limit)
        } else {
            (truth, self.truth.end())
        };
        let answer = &self.answer[..walk.len];
        let is_equal = if means.leaves_out_own() {
            answer == truth
        } else {
            // The newest frame is that of `check`, at the instruction that captured.
            answer.len() == truth.len()
                && self.own_code.check.contains(&answer[0])
                && answer[1..] == truth[1..]
        };
        // The plain walk is checked, too, but it is not what users' captures are made by.
        if means != Means::PlainWalk {
            self.tally.add_comparison(kind);
        }
        if is_equal && walk.end == end {
            return;
        }
        if self.is_explained(start, (answer, walk.end)) {
            self.tally.add_explained(kind);
        } else if self.tally.add_difference(kind) < MAX_REPORTS {
            // Neither allocates nor takes a lock: the comparer of a signal handler is here, too.
            let _ = report(kind, means, limit, (answer, walk.end), (truth, end));
        }
    }

    /// Whether an answer ends, and says so, where the library's guard rails end it.
    ///
    /// On a stack of unknown extent, such as a coroutine's, it reads nothing but what is above it, and
    /// the thread's own stack. A coroutine that was resumed from another stack of unknown extent,
    /// here that of a signal handler, cannot be left. A signal frame can: what it interrupted is
    /// written on the handler's stack.
    ///
    /// A walk carries the stack pointer and the frame pointer. Code that was interrupted where its
    /// frame is counted from another register, as at both ends of a function that realigns its stack,
    /// cannot be left either.
    ///
    /// `start` is the first frame of the truth that is compared.
    fn is_explained(&self, start: usize, (answer, end): (&[u64], End)) -> bool {
        let truth = &self.truth.call_addrs()[start..];
        let newest = usize::from(start == self.start);
        let (len, is_shorter) = (answer.len(), answer.len() < truth.len());
        if end != End::Truncated || !is_shorter || len < 2 || answer[newest..] != truth[newest..len]
        {
            return false;
        }
        let is_interrupted = is_signal_return(truth[len - 2]);
        if is_interrupted && c_frame::counts_from_another_register(truth[len - 1]) {
            return true;
        }
        let sp = |frame: usize| self.truth.stack_pointers()[start + frame];
        // No frame is so large: this is another stack.
        const FAR: u64 = 1 << 17;
        let is_far = sp(len).wrapping_sub(sp(len - 1)) > FAR;
        let are_foreign = [len - 1, len].iter().all(|&i| !self.bounds.contains_word(sp(i)));
        is_far && are_foreign && !is_signal_return(truth[len - 1])
    }

    /// Spoils one answer in so many.
    fn spoil(&mut self, walk: Walk) -> Walk {
        let Some(sabotage) = &mut self.sabotage else { return walk };
        sabotage.n_answers += 1;
        if !sabotage.n_answers.is_multiple_of(sabotage.every) {
            return walk;
        }
        *self.tally.n_sabotaged.get_or_insert_default() += 1;
        match sabotage.rng.below(3) {
            0 if walk.len > 1 && walk.end != End::Truncated => Walk { len: walk.len - 1, ..walk },
            1 if walk.len > 1 => {
                let place = 1 + sabotage.rng.below(walk.len - 1);
                self.answer[place] ^= 1 << sabotage.rng.below(47);
                walk
            }
            _ if walk.end == End::Outermost => Walk { end: End::Truncated, ..walk },
            _ => Walk { end: End::Outermost, ..walk },
        }
    }
}

/// Captures the stack here by all means and compares each with the truth.
///
/// There is a comparer ([`Comparer::with`]), and nothing in here calls this function again but a
/// signal handler that brings its own.
#[inline(never)]
pub(crate) fn check(kind: Kind) {
    // SAFETY: the thread's comparer outlives its use, and this function alone uses it meanwhile.
    let this = unsafe { CURRENT.get().as_mut() }.expect("the thread has a comparer");
    this.truth.take();
    this.find_start();
    this.n_nodes += 1;
    let limit = LIMITS[this.n_nodes % LIMITS.len()];

    let walk = capture(&this.bounds, &mut this.answer[..]);
    this.compare(kind, Means::Walk, MAX_FRAMES, walk);
    let walk = capture(&this.bounds, &mut this.answer[..limit]);
    this.compare(kind, Means::Walk, limit, walk);
    let walk = capture_plainly(&this.bounds, &mut this.answer[..]);
    this.compare(kind, Means::PlainWalk, MAX_FRAMES, walk);

    for (i, &limit) in LIMITS.iter().enumerate() {
        let Some(caches) = &mut this.caches else { break };
        let site = caches.of_one_limit[i].site_of_caller(&this.bounds, limit, &SITES);
        this.compare_site(kind, Means::CacheOfOneLimit, limit, site);
    }
    if let Some(caches) = &mut this.caches {
        let site = ask(&mut caches.of_many_limits, &this.bounds, limit);
        this.compare_site(kind, Means::CacheOfManyLimits, limit, site);
    }
    if let Some(caches) = &mut this.caches {
        let site = caches.of_newest.site_of_caller(&this.bounds, 1, &SITES_WITH_OWN);
        let (n_hits, n_captures) = (caches.of_newest.counts().n_hits, this.n_nodes as u64);
        // Told without a walk where the thread's own stack is captured, most of the time.
        assert!(n_hits > n_captures / 8 || n_captures < 1000, "{n_hits} of {n_captures}");
        this.compare_site(kind, Means::CacheOfNewest, 1, site);
    }
}

/// Asks a cache from a frame more of our own.
#[inline(never)]
fn ask(cache: &mut SiteCache, bounds: &StackBounds, limit: usize) -> Option<NonZeroU32> {
    cache.site_of_caller(bounds, limit, &SITES)
}

/// Takes the truth and asks a cache, and does nothing else that might need a register: optimized, it
/// leaves the frame pointer as its caller has it.
///
/// # Safety
///
/// `comparer` is that of the thread, and nothing else refers to it meanwhile.
#[inline(never)]
pub(crate) unsafe extern "C-unwind" fn check_barely(comparer: *mut c_void) {
    // SAFETY: the caller sees to it (above).
    let this = unsafe { &mut *comparer.cast::<Comparer>() };
    this.truth.take();
    if let Some(caches) = &mut this.caches {
        this.bare_site = caches.bare.site_of_caller(&this.bounds, BARE_LIMIT, &SITES);
    }
}

/// Whether this is the C library's return from a signal handler: `mov $15, %rax`.
fn is_signal_return(call_addr: u64) -> bool {
    let code = call_addr as *const [u8; 7];
    // SAFETY: the address was found on the stack as one of code, and more code follows a call.
    unsafe { code.read_unaligned() == [0x48, 0xC7, 0xC0, 0x0F, 0, 0, 0] }
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

fn report(
    kind: Kind,
    means: Means,
    limit: usize,
    (answer, answer_end): (&[u64], End),
    (truth, truth_end): (&[u64], End),
) -> fmt::Result {
    let mut out = Stderr;
    writeln!(out, "difference: {}, {means:?}, limit {limit}", kind.name())?;
    writeln!(out, "   answer: {} frames, {answer_end:?}", answer.len())?;
    writeln!(out, "    truth: {} frames, {truth_end:?}", truth.len())?;
    for i in 0..answer.len().max(truth.len()) {
        let (mine, theirs) = (answer.get(i).copied(), truth.get(i).copied());
        let mark = if mine == theirs { "" } else { "  <<" };
        let function = theirs.and_then(memtrace_unwind::function_range);
        let function = function.map_or(0, |range| range.start);
        let (mine, theirs) = (mine.unwrap_or(0), theirs.unwrap_or(0));
        writeln!(out, "  {i:3} {mine:14x} {theirs:14x} of {function:14x}{mark}")?;
    }
    Ok(())
}
