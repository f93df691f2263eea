//! Starting and stopping: the state of the process, and everything that changes it.
//!
//! # Invariants
//!
//! - **I1** The state is [`OFF`] whenever the program does not trace, and then the live table, the
//!   tracked memory and the totals are empty as soon as no thread is inside the hook.
//! - **I2** The state changes to and from [`ON`], [`ON_AT_LENGTH`] and [`SAMPLED`] states, and what is
//!   recorded then, only under [`CONTROL`].
//!
//! # How `stop` leaves nothing behind
//!
//! A hook may have looked at the state just before it changed. So it looks once more in the
//! [operation](crate::thread_slot::Slot::begin) in which it stores its trace, before it does; while `stop` first stores the state,
//! then waits until every operation is over that may have begun before, and then empties the table. What is
//! stored was so in an operation that has seen tracing on, and those have come to an end by then.
//!
//! The wait is for microseconds, unless a thread was interrupted in an operation, and then for as long as the system takes
//! to let it go on. It has an end in any case: a thread that a debugger holds, or that has left an operation for good by
//! jumping out of a signal handler, keeps `stop` for a second or two. Then the table is emptied as it is, and once more
//! when tracing starts the next time.
//!
//! # What a hook sees before it allocates
//!
//! A hook looks at the state once more, `Relaxed`, before it calls the wrapped allocator, and goes no further if
//! it is [`OFF`] or the sampler passes the block over. That is as if it had been handed out at that moment. If
//! tracing begins while the wrapped allocator is at work, the block is one from before the start, as it might
//! have been anyway; a start that came before the allocation, in this thread or in one that it has synchronised
//! with, is seen. If tracing ends meanwhile, the block would have been forgotten. If the look says anything
//! else, nothing rests on it: the recorder looks for itself after the block was allocated, in the operation. Of a block that is passed over nothing stays but a shorter countdown, of which it does no
//! harm to lose some.
//!
//! While tracing is sampled a release looks at the page of its block first ([`SampledPages`]). That says the
//! same whatever the state has been in between: what it lets go has no trace.
//!
//! # How totals of samples, and totals by site, come out even
//!
//! What a sampled block adds to the totals depends on the period, which may be another after a stop and a
//! start; and totals by site begin from nothing with each run. So the state holds the period and the number of the run, a hook
//! looks in its operation whether it is still the *same* state, and `stop` sweeps with the state that it ends: what is in
//! the table was stored in the state that is on. Whoever releases a block looks at the state first. It cannot be
//! of an earlier run than the block, which was handed out before, nor of a later one, for the block's trace would have
//! been swept in between. Where totals by site are kept it looks again in the operation in which it takes the trace and
//! counts it.
//!
//! Plain runs have no number: a trace counts for the same in each of them.

use crate::environment;
use crate::fork;
use crate::live_samples::LiveSamples;
use crate::lock::LeafLock;
use crate::mapped;
use crate::membarrier;
use crate::options::Options;
use crate::page_word::SIZE_LIMIT;
use crate::platform;
use crate::recorder::RECORDER;
use crate::sampled_pages::SampledPages;
use crate::sampler::{self, Period};
use crate::thread;
use crate::thread_slot::SLOTS;
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst,
};
use core::time::Duration;

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

/// How often `stop` looks whether operations are over: at first at once, and then after a rest each; for one or two seconds
/// together.
const MOST_LOOKS: u32 = 10_000;
const N_SPINS: u32 = 200;
const REST: Duration = Duration::from_micros(100);
const REST_WITHOUT_FENCE: Duration = Duration::from_millis(10);

/// What the hook looks at each time: one static, so that its address is found once.
struct Watched {
    state: AtomicU64,
    sampled_pages: SampledPages,
}

static WATCHED: Watched =
    Watched { state: AtomicU64::new(UNSET), sampled_pages: SampledPages::new() };
static LIMIT: AtomicU16 = AtomicU16::new(1);
/// What is recorded beside sizes and stacks, as bits: [`THREADS`], [`GENERATIONS`], [`LIFETIMES`].
static SWITCHES: AtomicU8 = AtomicU8::new(0);
const THREADS: u8 = 1;
const GENERATIONS: u8 = 2;
const LIFETIMES: u8 = 4;

