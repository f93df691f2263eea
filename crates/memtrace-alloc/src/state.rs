//! The state of the process: whether it traces, and how. One word, which the hook looks at each time.
//!
//! # Invariants
//!
//! - **I1** It changes under the [control](crate::control) lock only; but from [`UNSET`], once.
//! - **I2** Runs that count, or note, something of their own have a number, by which a state of one of them is another than
//!   that of any of the 16,383 before.

use crate::page_word::SIZE_LIMIT;
use crate::sampled_pages::SampledPages;
use crate::sampler::{self, Period};
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

/// The environment has not been looked at: the next allocation, or the next call, will.
const UNSET: u64 = 0;
/// Not tracing.
const OFF: u64 = 1;
/// Not tracing yet: one thread is finding out whether the hook is installed.
const STARTING: u64 = 2;
/// Tracing, with no more than sizes and stacks: what the short way through the recorder does.
const ON: u64 = 3;
/// Tracing with details, or totals by site, or a copy of the peak; with the [number](numbered) of the run.
const ON_AT_LENGTH: u64 = 4;
/// Tracing in samples, whose period is in the lower bits; with the number of the run.
const SAMPLED: u64 = sampler::MARK;
/// With another state in which tracing is on: no blocks are recorded for the moment.
const PAUSED: u64 = 1 << 62;

/// What the hook looks at each time: one static, so that its address is found once.
struct Watched {
    state: AtomicU64,
    sampled_pages: SampledPages,
}

static WATCHED: Watched =
    Watched { state: AtomicU64::new(UNSET), sampled_pages: SampledPages::new() };

/// The state of the process at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct State(u64);

impl State {
    pub(crate) const OFF: Self = Self(OFF);
    /// Not tracing yet: one thread is finding out whether the hook is installed.
    pub(crate) const STARTING: Self = Self(STARTING);
    pub(crate) const ON: Self = Self(ON);

    /// Tracing with more than sizes and stacks, in a run with this number.
    pub(crate) const fn at_length(n_runs: u64) -> Self {
        numbered(ON_AT_LENGTH, n_runs)
    }

    /// Tracing in samples, in a run with this number.
    pub(crate) const fn sampled(period: Period, n_runs: u64) -> Self {
        numbered(period.marked(), n_runs)
    }

    /// Makes this the state, and returns what it was before. Under the control lock.
    pub(crate) fn begin(self) -> Self {
        Self(WATCHED.state.swap(self.0, SeqCst))
    }

    /// Makes the state [`Self::OFF`] if the environment has not been looked at yet, and says whether it had not.
    pub(crate) fn begin_off_if_unset() -> bool {
        WATCHED.state.compare_exchange(UNSET, OFF, SeqCst, SeqCst).is_ok()
    }

    /// Returns the state now, in the one order of all `SeqCst` accesses: what was stored before it is seen after this.
    #[inline(always)]
    pub(crate) fn now_for_certain() -> Self {
        Self(WATCHED.state.load(SeqCst))
    }

    /// Whether the environment has not been looked at yet.
    #[inline(always)]
    pub(crate) const fn is_unset(self) -> bool {
        self.0 == UNSET
    }

    /// Whether tracing is on.
    #[inline(always)]
    pub(crate) const fn is_on(self) -> bool {
        self.0 >= ON
    }

    /// Whether it is on and blocks are recorded.
    #[inline(always)]
    pub(crate) const fn records(self) -> bool {
        self.is_on() && self.0 & PAUSED == 0
    }

    /// The same, but that no blocks are recorded.
    pub(crate) const fn paused(self) -> Self {
        Self(self.0 | PAUSED)
    }

    /// The same in a run with another number, if it has one.
    pub(crate) const fn renumbered(self, n_runs: u64) -> Self {
        if self.0 <= ON { self } else { numbered(self.0 & !(RUN_MASK << RUN_SHIFT), n_runs) }
    }

