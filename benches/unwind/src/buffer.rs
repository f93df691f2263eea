//! What every contender needs of its thread: the bounds of its stack, and a place for frames.
#![expect(unsafe_code, reason = "hands out what belongs to the thread without a check")]

use memtrace_unwind::{StackBounds, Walk};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::num::NonZeroU32;

use crate::table::TABLE;

/// The longest stack that can be captured, in frames.
pub(crate) const MAX_FRAMES: usize = 256;

struct Thread {
    bounds: StackBounds,
    frames: [u64; MAX_FRAMES],
}

thread_local! {
    /// Initialised at compile time and without a destructor: safe to use inside an allocator.
    static THREAD: UnsafeCell<Thread> =
        const { UnsafeCell::new(Thread { bounds: StackBounds::UNKNOWN, frames: [0; MAX_FRAMES] }) };
}

/// Returns the bounds of this thread's stack.
#[inline(always)]
pub(crate) fn bounds() -> StackBounds {
    THREAD.with(|thread| {
        let thread = thread.get();
        // SAFETY: nothing else refers to this thread's state meanwhile: `current` captures nothing.
        let bounds = unsafe { &mut (*thread).bounds };
        if bounds.is_unknown() {
            *bounds = StackBounds::current();
        }
        *bounds
    })
}

/// Returns the thread's place for frames.
///
/// A reference, and not something lent to a closure: captures begin in the contender's own function,
/// which a closure need not be compiled into.
///
/// # Safety
///
/// No earlier result may be in use in this thread.
#[inline(always)]
pub(crate) unsafe fn frames() -> &'static mut [u64; MAX_FRAMES] {
    THREAD.with(|thread| {
        let thread = thread.get();
        // SAFETY: nothing else refers to the frames, as the caller promises. They outlive what the
        // thread does with them: a contender's captures.
        unsafe { &mut (*thread).frames }
    })
}

/// Returns the number of a captured stack in the table.
#[inline(always)]
pub(crate) fn intern(frames: &[u64; MAX_FRAMES], walk: Walk) -> Option<NonZeroU32> {
    black_box(TABLE.intern(frames.get(..walk.len)?, walk.end))
}

/// Does nothing with a captured stack.
#[inline(always)]
pub(crate) fn keep(frames: &[u64; MAX_FRAMES], walk: Walk) -> Option<NonZeroU32> {
    black_box(frames.as_ptr());
    black_box(NonZeroU32::new(walk.len as u32))
}