/// What is known to who starts or stops.
pub(crate) struct Control {
    /// Runs that have a number.
    n_runs: u64,
    /// The state that tracing ended in, if a thread may have been about to store into the table that was emptied then.
    unsettled: Option<State>,
}

/// Starting, stopping and clearing take turns.
///
/// Held for longer than other leaf locks: while operations come to an end, while the live table is swept, and while `start`
/// probes the hook, which calls the wrapped allocator. No allocation ever waits for it.
pub(crate) static CONTROL: LeafLock<Control> =
    LeafLock::new(Control { n_runs: 0, unsettled: None });

/// Returns a state with the number of its run, which is another than that of any run that a thread may still know.
const fn numbered(state: u64, n_runs: u64) -> u64 {
    // Below the mark, and one bit more.
    const RUN_BITS: u32 = u64::BITS - 2 - sampler::PERIOD_BITS;
    state | (n_runs & ((1 << RUN_BITS) - 1)) << sampler::PERIOD_BITS
}

/// Waits until no operation is under way that may have seen `state`, which is not that of now. Returns it if there may be
/// one yet, because a thread does not go on, or because this is a signal handler in the middle of an operation.
fn unless_settled(state: State) -> Option<State> {
    let own = thread::slot();
    let grace = SLOTS.begin_grace().unwrap_or_else(|| {
        // A thread that is not running has passed a fence as it was left, and what one that is has stored is seen by all
        // long before this is over.
        platform::rest(REST_WITHOUT_FENCE);
        SLOTS.begin_grace_without_fence()
    });
    let mut n_looks = 0u32;
    while !SLOTS.is_over_for_others(grace, own) {
        match n_looks {
            0..N_SPINS => core::hint::spin_loop(),
            N_SPINS..MOST_LOOKS => platform::rest(REST),
            _ => return Some(state),
        }
        n_looks = n_looks.saturating_add(1);
    }
    own.is_some_and(|own| !own.is_idle()).then_some(state)
}

/// What [`start`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// Tracing is on from now.
    Now,
    /// Tracing was on already, with this limit, and goes on unchanged.
    Already {
        /// Frames captured for each allocation.
        limit: u16,
    },
}

/// Why tracing could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The number of frames is not in 1..=65535.
    FramesOutOfRange {
        /// The number asked for.
        n_frames: u16,
    },
    /// The limit on the memory of tables leaves no room for the first of them.
    TableLimitTooLow {
        /// The limit asked for, in bytes.
        bytes: u64,
    },
    /// Allocations of this program do not go through a [`crate::Alloc`].
    NotInstalled,
    /// The system gave no memory for the tracer's tables.
    TablesNotMapped,
}

impl StartError {
    const fn message(&self) -> &'static str {
        match self {
            Self::FramesOutOfRange { .. } => "the number of frames must be in 1..=65535",
            Self::TableLimitTooLow { .. } => "the limit on tables must be 4194304 bytes or more",
            Self::NotInstalled => {
                "this program's allocations do not go through memtrace: add \
                 `#[global_allocator] static ALLOC: memtrace::Alloc = memtrace::Alloc::system();`"
            }
            Self::TablesNotMapped => {
                "no memory could be mapped for the tracer's tables (32 MiB of address space, 48 with lifetimes): \
                 raise the limit on address space (ulimit -v)"
            }
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FramesOutOfRange { n_frames } => {
                write!(f, "{}, not {n_frames}", self.message())
            }
            Self::TableLimitTooLow { bytes } => write!(f, "{}, not {bytes}", self.message()),
            _ => f.write_str(self.message()),
        }
    }
}

impl core::error::Error for StartError {}

/// The state of the process at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct State(u64);

impl State {
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

    /// Whether the state is still this one, and tracing on. Looked at in the operation in which something is then stored.
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
        // the operation ([`unless_settled`]).
        WATCHED.state.load(Acquire) == self.0 && self.0 >= ON
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

/// Whether tracing is on.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    WATCHED.state.load(SeqCst) >= ON
}

