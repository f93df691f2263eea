//! What speaks for more memory for records.

use crate::native::records::Records;
use core::num::NonZeroU32;

/// Misses looked at below which nothing is said of all.
const N_LOOKED_TO_JUDGE: u32 = 16;

/// Spreads the numbers of sites over the marks of those seen.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// When records get more memory: what there was since that was last decided.
#[derive(Clone, Copy)]
pub(super) struct Growth {
    /// As they were then.
    pub(super) n_turns: u32,
    pub(super) n_hits: u64,
    pub(super) n_misses: u64,
    /// Misses of which it was looked whether the stack had been seen not long before, and those that had.
    n_looked: u32,
    n_seen: u32,
}

impl Growth {
    pub(super) const fn since(n_turns: u32, n_hits: u64) -> Self {
        Self { n_turns, n_hits, n_misses: 0, n_looked: 0, n_seen: 0 }
    }

    /// Whether a stack seems to have been seen before; it is from now on.
    #[inline(always)]
    pub(super) fn is_seen(&mut self, records: &mut Records<'_>, site: NonZeroU32, sp: u64) -> bool {
        let is_seen = records.is_seen(u64::from(site.get()).wrapping_mul(SPREAD) ^ sp << 5);
        self.n_looked = self.n_looked.saturating_add(1);
        self.n_seen = self.n_seen.saturating_add(is_seen.into());
        is_seen
    }

    /// Whether most stacks that were not found come again: then there is too little room for them. With records
    /// that drive each other out no hits speak for them.
    pub(super) const fn comes_again(&self) -> bool {
        self.n_looked >= N_LOOKED_TO_JUDGE && self.n_seen.saturating_mul(2) >= self.n_looked
    }
}
