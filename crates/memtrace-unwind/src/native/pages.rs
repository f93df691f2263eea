//! Memory for caches: mapped pages within a budget, which go when a cache is dropped.
//!
//! A few of those that every thread needs are kept for threads to come: a program that starts a thread for each
//! piece of work would else spend its time in the kernel, where threads wait for each other.
//!
//! # Invariants
//!
//! - **I1** What is used of the budget is the sum of the bytes of all [`Pages`] there are, of those being
//!   mapped, and of those that are kept.
//!
//! # Orderings
//!
//! The figures of a budget are `Relaxed`: they publish nothing.

use crate::memory::{Slot, Words};
use crate::site::DEFAULT_CACHE_BUDGET;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

static BUDGET: Budget = Budget::new(DEFAULT_CACHE_BUDGET);

/// A part of a budget, in eighths.
#[derive(Clone, Copy)]
pub(crate) struct Share(u64);

impl Share {
    /// Three eighths: so that a few large caches do not take what many small ones need.
    pub(crate) const SOME: Self = Self(3);
    pub(crate) const HALF: Self = Self(4);
    pub(crate) const ALL: Self = Self(8);

    const fn of(self, limit: u64) -> u64 {
        let (eighths, rest) = (limit / 8, limit % 8);
        eighths.saturating_mul(self.0).saturating_add(rest.saturating_mul(self.0) / 8)
    }
}

/// Bytes that may be used, and those that are.
struct Budget {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    const fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), used: AtomicU64::new(0) }
    }

    /// Adds to what is used, if all then is at most this share of the limit.
    fn reserve(&self, n_bytes: u64, share: Share) -> Option<()> {
        let limit = share.of(self.limit.load(Relaxed));
        let reserve = |used: u64| used.checked_add(n_bytes).filter(|&used| used <= limit);
        self.used.fetch_update(Relaxed, Relaxed, reserve).ok().map(|_| ())
    }

    fn give_back(&self, n_bytes: u64) {
        self.used.fetch_sub(n_bytes, Relaxed);
    }

    /// Whether at most this share of the limit is used.
    fn is_within(&self, share: Share) -> bool {
        self.used.load(Relaxed) <= share.of(self.limit.load(Relaxed))
    }
}

/// So many of each length are kept at most.
const N_KEPT: usize = 4;

/// Those of the lengths that a thread needs first: 608 KiB at most.
static KEPT: [[Slot; N_KEPT]; 3] = [
    [const { Slot::for_len(2 * PAGE_LEN) }; N_KEPT],
    [const { Slot::for_len(4 * PAGE_LEN) }; N_KEPT],
    [const { Slot::for_len(32 * PAGE_LEN) }; N_KEPT],
];

/// Limits what the caches of all threads take together, in bytes; [`DEFAULT_CACHE_BUDGET`] at first.
///
/// Small caches, of 8 or 24 KiB, are given out until the budget is used up, those up to 1 MiB until half of it is, larger
/// ones until three eighths of it are. A thread that gets none walks its stack each time. What is in use already stays in
/// use.
pub fn set_cache_budget(bytes: u64) {
    BUDGET.limit.store(bytes, Relaxed);
    if !BUDGET.is_within(Share::ALL) {
        give_back_kept();
    }
}

fn give_back_kept() {
    for words in KEPT.as_flattened().iter().filter_map(Slot::take) {
        BUDGET.give_back((words.len() as u64).wrapping_mul(8));
    }
}

/// Returns how many bytes are mapped for the caches of all threads, with up to 608 KiB that threads have left and
/// others will take. What was never touched of them is not resident.
pub fn cache_memory() -> u64 {
    BUDGET.used.load(Relaxed)
}

/// Words of a page.
const PAGE_LEN: usize = 512;

/// Mapped words that count against the budget.
pub(crate) struct Pages(Words);

impl Pages {
    pub(crate) const fn empty() -> Self {
        Self(Words::none())
    }

    /// Maps room for `len` words, if all caches together then take at most this share of the budget; `None` if there
    /// is no room.
    pub(crate) fn map(len: usize, share: Share) -> Option<Self> {
        // Whole pages, which are used as such.
        let len = len.checked_next_multiple_of(PAGE_LEN)?;
        let n_bytes = len.checked_mul(8)? as u64;
        let mut kept = KEPT.as_flattened().iter().filter(|slot| slot.len() == len);
        if BUDGET.is_within(share)
            && let Some(mut words) = kept.find_map(Slot::take)
        {
            words.fill(0);
            return Some(Self(words));
        }
        BUDGET.reserve(n_bytes, share).or_else(|| {
            // What is kept is to be in nobody's way.
            give_back_kept();
            BUDGET.reserve(n_bytes, share)
        })?;
        let words = Words::map(len);
        if words.is_none() {
            BUDGET.give_back(n_bytes);
        }
        words.map(Self)
    }
}

