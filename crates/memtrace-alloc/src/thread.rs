//! What the recorder keeps for each thread: a guard against re-entry, and the bounds of its stack.
//!
//! # Invariants
//!
//! - **I1** The state is const-initialised and has no destructor: it can be used from the first to
//!   the last instruction of a thread, destructors of other thread-locals included.
//! - **I2** The guard's depth is back to what it was when a guarded section ends, also by a panic.
//!
//! The fields are atomics because a signal handler may look at them between any two instructions;
//! all accesses are `Relaxed`, no other thread ever sees them.

use crate::platform::thread_local;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed, compiler_fence};
use memtrace_unwind::StackBounds;

pub(crate) struct ThreadState {
    /// How many guarded sections the thread is in.
    depth: AtomicU32,
    /// Whether one of them is the recorder's.
    is_recording: AtomicBool,
    /// How many leaf locks the thread holds or waits for.
    n_locks: AtomicU32,
    /// A [`Probe`].
    probe: AtomicU8,
    /// The number of the thread in the table of threads; 0 before it has one.
    number: AtomicU32,
    stack: Cell<StackBounds>,
}

thread_local! {
    static STATE: ThreadState = const {
        ThreadState {
            depth: AtomicU32::new(0),
            is_recording: AtomicBool::new(false),
            n_locks: AtomicU32::new(0),
            probe: AtomicU8::new(Probe::None as u8),
            number: AtomicU32::new(0),
            stack: Cell::new(StackBounds::UNKNOWN),
        }
    };
}

/// A section in which the thread's own allocations are not recorded.
pub(crate) struct Guard<'a>(&'a ThreadState);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        let depth = self.0.depth.load(Relaxed);
        self.0.depth.store(depth.wrapping_sub(1), Relaxed);
    }
}

impl ThreadState {
    fn enter(&self) -> Guard<'_> {
        let depth = self.depth.load(Relaxed);
        self.depth.store(depth.wrapping_add(1), Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        Guard(self)
    }

    /// Returns the bounds of the thread's stack, asking the system the first time.
    pub(crate) fn stack(&self) -> StackBounds {
        let stack = self.stack.get();
        if !stack.is_unknown() {
            return stack;
        }
        self.find_stack()
    }

    /// Returns the number of the thread; 0 before it has one.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Sets the number of the thread, and returns it.
    pub(crate) fn set_number(&self, number: u32) -> u32 {
        self.number.store(number, Relaxed);
        number
    }

    #[cold]
    #[inline(never)]
    fn find_stack(&self) -> StackBounds {
        let stack = StackBounds::current();
        self.stack.set(stack);
        stack
    }
}

/// Runs `f`, the recorder's work, inside a guarded section, unless the thread is in one already, or has lost its state:
/// then returns `None`.
#[inline(always)]
pub(crate) fn guarded<R>(f: impl FnOnce(&ThreadState) -> R) -> Option<R> {
    let guarded = STATE.try_with(|state| {
        if state.depth.load(Relaxed) != 0 {
            return None;
        }
        let _guard = state.enter();
        state.is_recording.store(true, Relaxed);
        let result = f(state);
        state.is_recording.store(false, Relaxed);
        Some(result)
    });
    guarded.ok().flatten()
}

/// Looks at the state of the thread; `None` if it has lost it.
pub(crate) fn with_state<R>(f: impl FnOnce(&ThreadState) -> R) -> Option<R> {
    STATE.try_with(f).ok()
}

/// Whether the thread is inside the recorder: what it allocates is lost, not left out on purpose.
pub(crate) fn is_recording() -> bool {
    STATE.try_with(|state| state.is_recording.load(Relaxed)).unwrap_or(true)
}

/// Notes that the thread is about to take a leaf lock.
pub(crate) fn lock_taken() {
    let _ = STATE.try_with(|state| {
        state.n_locks.store(state.n_locks.load(Relaxed).wrapping_add(1), Relaxed);
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
    });
}

/// Notes that the thread has given a leaf lock back.
pub(crate) fn lock_given_back() {
    let _ = STATE.try_with(|state| {
        compiler_fence(core::sync::atomic::Ordering::SeqCst);
        state.n_locks.store(state.n_locks.load(Relaxed).wrapping_sub(1), Relaxed);
    });
}

/// Whether the thread holds a leaf lock, or waits for one.
pub(crate) fn holds_lock() -> bool {
    STATE.try_with(|state| state.n_locks.load(Relaxed) != 0).unwrap_or(true)
}

/// What the thread is finding out about the hook's own frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Probe {
    /// Nothing: it allocates like any thread.
    None,
    /// Which functions they belong to.
    Functions,
    /// How many there are.
    Depth,
}

/// Returns what the thread is finding out.
pub(crate) fn probe() -> Probe {
    let probe = STATE.try_with(|state| state.probe.load(Relaxed)).unwrap_or(0);
    match probe {
        1 => Probe::Functions,
        2 => Probe::Depth,
        _ => Probe::None,
    }
}

/// Runs `f` with the thread marked as probing; its guard is open meanwhile and back afterwards.
pub(crate) fn while_probing(probe: Probe, f: impl FnOnce()) {
    let _ = STATE.try_with(|state| {
        let depth = state.depth.swap(0, Relaxed);
        state.probe.store(probe as u8, Relaxed);
        f();
        state.probe.store(Probe::None as u8, Relaxed);
        state.depth.store(depth, Relaxed);
    });
}

/// Runs `f` without recording what this thread allocates meanwhile.
///
/// For a tool's own work: what `f` allocates is not part of any snapshot, though it may outlive the
/// call. Releases are recorded as always, and a traced block that `f` resizes stays traced, with its
/// old stack. Other threads are not affected.
///
/// **Cost**: a few instructions.
///
/// ```
/// let figures = memtrace_alloc::untraced(|| vec![1, 2, 3]);
/// assert_eq!(figures.len(), 3);
/// ```
pub fn untraced<R>(f: impl FnOnce() -> R) -> R {
    // A thread without state is not traced at all.
    let _section = Untraced::begin();
    f()
}

/// An open guarded section of the current thread.
struct Untraced;

impl Untraced {
    fn begin() -> Self {
        begin_untraced();
        Self
    }
}

impl Drop for Untraced {
    fn drop(&mut self) {
        end_untraced();
    }
}

/// Opens a guarded section that [`end_untraced`] ends.
pub(crate) fn begin_untraced() {
    let _ = STATE.try_with(|state| core::mem::forget(state.enter()));
}

/// Ends the section that the same thread opened with [`begin_untraced`].
pub(crate) fn end_untraced() {
    let _ = STATE.try_with(|state| drop(Guard(state)));
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn guarded_sections_nest_and_end_even_by_a_panic() {
        let is_guarded = || guarded(|_| ()).is_none();
        assert!(!is_guarded());
        assert_eq!(guarded(|_| guarded(|_| ())), Some(None));
        untraced(|| {
            untraced(|| assert!(is_guarded()));
            assert!(is_guarded());
        });
        let panicked = std::panic::catch_unwind(|| {
            untraced(|| std::panic::resume_unwind(std::boxed::Box::new(())))
        });
        assert!(panicked.is_err() && !is_guarded());
    }
}
