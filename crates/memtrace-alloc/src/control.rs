//! Starting and stopping: everything that changes the [state](State) of the process.
//!
//! # Invariants
//!
//! - **I1** The state is [`State::OFF`] whenever the program does not trace, and then the live table, the
//!   tracked memory and the totals are empty as soon as no thread is inside the hook; but for what a thread stores that
//!   `stop` has waited for in vain.
//! - **I2** The state changes to one in which tracing is on, or from one, and what is recorded then, only under
//!   [`CONTROL`].
//!
//! # How `stop` leaves nothing behind
//!
//! A hook may have looked at the state just before it changed. So it looks once more in the
//! [operation](crate::thread_slot::Slot::begin) in which it stores its trace, before it does; while `stop` first stores
//! the state, then waits until every operation is over that may have begun before, and then empties the table. What
//! is stored was so in an operation that has seen tracing on, and those have come to an end by then.
//!
//! The wait is for microseconds, unless a thread was interrupted in an operation, and then for as long as the system
//! takes to let it go on. It has an end in any case: a thread that a debugger holds, or that has left an operation for good by
//! jumping out of a signal handler, keeps `stop` for a second or two. Then the table is emptied as it is, and once more
//! when tracing starts the next time, which waits as long.
//!
//! # What a hook sees before it allocates
//!
//! A hook looks at the state once more, `Relaxed`, before it calls the wrapped allocator, and goes no further if
//! it is [`State::OFF`] or the sampler passes the block over. That is as if it had been handed out at that moment. If
//! tracing begins while the wrapped allocator is at work, the block is one from before the start, as it might
//! have been anyway; a start that came before the allocation, in this thread or in one that it has synchronised
//! with, is seen. If tracing ends meanwhile, the block would have been forgotten. If the look says anything
//! else, nothing rests on it: the recorder looks for itself after the block was allocated, in the operation. Of a
//! block that is passed over nothing stays but a shorter countdown, of which it does no harm to lose some.
//!
//! While tracing is sampled a release looks at the page of its block first (see
//! [`sampled_pages`](crate::sampled_pages)). That says the same whatever the state has been in between: what it lets
//! go has no trace.
//!
//! # How totals of samples, and totals by site, come out even
//!
//! What a sampled block adds to the totals depends on the period, which may be another after a stop and a
//! start; and totals by site begin from nothing with each run. So the state holds the period and the number of the run,
//! a hook looks in its operation whether it is still the *same* state, and `stop` sweeps with the state that it ends:
//! what is in the table was stored in the state that is on. Whoever releases a block looks at the state first. It cannot
//! be of an earlier run than the block, which was handed out before, nor of a later one, for the block's trace would
//! have been swept in between. In runs that have a number it looks again in the operation in which it takes the trace and
//! counts it at its site.
//!
//! `clear_traces` ends a run that has a number in the same way, and begins another with what is left: nothing. In between no
//! blocks are recorded. Plain runs have none: a trace counts for the same in each of them.

use crate::environment;
use crate::fork;
use crate::live_samples::LiveSamples;
use crate::lock::LeafLock;
use crate::mapped;
use crate::membarrier;
use crate::options::Options;
use crate::platform;
use crate::recorder::RECORDER;
use crate::sampler::{self, Period};
use crate::state::State;
use crate::thread;
use crate::thread_slot::{SLOTS, Slot};
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};
use core::time::Duration;

/// How often [`settles`] looks whether operations are over: at first at once, and then after a rest each; for one or two seconds
/// together.
const MOST_LOOKS: u32 = 10_000;
const N_SPINS: u32 = 200;
const REST: Duration = Duration::from_micros(100);
const REST_WITHOUT_FENCE: Duration = Duration::from_millis(10);

