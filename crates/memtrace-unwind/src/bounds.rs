//! The memory that a walk on the current thread may read: the thread's own stack.

use crate::memory;
use core::ops::Range;

/// The address range of a thread's own stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackBounds {
    /// A multiple of 8.
    low: u64,
    n_words: u64,
    /// Whether the system told of them, on the thread that they are for.
    is_told: bool,
}

impl StackBounds {
    /// Bounds that contain nothing: every stack counts as a foreign one.
    pub const UNKNOWN: Self = Self { low: 0, n_words: 0, is_told: false };

    /// Returns the bounds of the current thread's stack, or [`Self::UNKNOWN`] if the system does not
    /// tell.
    ///
    /// **Cost**: about half a microsecond; keep the result for the life of the thread. Calls the C
    /// library's `malloc` on threads other than the main one.
    pub fn current() -> Self {
        memory::stack_range()
            .map_or(Self::UNKNOWN, |range| Self { is_told: true, ..Self::from_range(range) })
    }

    /// Makes bounds from a range, for walks over memory that is not a thread's stack.
    ///
    /// Of words that lie only partly within, none belongs to them. Captures of this process take such
    /// bounds for [`Self::UNKNOWN`].
    pub const fn from_range(range: Range<u64>) -> Self {
        let Some(low) = range.start.checked_next_multiple_of(8) else { return Self::UNKNOWN };
        let n_bytes = range.end.saturating_sub(low);
        Self { low, n_words: n_bytes >> 3, is_told: false }
    }

    /// Whether these are [`Self::UNKNOWN`].
    pub const fn is_unknown(&self) -> bool {
        self.n_words == 0
    }

    /// Whether `addr` is a multiple of 8 and the eight bytes there lie within.
    #[inline(always)]
    pub const fn contains_word(&self, addr: u64) -> bool {
        // The low bits, which must be clear, become the highest ones: one comparison for all.
        addr.wrapping_sub(self.low).rotate_right(3) < self.n_words
    }

    /// Returns these bounds if they come from [`Self::current`], else [`Self::UNKNOWN`]: captures of
    /// this process read only where the system says that there is a stack.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
        expect(dead_code, reason = "only the native walker reads stacks of the process")
    )]
    #[inline(always)]
    pub(crate) const fn if_told(self) -> Self {
        if self.is_told { self } else { Self::UNKNOWN }
    }

    /// Returns the part of a stack from `low` on, if `sp` lies within the stack.
    #[inline(always)]
    pub(crate) const fn above(&self, low: u64, sp: u64) -> Option<Self> {
        let end = self.low.wrapping_add(self.n_words.wrapping_mul(8));
        if sp < self.low || sp >= end {
            return None;
        }
        let low = if low < self.low || low > sp { self.low } else { low & !7 };
        Some(Self { low, n_words: end.wrapping_sub(low) >> 3, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn a_local_variable_lies_within_the_bounds_of_its_thread() {
        let check = || {
            let local = 0u64;
            let bounds = StackBounds::current();
            assert!(bounds.contains_word(&raw const local as u64), "{bounds:x?}");
            bounds
        };
        let mine = check();
        let other = std::thread::spawn(check).join().unwrap();
        assert_ne!(mine, other);
    }

    #[test]
    fn a_heap_block_does_not_lie_within_the_bounds() {
        let block = std::boxed::Box::new(0u64);
        assert!(!StackBounds::current().contains_word(&raw const *block as u64));
        assert!(!StackBounds::UNKNOWN.contains_word(&raw const *block as u64));
    }
}