    /// Returns the state now: one load.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        // Relaxed: publishes nothing. Whoever was handed a block sees the state that it was recorded in,
        // or a later one.
        Self(WATCHED.state.load(Relaxed))
    }

    /// Whether neither allocations nor releases are told to the recorder.
    #[inline(always)]
    pub(crate) const fn is_off(self) -> bool {
        self.0 == OFF
    }

    /// Whether the sampler decides for the thread's next block, after [`Self::passes_over`] did not decide against it.
    pub(crate) fn decides_for(self, size: u64) -> bool {
        sampler::decides_for(self.0, size)
    }

    /// Returns the period of samples; `None` if there are none.
    #[inline(always)]
    pub(crate) const fn period(self) -> Option<Period> {
        Period::of_marked(self.0)
    }

    /// Whether the thread's next block is not recorded, and that is all there is to do.
    #[inline(always)]
    pub(crate) fn passes_over(self, size: usize) -> bool {
        self.is_off() || (self.may_be_sampled() && sampler::passes_over(self.0, size))
    }

    /// Whether a block of the program's, of `size` bytes, has no trace, and that is all there is to do at its
    /// release.
    #[inline(always)]
    pub(crate) fn lets_go(self, block: *mut u8, size: usize) -> bool {
        self.is_off()
            || (self.may_be_sampled()
                && WATCHED.sampled_pages.has_none(block.addr() as u64)
                && (size as u64) < SIZE_LIMIT)
    }

    /// Whether tracing is sampled, or not looked at yet: a comparison that the processor has made for
    /// [`Self::is_off`]. In the latter case nothing was recorded, and no thread has a period.
    #[inline(always)]
    const fn may_be_sampled(self) -> bool {
        (self.0 as i64) < OFF as i64
    }

    /// Whether it is [`On`].
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 == ON
    }

    /// Whether tracing is sampled.
    #[inline(always)]
    pub(crate) const fn is_sampled(self) -> bool {
        self.0 & SAMPLED != 0
    }
}

/// Returns a state with the number of its run (I2).
const fn numbered(state: u64, n_runs: u64) -> State {
    State(state | (n_runs & RUN_MASK) << RUN_SHIFT)
}

/// A number is between the period and [`PAUSED`].
const RUN_SHIFT: u32 = sampler::PERIOD_BITS;
const RUN_MASK: u64 = (PAUSED >> RUN_SHIFT) - 1;

/// A state in which blocks are recorded: either any, or one that the compiler knows, so that recording
/// all blocks does not pay for samples.
pub(crate) trait Recording: Copy {
    /// Returns what a block of this size, recorded in this state, adds to the totals.
    fn counted(self, size: u64) -> u64;

    /// Returns for how many blocks one of this size stands, recorded in this state, and for how many bytes.
    #[inline]
    fn stands_for(self, size: u64) -> (u64, u64) {
        let bytes = self.counted(size);
        // To the nearest; of a size of 0 nothing is known but that it was.
        let n_blocks = bytes.saturating_add(size / 2).checked_div(size).unwrap_or(1);
        (n_blocks, bytes)
    }

    /// Whether no more than sizes and stacks are recorded, as far as is known without a look.
    fn is_plain(self) -> bool;

    /// Whether the state is still this one, and blocks are recorded. Looked at in the operation in which something is
    /// then stored or taken.
    fn is_still(self) -> bool;

    /// The state if tracing is sampled.
    #[inline(always)]
    fn sampled(self) -> Option<State> {
        None
    }
}

impl Recording for State {
    #[inline]
    fn counted(self, size: u64) -> u64 {
        match self.period() {
            None => size,
            Some(period) => period.estimate(size),
        }
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        false
    }

    #[inline(always)]
    fn is_still(self) -> bool {
        // Acquire: what is to be recorded was stored before the state that calls for it. Who stores another waits for
        // the operation ([`crate::control`]).
        self.records() && WATCHED.state.load(Acquire) == self.0
    }

    #[inline(always)]
    fn sampled(self) -> Option<State> {
        self.is_sampled().then_some(self)
    }
}

/// [`ON`].
#[derive(Clone, Copy)]
pub(crate) struct On;

impl Recording for On {
    #[inline(always)]
    fn counted(self, size: u64) -> u64 {
        size
    }

    #[inline(always)]
    fn is_plain(self) -> bool {
        true
    }

    #[inline(always)]
    fn is_still(self) -> bool {
        State(ON).is_still()
    }
}

/// Returns the pages of sampled blocks.
pub(crate) fn sampled_pages() -> &'static SampledPages {
    &WATCHED.sampled_pages
}