static LIMIT: AtomicU16 = AtomicU16::new(1);
/// What is recorded beside sizes and stacks, as bits: [`THREADS`], [`GENERATIONS`], [`LIFETIMES`].
static SWITCHES: AtomicU8 = AtomicU8::new(0);
const THREADS: u8 = 1;
const GENERATIONS: u8 = 2;
const LIFETIMES: u8 = 4;

/// What is known to who starts or stops.
pub(crate) struct Control {
    /// How often tracing was started or traces were cleared.
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

/// Waits until no operation is under way that may have seen another state than there is now. Says whether that is so: not if
/// a thread does not go on, or if this is a signal handler in the middle of an operation.
fn settles() -> bool {
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
            _ => return false,
        }
        n_looks = n_looks.saturating_add(1);
    }
    own.is_none_or(Slot::is_idle)
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

impl Mode {
    #[inline(always)]
    const fn in_state(state: State) -> Self {
        match state {
            State::ON => Self::Short,
            _ if state.records() => Self::AtLength,
            _ => Self::Off,
        }
    }
}

/// Whether tracing is on.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    State::now_for_certain().is_on()
}

/// Whether [`mode`] is [`Mode::Short`].
#[inline(always)]
pub(crate) fn is_short() -> bool {
    State::now_for_certain() == State::ON
}

/// Returns what to do with an allocation, starting to trace if the environment asks for it.
#[inline(always)]
pub(crate) fn mode() -> Mode {
    let state = State::now_for_certain();
    if state.is_unset() { read_environment() } else { Mode::in_state(state) }
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
    if State::now_for_certain().is_unset() {
        read_environment();
    }
    is_on()
}

#[cold]
#[inline(never)]
fn read_environment() -> Mode {
    if State::begin_off_if_unset() {
        // So that a heap's own fork handlers are registered before ours: its lock is taken after ours then.
        platform::touch_global_allocator();
        fork::register();
        if let Some(options) = environment::options_wanted()
            && let Err(error) = start_with(options)
        {
            environment::report_failed_start(error.message());
        }
    }
    Mode::in_state(State::now_for_certain())
}

/// Starts to trace all allocations, with at most `n_frames` frames for each.
///
/// If tracing is on already it goes on as it is, with its own limit. If the last [`stop`] has waited for a thread in vain,
/// this waits for it, too.
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
            control.unsettled = (!settles()).then_some(state);
            RECORDER.forget_all(state);
        }
        mapped::set_limit(options.table_limit.unwrap_or(u64::MAX));
        memtrace_unwind::set_cache_budget(options.site_cache_limit);
        if !RECORDER.prepare() || options.lifetimes && !RECORDER.live.prepare_births() {
            return Err(StartError::TablesNotMapped);
        }
        State::STARTING.begin();
        if !RECORDER.find_hook_frames() {
            State::OFF.begin();
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
                State::sampled(period, control.n_runs)
            }
            // So that the short way need not look whether it is.
            None if records.any() || options.site_totals || options.peak_percent.is_some() => {
                State::at_length(control.n_runs)
            }
            None => State::ON,
        };
        state.begin();
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
            let state = State::OFF.begin();
            control.unsettled = (!settles()).then_some(state);
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
/// [`crate::traced_memory`] become 0, but for what other threads allocate meanwhile, which may or may not be recorded.
///
/// **Cost**: as [`stop`]. With no more than sizes and stacks it does not wait; else it waits as that does, and no blocks are
/// recorded meanwhile.
pub fn clear_traces() {
    thread::untraced(|| {
        let mut control = CONTROL.lock();
        let state = State::now_for_certain();
        if state.is_on() {
            RECORDER.suspend_peak();
            // In a plain run there is nothing but traces, and they may go one by one.
            if !state.is_plain() {
                state.paused().begin();
                settles();
            }
            RECORDER.forget_all(state);
            RECORDER.by_site.reset();
            RECORDER.reset_peak();
            control.n_runs = control.n_runs.wrapping_add(1);
            state.renumbered(control.n_runs).begin();
        }
        drop(control);
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
