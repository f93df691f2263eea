//! Which memory a walk may read.
//!
//! # Invariants
//!
//! - **I1** On the thread's own stack a walk reads from the red zone below its stack pointer up to the
//!   stack's end: all of it is mapped.
//! - **I2** On a stack whose extent is not known (a signal's, a coroutine's) it reads from the red zone
//!   to [`FOREIGN_WINDOW`] bytes above the stack pointer with which it came there, and what lies on the
//!   thread's own stack.
//! - **I3** Only aligned words are read.

use crate::bounds::StackBounds;

/// How far above the stack pointer a stack of unknown size is trusted to reach, in bytes.
pub(crate) const FOREIGN_WINDOW: u64 = 16 << 20;
/// What a function has below its stack pointer and a signal handler leaves alone, in bytes. The unwind
/// tables of an epilogue still have the saved registers where they were popped from, which is there.
const RED_ZONE: u64 = 128;

/// The words that a walk may read where it is now.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    /// The stack that the walk is on.
    here: StackBounds,
    /// The thread's own stack, if the walk is on another.
    own: StackBounds,
}

impl Reach {
    /// Returns the reach of a walk that comes to `sp` on a thread whose own stack is `own`.
    #[inline(always)]
    pub(crate) fn at(sp: u64, own: &StackBounds) -> Self {
        match own.above(sp.wrapping_sub(RED_ZONE), sp) {
            Some(here) => Self { here, own: StackBounds::UNKNOWN },
            None => {
                let low = sp.saturating_sub(RED_ZONE);
                let here = StackBounds::from_range(low..sp.saturating_add(FOREIGN_WINDOW));
                Self { here, own: *own }
            }
        }
    }

    /// Whether the word at `addr` may be read.
    #[inline(always)]
    pub(crate) fn contains(&self, addr: u64) -> bool {
        self.here.contains_word(addr) || is_in(self.own, addr)
    }
}

/// A call, so that the bounds of the stack that a walk is on can stay in registers.
#[cold]
#[inline(never)]
const fn is_in(stack: StackBounds, addr: u64) -> bool {
    stack.contains_word(addr)
}
