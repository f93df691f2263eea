//! Calls inside `catch_unwind`, and in destructors while a panic unwinds.

use super::Next;
use super::c_frame;
use crate::plan::Step;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

#[inline(never)]
pub(crate) fn catch(step: Step, next: Next<'_>) {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        next();
        black_box(step.number)
    }));
    assert!(caught.is_ok());
}

/// Panics below some frames, one of which may be C's, and goes on in a destructor.
#[inline(never)]
pub(crate) fn unwind(step: Step, next: Next<'_>) {
    struct OnDrop<'a>(Next<'a>);
    impl Drop for OnDrop<'_> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    if thread::panicking() {
        // Already in a destructor: one panic at a time.
        return next();
    }
    let mut body = || {
        let on_drop = OnDrop(next);
        panic_below(step.below(4), step);
        drop(on_drop);
    };
    let caught = catch_unwind(AssertUnwindSafe(|| {
        if step.number & 1 == 0 { body() } else { c_frame::alloca(step, &mut body) }
    }));
    assert!(caught.is_err());
}

#[inline(never)]
fn panic_below(depth: u64, step: Step) {
    if depth == 0 {
        resume_unwind(Box::new(()));
    }
    panic_below(depth - 1, step);
    black_box(step.number);
}
