//! Operations: while a thread looks at tables, or stores into them, it is marked as doing so. Whoever gives memory back, or
//! empties the tables, waits until it has been seen without a mark.
//!
//! [`thread_slot`](crate::thread_slot) has the marks, and says what they rest on.

use crate::thread;
use crate::thread_slot::{SLOTS, Slot};

/// An operation of the calling thread, which ends as this goes out of scope, also by a panic.
pub(crate) struct Operation(Option<&'static Slot>);

impl Operation {
    #[inline(always)]
    pub(crate) fn begin() -> Self {
        let slot = thread::slot();
        match slot {
            Some(slot) => slot.begin(),
            None => SLOTS.begin_other(),
        }
        // What it began with is what it ends with, should the thread have a slot by then.
        Self(slot)
    }
}

impl Drop for Operation {
    #[inline(always)]
    fn drop(&mut self) {
        match self.0 {
            Some(slot) => slot.end(),
            None => SLOTS.end_other(),
        }
    }
}

/// Runs an operation.
#[inline(always)]
pub(crate) fn during<R>(operation: impl FnOnce() -> R) -> R {
    let _operation = Operation::begin();
    operation()
}
