//! The heap's lock: a spin lock that yields, works in any thread at any time, and survives a fork.
//!
//! # Mechanism
//! One word, which names the holder. A thread that finds it taken spins a little and then gives up its time slice between
//! tries. It needs no thread-local state, no queue and no allocation, so it works before `main`, in
//! constructors of libraries, and in the destructors of a dying thread.
//!
//! `fork` takes all heap locks first (see the `fork` module); while they are held for that, the
//! forking thread itself, and no other, may pass, so that other libraries' fork handlers can
//! allocate in whatever order they run.
//!
//! # Invariants
//! - **S1** The value is reached only by the thread that put its id into `holder`, until it clears it; or by
//!   the forking thread while the fork handlers hold the lock on its behalf, between two uses.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | `holder` | holder (compare-exchange Acquire, store Release) | all | the value |
//! | `FORKING_THREAD` | forking thread (Relaxed) | all (Relaxed) | nothing: a thread finds its own id there only if it stored it itself |
//!
//! # Cost
//! An uncontended pair is one atomic exchange and one store, about 5 ns.
//!
//! A signal handler that interrupts the holder does not get the lock, and is told so.
#![expect(unsafe_code, reason = "hands out exclusive references under a lock")]

use core::cell::UnsafeCell;
use core::hint;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Tries before a thread gives up its time slice.
const N_SPINS: u32 = 64;

/// The `pthread_self` of the thread between the fork handlers, or zero.
static FORKING_THREAD: AtomicUsize = AtomicUsize::new(0);

/// The lock alone, without a value.
#[derive(Debug)]
pub(crate) struct RawLock {
    /// The holder's `pthread_self`, or zero.
    holder: AtomicUsize,
}

/// How an attempt to get a lock ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// This thread holds it now.
    Yes,
    /// The fork handlers hold it on behalf of this thread.
    ByFork,
    /// This is a signal handler that interrupts the holder.
    Never,
}

impl RawLock {
    pub(crate) const fn new() -> RawLock {
        RawLock { holder: AtomicUsize::new(0) }
    }

    /// Waits for the lock; only after [`Acquired::Yes`] it must be released.
    pub(crate) fn acquire(&self) -> Acquired {
        if self.try_acquire() { Acquired::Yes } else { self.wait() }
    }

    fn try_acquire(&self) -> bool {
        // Acquire pairs with the Release of `release`. Relaxed on failure: nothing was reached.
        self.holder.compare_exchange(0, this_thread(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait(&self) -> Acquired {
        if is_forking_thread() {
            return Acquired::ByFork;
        }
        // Relaxed: a thread finds its own id here only if it stored it itself.
        if self.holder.load(Ordering::Relaxed) == this_thread() {
            return Acquired::Never;
        }
        loop {
            for _ in 0..N_SPINS {
                // Relaxed: only a hint when to try the swap.
                if self.holder.load(Ordering::Relaxed) == 0 && self.try_acquire() {
                    return Acquired::Yes;
                }
                hint::spin_loop();
            }
            give_way();
        }
    }

    pub(crate) fn release(&self) {
        // Release pairs with the Acquire of `try_acquire`.
        self.holder.store(0, Ordering::Release);
    }
}

/// A value behind a [`RawLock`].
#[derive(Debug)]
pub(crate) struct SpinLock<T> {
    pub(crate) raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: S1, the lock gives the value to one thread at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    pub(crate) const fn new(value: T) -> SpinLock<T> {
        SpinLock { raw: RawLock::new(), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock and holds it as long as the guard lives; `None` if this is a signal
    /// handler that interrupts the holder.
    pub(crate) fn lock(&self) -> Option<Guard<'_, T>> {
        let must_release = match self.raw.acquire() {
            Acquired::Yes => true,
            Acquired::ByFork => false,
            Acquired::Never => return None,
        };
        Some(Guard { lock: self, must_release })
    }
}

/// Access to the value of a [`SpinLock`].
#[derive(Debug)]
pub(crate) struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
    must_release: bool,
}

impl<T> Guard<'_, T> {
    /// Whether the fork handlers hold the lock on behalf of this thread.
    pub(crate) fn is_borrowed_from_fork(&self) -> bool {
        !self.must_release
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: S1, this thread has the value while the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: S1, this thread has the value while the guard lives.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.must_release {
            self.lock.raw.release();
        }
    }
}

/// Lets this thread pass locks that are held: it holds them all.
pub(crate) fn begin_forking() {
    // Relaxed: see the table above.
    FORKING_THREAD.store(this_thread(), Ordering::Relaxed);
}

/// Ends what [`begin_forking`] began.
pub(crate) fn end_forking() {
    // Relaxed: see the table above.
    FORKING_THREAD.store(0, Ordering::Relaxed);
}

/// Whether this thread is between the fork handlers.
pub(crate) fn is_forking_thread() -> bool {
    // Relaxed: see the table above.
    FORKING_THREAD.load(Ordering::Relaxed) == this_thread()
}

/// Gives up this thread's time slice.
pub(crate) fn give_way() {
    // SAFETY: no preconditions.
    unsafe { libc::sched_yield() };
}

/// Sleeps for some milliseconds, so that a thread which the system has stopped amid an operation gets on.
pub(crate) fn pause() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    // SAFETY: reads the time; nothing is written.
    unsafe { libc::nanosleep(&time, core::ptr::null_mut()) };
}

fn this_thread() -> usize {
    // SAFETY: no preconditions.
    unsafe { libc::pthread_self() as usize }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn no_increment_is_lost_between_four_threads() {
        let counter = SpinLock::new(0u32);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20_000).for_each(|_| *counter.lock().unwrap() += 1));
            }
        });
        assert_eq!(*counter.lock().unwrap(), 80_000);
    }
}
