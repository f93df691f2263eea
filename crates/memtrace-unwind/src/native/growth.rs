//! What speaks for more memory for records.

use crate::native::records::Records;
use core::num::NonZeroU32;

/// Misses looked at below which nothing is said of all.
const N_LOOKED_TO_JUDGE: u32 = 16;

/// Of so many captures, one must be a walk by a stack that was met before for more room to make a difference.
const N_CAPTURES_A_KNOWN: u64 = 8;

/// If one of so many captures is of a new stack, a program does not do over again what it has done.
const N_CAPTURES_A_NEW: u64 = 64;

/// Spreads the numbers of sites over the marks of those seen.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// When records get more memory: what there was since that was last decided.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// As they were then.
    pub(super) n_turns: u32,
    pub(super) n_made: u32,
    pub(super) n_hits: u64,
    pub(super) n_misses: u64,
    /// Misses of which it was looked whether the stack had been seen not long before, and those that had.
    n_looked: u32,
    n_seen: u32,
    /// Those whose stack had been met before, however long ago, and those that were new.
    n_known: u64,
    n_new: u64,
    /// The greatest number of a site so far.
    newest: u32,
    /// Whether there is so much room that each stack that comes again gets some.
    pub(super) is_filling: bool,
}

impl Growth {
    pub(super) const NEW: Self = Self {
        n_turns: 0,
        n_made: 0,
        n_hits: 0,
        n_misses: 0,
        n_looked: 0,
        n_seen: 0,
        n_known: 0,
        n_new: 0,
        newest: 0,
        is_filling: false,
    };

    pub(super) const fn begin(&mut self, n_turns: u32, n_made: u32, n_hits: u64, is_filling: bool) {
        *self = Self { n_turns, n_made, n_hits, newest: self.newest, is_filling, ..Self::NEW };
    }

    /// Whether the stack of a site was met before, be it by another thread: numbers are given as stacks are first seen. What
    /// others have met since is taken for new.
    #[inline(always)]
    pub(super) fn knows(&mut self, site: NonZeroU32) -> bool {
        let is_known = site.get() <= self.newest;
        self.newest = self.newest.max(site.get());
        let count = if is_known { &mut self.n_known } else { &mut self.n_new };
        *count = count.saturating_add(1);
        is_known
    }

    /// Counts a new stack that gets no number.
    pub(super) const fn meets_new(&mut self) {
        self.n_new = self.n_new.saturating_add(1);
    }

    /// Whether a stack is worth a record: it seems to have been seen before, and is from now on; or it was met before and
    /// there is room.
    #[inline(always)]
    pub(super) fn lets_in(
        &mut self,
        records: &mut Records<'_>,
        site: NonZeroU32,
        sp: u64,
        is_known: bool,
    ) -> bool {
        let is_seen = records.is_seen(u64::from(site.get()).wrapping_mul(SPREAD) ^ sp << 5);
        self.n_looked = self.n_looked.saturating_add(1);
        self.n_seen = self.n_seen.saturating_add(is_seen.into());
        is_seen || is_known && self.is_filling
    }

    /// Whether most stacks that were not found come again: then there is too little room for them. With records
    /// that drive each other out no hits speak for them.
    pub(super) const fn comes_again(&self) -> bool {
        self.n_looked >= N_LOOKED_TO_JUDGE && self.n_seen.saturating_mul(2) >= self.n_looked
    }

    /// Whether so many of the stacks that were walked had been met before, however long ago, that room for them would
    /// make a difference, where so many others had a record.
    pub(super) const fn are_known(&self, n_hits: u64) -> bool {
        let n_captures = n_hits.saturating_add(self.n_misses);
        self.n_known.saturating_mul(N_CAPTURES_A_KNOWN) >= n_captures
    }

    /// Whether hardly any stacks were new, where so many others had a record.
    pub(super) const fn are_hardly_new(&self, n_hits: u64) -> bool {
        let n_captures = n_hits.saturating_add(self.n_misses);
        self.n_new.saturating_mul(N_CAPTURES_A_NEW) < n_captures
    }
}
