//! What a [`SiteCache`](crate::SiteCache) needs of the table that gives numbers to stacks.

use crate::hash::StackHash;
use crate::rule::End;
use core::num::NonZeroU32;

/// The longest stack that the provided [`Sites::with_buffer`] has room for.
pub const N_FRAMES_ON_STACK: usize = 152;

/// Bytes that the [caches](crate::SiteCache) of all threads may take together, unless
/// [`set_cache_budget`](crate::set_cache_budget) says otherwise: 256 MiB.
pub const DEFAULT_CACHE_BUDGET: u64 = 256 << 20;

/// A table of distinct stacks, each with a number of its own: a *site*.
///
/// One table serves all threads; its functions are called inside captures, so none may allocate
/// through an allocator that captures, nor wait for long.
pub trait Sites {
    /// Returns the number of the stack that has this hash, if it has one already.
    ///
    /// Numbers stay good for the life of the process: caches keep them.
    fn find(&self, hash: StackHash) -> Option<NonZeroU32>;

    /// The same, if the stack is likely to be the one that was seen for the first time right after that of number
    /// `last`: a program that does once more what it has done meets its stacks in the same order.
    #[inline(always)]
    fn find_after(&self, last: u32, hash: StackHash) -> Option<NonZeroU32> {
        let _ = last;
        self.find(hash)
    }

    /// Gives a number to a stack that [`Self::find`] did not know; `None` if there is no room.
    ///
    /// `call_addrs` are those of the stack, newest first, and `hash` is [`StackHash::of`] them.
    /// Another thread may have been first.
    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32>;

    /// Lends `f` a buffer of at least `len` frames for a stack that is about to be inserted; `None` if
    /// there is none so large.
    ///
    /// Provided: one on the thread's stack, for up to [`N_FRAMES_ON_STACK`] frames.
    #[inline]
    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        if len > N_FRAMES_ON_STACK {
            return None;
        }
        Some(f(&mut [0; N_FRAMES_ON_STACK]))
    }

    /// Whether a frame is one of the tool's own, such as an allocation hook's.
    ///
    /// The newest frames for which this holds are left out of every stack and not counted against its
    /// limit. The answer for an address must not change, or [`crate::forget_unloaded`] be called when
    /// it does.
    #[inline]
    fn is_own(&self, call_addr: u64) -> bool {
        let _ = call_addr;
        false
    }
}