/// What the recorder does with an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Off,
    /// Records size and stack.
    Short,
    /// Records what [`records`] says, of all blocks or of those that the sampler decides for.
    AtLength,
}

/// Returns what to do with an allocation, starting to trace if the environment asks for it.
#[inline(always)]
pub(crate) fn mode() -> Mode {
    match WATCHED.state.load(SeqCst) {
        ON => Mode::Short,
        ON_AT_LENGTH.. => Mode::AtLength,
        UNSET => read_environment(),
        _ => Mode::Off,
    }
}

/// What is recorded of a block beside its size and its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) threads: bool,
    pub(crate) generations: bool,
    /// When it was born, by the clock.
    pub(crate) lifetimes: bool,
}

impl Records {
    /// Whether there are details.
    pub(crate) const fn details(self) -> bool {
        self.threads || self.generations
    }

    /// Whether anything is.
    pub(crate) const fn any(self) -> bool {
        self.details() || self.lifetimes
    }

    const fn to_switches(self) -> u8 {
        (if self.threads { THREADS } else { 0 })
            | (if self.generations { GENERATIONS } else { 0 })
            | (if self.lifetimes { LIFETIMES } else { 0 })
    }

    const fn from_switches(switches: u8) -> Self {
        Self {
            threads: switches & THREADS != 0,
            generations: switches & GENERATIONS != 0,
            lifetimes: switches & LIFETIMES != 0,
        }
    }
}

/// Returns what is recorded now, or was when tracing was last on.
pub(crate) fn records() -> Records {
    // Relaxed: stored before the state that calls for it, and both are looked at in that order.
    Records::from_switches(SWITCHES.load(Relaxed))
}

/// Whether threads of blocks are recorded now, or were when tracing was last on.
pub fn records_threads() -> bool {
    records().threads
}

/// Whether generations of blocks are recorded now, or were when tracing was last on.
pub fn records_generations() -> bool {
    records().generations
}

/// Starts tracing if the environment asks for it, the first time this is called.
///
/// Returns whether tracing is on.
#[inline]
pub(crate) fn is_on_or_asked_for() -> bool {
    mode() != Mode::Off
}

#[cold]
#[inline(never)]
fn read_environment() -> Mode {
    if WATCHED.state.compare_exchange(UNSET, OFF, SeqCst, SeqCst).is_ok() {
        // So that a heap's own fork handlers are registered before ours: its lock is taken after ours then.
        platform::touch_global_allocator();
        fork::register();
        if let Some(options) = environment::options_wanted()
            && let Err(error) = start_with(options)
        {
            environment::report_failed_start(error.message());
        }
    }
    match WATCHED.state.load(SeqCst) {
        ON => Mode::Short,
        ON_AT_LENGTH.. => Mode::AtLength,
        _ => Mode::Off,
    }
}

/// Starts to trace all allocations, with at most `n_frames` frames for each.
///
/// If tracing is on already it goes on as it is, with its own limit.
///
/// **Errors**: if `n_frames` is 0, if no [`crate::Alloc`] is the global allocator (found out by
/// allocating), or if there is no memory for the tables.
///
/// **Cost**: 0.3 ms the first time, less after that.
pub fn start(n_frames: u16) -> Result<Started, StartError> {
    start_with(Options::new().frames(n_frames))
}

