//! A value that one thread at a time works with, and that a forked child does not wait for.
//!
//! # Mechanism
//!
//! A thread takes the value out of its place and puts it back when it is done. The lock is held for
//! these two moves only, and not while the thread works. So a child that is forked meanwhile finds the
//! lock free and a note that the value is lent to a thread of another process, which will never put
//! it back here: it begins with a new value, and what was lent stays where it was.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::process;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A value in its place, or lent to a thread.
pub(crate) struct Lent<T> {
    place: Mutex<Place<T>>,
    is_put_back: Condvar,
}

enum Place<T> {
    Empty,
    Holds(Box<T>),
    /// Lent to a thread of this process.
    LentBy(u32),
}

impl<T> Lent<T> {
    /// Makes a place without a value.
    pub(crate) const fn empty() -> Self {
        Self { place: Mutex::new(Place::Empty), is_put_back: Condvar::new() }
    }

    /// Takes the value, once no other thread of this process has it; makes one if there is none.
    pub(crate) fn take_or_make(&self, make: impl FnOnce() -> T) -> Loan<'_, T> {
        let own = process::id();
        let mut place = self.lock();
        while matches!(*place, Place::LentBy(process) if process == own) {
            place = self.is_put_back.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
        let found = mem::replace(&mut *place, Place::LentBy(own));
        drop(place);
        // From here on a panic gives the place back.
        let mut loan = Loan { lent: self, value: None };
        loan.value = match found {
            Place::Holds(value) => Some(value),
            Place::Empty | Place::LentBy(_) => Some(Box::new(make())),
        };
        loan
    }

    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        // Nothing can panic while it is held.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value, as long as this thread has it. A panic meanwhile may have left it half changed: then it
/// is not put back.
pub(crate) struct Loan<'a, T> {
    lent: &'a Lent<T>,
    /// Always there, once it is made.
    value: Option<Box<T>>,
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        let back = self.value.take().filter(|_| !thread::panicking());
        *self.lent.lock() = back.map_or(Place::Empty, Place::Holds);
        self.lent.is_put_back.notify_one();
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("a loan has its value until it is dropped")
    }
}

impl<T> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("a loan has its value until it is dropped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic;

    #[test]
    fn threads_take_turns_and_find_what_the_last_one_left() {
        let lent = Lent::empty();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| *lent.take_or_make(|| 0) += 1));
            }
        });
        assert_eq!(*lent.take_or_make(|| 0), 2000);
    }

    #[test]
    fn a_panic_leaves_nothing_behind_and_nobody_waiting() {
        let lent = Lent::empty();
        *lent.take_or_make(|| 1) = 2;
        let panicked = panic::catch_unwind(|| {
            let mut loan = lent.take_or_make(|| 1);
            *loan = 3;
            panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(*lent.take_or_make(|| 1), 1);
        let panicked = panic::catch_unwind(|| {
            Lent::empty().take_or_make(|| -> i32 { panic::resume_unwind(Box::new(())) });
        });
        assert!(panicked.is_err());
    }

    #[test]
    fn what_is_lent_to_another_process_is_not_waited_for() {
        let lent = Lent { place: Mutex::new(Place::LentBy(0)), is_put_back: Condvar::new() };
        *lent.take_or_make(|| 5) += 1;
        assert_eq!(*lent.take_or_make(|| 5), 6);
    }
}