impl Deref for Pages {
    type Target = [u64];

    #[inline(always)]
    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl DerefMut for Pages {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let mut words = Some(core::mem::replace(&mut self.0, Words::none()));
        if BUDGET.is_within(Share::ALL) {
            KEPT.as_flattened().iter().for_each(|slot| slot.put(&mut words));
            // The budget may have become smaller just now.
            if !BUDGET.is_within(Share::ALL) {
                give_back_kept();
            }
        }
        BUDGET.give_back((words.as_deref().map_or(0, <[u64]>::len) as u64).wrapping_mul(8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::thread;

    #[test]
    fn a_share_of_the_budget_counts_what_is_in_use_already() {
        let budget = Budget::new(1000);
        assert_eq!(budget.reserve(376, Share::SOME), None);
        assert_eq!(budget.reserve(375, Share::SOME), Some(()), "three eighths, to the byte");
        budget.give_back(375);
        assert_eq!(budget.reserve(501, Share::HALF), None, "more than half");
        assert_eq!(budget.reserve(500, Share::HALF), Some(()), "half, to the byte");
        assert_eq!(budget.reserve(1, Share::HALF), None, "half is used up");
        assert_eq!(budget.reserve(501, Share::ALL), None);
        assert_eq!(budget.reserve(500, Share::ALL), Some(()), "all, to the byte");
        assert_eq!(budget.reserve(1, Share::ALL), None);
        assert_eq!(budget.used.load(Relaxed), 1000, "what was refused does not count");
        budget.give_back(600);
        assert_eq!(budget.reserve(100, Share::HALF), Some(()));
        budget.give_back(500);
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn no_numbers_make_room_where_there_is_none() {
        let budget = Budget::new(u64::MAX);
        assert_eq!(budget.reserve(u64::MAX, Share::ALL), Some(()));
        assert_eq!(budget.reserve(u64::MAX, Share::ALL), None, "the sum does not fit");
        budget.give_back(u64::MAX);
        assert_eq!(Budget::new(0).reserve(1, Share::ALL), None);
        assert_eq!(Budget::new(1).reserve(1, Share::HALF), None, "half of a byte");
        assert_eq!(Budget::new(7).reserve(3, Share::HALF), Some(()), "half of seven");
        assert_eq!(Budget::new(7).reserve(4, Share::HALF), None);
    }

    #[test]
    fn a_smaller_budget_leaves_in_use_what_is_in_use() {
        let budget = Budget::new(100);
        assert_eq!(budget.reserve(100, Share::ALL), Some(()));
        budget.limit.store(10, Relaxed);
        assert_eq!(budget.reserve(1, Share::ALL), None);
        budget.give_back(91);
        assert_eq!(budget.reserve(1, Share::ALL), Some(()));
        assert_eq!(budget.reserve(1, Share::ALL), None);
    }

    #[test]
    fn threads_that_reserve_at_once_stay_within_the_budget_and_lose_nothing() {
        let budget = Budget::new(10);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if budget.reserve(4, Share::ALL).is_some() {
                            assert!(budget.used.load(Relaxed) <= 10);
                            budget.give_back(4);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used.load(Relaxed), 0);
    }

    #[test]
    fn pages_are_zero_even_where_others_were_before_them() {
        for n_words in [1, 512, 992, 128 << 10] {
            for _ in 0..3 {
                let mut pages = Pages::map(n_words, Share::ALL).unwrap();
                assert_eq!(pages.len(), usize::next_multiple_of(n_words, PAGE_LEN));
                assert!(pages.iter().all(|&word| word == 0));
                pages.fill(u64::MAX);
            }
        }
    }

    #[test]
    fn pages_of_no_length_and_those_beyond_all_memory_are_not_mapped() {
        assert!(Pages::empty().is_empty());
        assert!(Pages::map(0, Share::ALL).is_none());
        assert!(Pages::map(usize::MAX, Share::ALL).is_none());
        assert!(Pages::map(usize::MAX / 8, Share::ALL).is_none());
    }
}