/// Starts to trace all allocations as `options` say.
///
/// If tracing is on already it goes on as it is, with its own options.
///
/// **Errors**, **Cost**: as [`start`].
pub fn start_with(options: Options) -> Result<Started, StartError> {
    if options.n_frames == 0 {
        return Err(StartError::FramesOutOfRange { n_frames: options.n_frames });
    }
    if let Some(bytes @ 0..Options::LEAST_TABLE_LIMIT) = options.table_limit {
        return Err(StartError::TableLimitTooLow { bytes });
    }
    if is_on_or_asked_for() {
        // What is remembered of stacks stays as it is, too.
        return Ok(Started::Already { limit: limit() });
    }
    // The guard keeps what happens here, first of all under the lock, out of the recorder's sight.
    thread::untraced(|| {
        // Asks the loader, which may be loading an object whose constructor starts tracing: no lock
        // of ours may be held.
        memtrace_unwind::prepare();
        thread::prepare();
        membarrier::prepare();
        let mut control = CONTROL.lock();
        if is_on() {
            return Ok(Started::Already { limit: LIMIT.load(Relaxed) });
        }
        if let Some(state) = control.unsettled.take() {
            control.unsettled = unless_settled(state);
            RECORDER.forget_all(state);
        }
        mapped::set_limit(options.table_limit.unwrap_or(u64::MAX));
        if !RECORDER.prepare() || options.lifetimes && !RECORDER.live.prepare_births() {
            return Err(StartError::TablesNotMapped);
        }
        WATCHED.state.store(STARTING, SeqCst);
        if !RECORDER.find_hook_frames() {
            WATCHED.state.store(OFF, SeqCst);
            return Err(StartError::NotInstalled);
        }
        LIMIT.store(options.n_frames, Relaxed);
        // What threads remember is for the limit of the run before, which they do not look at each time.
        memtrace_unwind::forget_unloaded();
        let records = Records {
            threads: options.threads,
            generations: options.generations,
            lifetimes: options.lifetimes,
        };
        SWITCHES.store(records.to_switches(), Relaxed);
        RECORDER.generations.begin_run();
        RECORDER.begin_peak(options.peak_percent);
        RECORDER.by_site.set_on(options.site_totals || options.lifetimes);
        control.n_runs = control.n_runs.wrapping_add(1);
        let state = match Period::new(options.sample_every) {
            Some(period) => {
                sampler::prepare();
                LiveSamples(&RECORDER.live).prepare();
                numbered(period.marked(), control.n_runs)
            }
            // So that the short way need not look whether it is.
            None if records.any() || options.site_totals || options.peak_percent.is_some() => {
                numbered(ON_AT_LENGTH, control.n_runs)
            }
            None => ON,
        };
        WATCHED.state.store(state, SeqCst);
        Ok(Started::Now)
    })
}

/// Stops tracing and forgets all traces; the limit stays known. Does nothing if tracing is off.
///
/// Waits for threads that are recording a block at this moment, for as long as one of them is not let run by the system,
/// but no longer than a second or two.
///
/// **Cost**: proportional to the heap that was traced: 8 to 35 ms for 100 MiB, by the number of blocks.
pub fn stop() {
    is_on_or_asked_for();
    thread::untraced(|| {
        let mut control = CONTROL.lock();
        if is_on() {
            let state = State(WATCHED.state.swap(OFF, SeqCst));
            control.unsettled = unless_settled(state);
            RECORDER.end_peak();
            RECORDER.by_site.set_on(false);
            RECORDER.forget_all(state);
        }
        drop(control);
        RECORDER.live.tend_at_length();
    });
}

/// Forgets all traces and goes on tracing. Does nothing if tracing is off.
///
/// The later release of a block that was forgotten is ignored. `current` and `peak` of
/// [`crate::traced_memory`] become 0, but for what other threads allocate meanwhile.
pub fn clear_traces() {
    thread::untraced(|| {
        let held = CONTROL.lock();
        if is_on() {
            RECORDER.suspend_peak();
            RECORDER.forget_all(State::now());
            RECORDER.by_site.reset();
            RECORDER.reset_peak();
        }
        drop(held);
        RECORDER.live.tend_at_length();
    });
}

/// Makes the peak what is traced now, and forgets the copy of an earlier one. Does nothing if tracing
/// is off.
pub fn reset_peak() {
    if is_on() {
        RECORDER.reset_peak();
    }
}

/// Returns the number of frames last given to [`start`]; 1 before.
pub(crate) fn limit() -> u16 {
    LIMIT.load(Relaxed)
}

/// Returns the mean distance of samples in bytes, if tracing is on and sampled.
///
/// Blocks of this size and more are all recorded.
pub fn sample_period() -> Option<NonZeroU64> {
    State::now().period().map(Period::get)
}
