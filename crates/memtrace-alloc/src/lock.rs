//! A leaf lock: spins, then yields; held for bounded work that neither allocates nor calls out.
//!
//! `std::sync::Mutex` may call into the system and keeps poison; inside `malloc` neither is wanted.

use crate::thread;
use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const SPINS_BEFORE_YIELD: u32 = 64;

/// A value that one thread at a time may use.
pub(crate) struct LeafLock<T> {
    is_held: AtomicBool,
    value: UnsafeCell<T>,
}

#[expect(unsafe_code, reason = "a lock shares its value between threads")]
// SAFETY: `value` is reached only through a `Held`, of which one exists at a time.
unsafe impl<T: Send> Sync for LeafLock<T> {}

impl<T> LeafLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { is_held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> Held<'_, T> {
        self.acquire();
        Held { lock: self }
    }

    /// Takes the lock if nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<Held<'_, T>> {
        thread::lock_taken();
        if self.is_held.compare_exchange(false, true, Acquire, Relaxed).is_ok() {
            return Some(Held { lock: self });
        }
        thread::lock_given_back();
        None
    }

    /// Takes the lock without a guard, for the time of a fork.
    pub(crate) fn acquire(&self) {
        // Counted first: a signal that arrives in between finds a lock that may be held.
        thread::lock_taken();
        let mut n_spins = 0u32;
        // Acquire pairs with the Release in `release`: what the last holder wrote is seen.
        while self.is_held.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            if n_spins < SPINS_BEFORE_YIELD {
                n_spins = n_spins.saturating_add(1);
                spin_loop();
            } else {
                yield_now();
            }
        }
    }

    /// Uses the value between [`Self::acquire`] and [`Self::release`]. Called by the thread that
    /// acquired the lock, while it is its process's only one.
    pub(crate) fn with_acquired<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        #[expect(unsafe_code, reason = "a lock's value")]
        // SAFETY: the caller holds the lock, and there is no other thread.
        f(unsafe { &*self.value.get() })
    }

    /// Gives back what [`Self::acquire`] took.
    pub(crate) fn release(&self) {
        self.is_held.store(false, Release);
        thread::lock_given_back();
    }
}

fn yield_now() {
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: takes no arguments and touches no memory.
    unsafe {
        libc::sched_yield()
    };
}

/// The right to use a lock's value; gives it back when dropped.
pub(crate) struct Held<'a, T> {
    lock: &'a LeafLock<T>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        #[expect(unsafe_code, reason = "a lock's value")]
        // SAFETY: the lock is held by `self` alone.
        unsafe {
            &*self.lock.value.get()
        }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        #[expect(unsafe_code, reason = "a lock's value")]
        // SAFETY: the lock is held by `self` alone, which is borrowed exclusively.
        unsafe {
            &mut *self.lock.value.get()
        }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.lock.release();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn no_increment_of_four_threads_is_lost() {
        let lock = LeafLock::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(*lock.lock(), 40_000);
    }

    #[test]
    fn a_lock_that_is_held_is_not_waited_for_by_one_who_only_tries() {
        let lock = LeafLock::new(1);
        let held = lock.try_lock().unwrap();
        assert!(lock.try_lock().is_none() && thread::holds_lock());
        drop(held);
        *lock.try_lock().unwrap() += 1;
        assert_eq!(*lock.lock(), 2);
        assert!(!thread::holds_lock());
    }
}
