//! What a cache asks of the process that it looks at, so that it can be tried on a synthetic one.

use crate::bounds::StackBounds;
use crate::native::record::{Group, values_and_places};
use crate::plain::Rules;

/// Rules, memory and time of a process.
pub(crate) trait World {
    /// Its unwind rules.
    type Rules: Rules;

    fn rules(&self) -> Self::Rules;

    /// Returns the word at an address that a walk may read.
    fn read_word(&self, addr: u64) -> u64;

    /// Whether any of the pairs of words, which a walk may read, is not what a [`record`](super::record) says that
    /// they were. It has one group of them at least.
    #[inline(always)]
    fn differ_by_pairs(&self, sp: u64, groups: &[Group]) -> bool {
        groups.iter().any(|group| {
            let (values, places) = values_and_places(group);
            let is_other = |([low, high], place): (&[u64; 2], u64)| {
                let addr = sp.wrapping_add(place << 3);
                self.read_word(addr) != *low || self.read_word(addr.wrapping_add(8)) != *high
            };
            values.as_chunks().0.iter().zip(places).any(is_other)
        })
    }

    /// The same of single words, of all groups of a record.
    #[inline(always)]
    fn differ_by_singles(&self, sp: u64, groups: &[Group]) -> bool {
        groups.iter().any(|group| {
            let (values, places) = values_and_places(group);
            let is_other =
                |(place, value): (u64, u64)| self.read_word(sp.wrapping_add(place << 3)) != value;
            places.into_iter().zip(values).any(is_other)
        })
    }

    /// Returns what of these bounds is trusted to be a stack of this process.
    fn trusted(&self, stack: &StackBounds) -> StackBounds;

    /// Returns how often rules were forgotten.
    fn generation(&self) -> u32;

    /// Returns the time in cycles of the processor, or anything that grows as they do.
    fn cycles(&self) -> u64;

    /// Forgets all rules if the code at one of these addresses, which are on the stack, is not what it
    /// was when its rule was learned.
    fn look_for_unloaded(&self, call_addrs: impl Iterator<Item = u64>);
}

/// The checks that make what is remembered as good as a walk.
///
/// Tests remove each and see that answers go wrong without it; elsewhere all are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The record begins at this program counter and stack pointer.
    Start,
    /// The frame pointer at the start, where the walk depended on it.
    StartFp,
    /// Return addresses of a record.
    ReturnAddrs,
    /// Those of a record that lie beside a frame pointer, and that.
    Pairs,
    /// The word beyond a stack at its limit is not zero.
    LimitWord,
    /// Return addresses of the trail.
    TrailReturnAddrs,
    /// Live frame pointers that were saved, on the trail.
    TrailSavedFps,
    /// The frame pointer with which a walk meets the trail.
    TrailFp,
    /// The zero word at the end of the trail.
    TrailZero,
    /// Live frame pointers that were saved, and the zero word, are among the words of a record.
    SavedFps,
    Zero,
    /// What was remembered was so under these rules and this limit.
    Epoch,
    /// What is remembered was walked by plain rules.
    PlainRules,
    /// What is remembered lies on the thread's own stack.
    OwnStack,
}

#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is_needed(_: Check) -> bool {
    true
}

#[cfg(test)]
pub(crate) use removal::{is_complete, is_needed, without};

#[cfg(test)]
mod removal {
    use super::Check;
    extern crate std;
    use std::cell::Cell;
    use std::thread_local;

    thread_local! {
        static REMOVED: Cell<Option<Check>> = const { Cell::new(None) };
    }

    pub(crate) fn is_needed(check: Check) -> bool {
        REMOVED.get() != Some(check)
    }

    /// Whether no check is removed.
    pub(crate) fn is_complete() -> bool {
        REMOVED.get().is_none()
    }

    /// Runs `f` as if a check did not exist.
    pub(crate) fn without<R>(check: Check, f: impl FnOnce() -> R) -> R {
        REMOVED.set(Some(check));
        let result = f();
        REMOVED.set(None);
        result
    }
}
