//! Bytes and blocks now traced, and the most bytes there have been.
//!
//! # Orderings
//!
//! Each counter is a sum of signed differences; all are `Relaxed`, since none publishes anything.
//! When no thread is inside the hook, the sums are those of the live table and the tracked memory.
//!
//! # Cost
//!
//! Two additions on one cache line that all threads share, which also holds what they are compared to.

use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Requested bytes, now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedMemory {
    /// Requested bytes of all live traces.
    pub current: u64,
    /// The largest `current` since tracing started, or since [`crate::reset_peak`].
    pub peak: u64,
}

#[repr(align(128))]
pub(crate) struct Totals {
    bytes: AtomicI64,
    blocks: AtomicI64,
    peak_bytes: AtomicI64,
    /// A release from more bytes than this calls for a copy of the peak.
    threshold: AtomicI64,
}

impl Totals {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: AtomicI64::new(0),
            blocks: AtomicI64::new(0),
            peak_bytes: AtomicI64::new(0),
            threshold: AtomicI64::new(i64::MAX),
        }
    }

    #[inline]
    pub(crate) fn add(&self, size: u64) {
        self.blocks.fetch_add(1, Relaxed);
        self.add_bytes(size as i64);
    }

    /// Subtracts a trace and returns how many bytes there were before.
    #[inline]
    pub(crate) fn remove(&self, size: u64) -> i64 {
        self.blocks.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(size as i64, Relaxed)
    }

    /// Whether a release from so many bytes calls for a copy of the peak.
    #[inline]
    pub(crate) fn is_peak(&self, bytes: i64) -> bool {
        bytes > self.threshold.load(Relaxed)
    }

    pub(crate) fn set_threshold(&self, threshold: i64) {
        self.threshold.store(threshold, Relaxed);
    }

    /// Returns the sum of bytes, which may be negative for a moment.
    #[inline]
    pub(crate) fn bytes(&self) -> i64 {
        self.bytes.load(Relaxed)
    }

    /// One trace takes the place of another: the peak never sees both.
    #[inline]
    pub(crate) fn replace(&self, old_size: u64, new_size: u64) {
        self.add_bytes((new_size as i64).wrapping_sub(old_size as i64));
    }

    /// Replaces both sums; the peak stays, unless it is now lower than the sum.
    pub(crate) fn set(&self, n_blocks: u64, bytes: u64) {
        self.blocks.store(n_blocks as i64, Relaxed);
        self.bytes.store(bytes as i64, Relaxed);
        self.add_bytes(0);
    }

    pub(crate) fn reset_peak(&self) {
        self.peak_bytes.store(self.bytes.load(Relaxed), Relaxed);
    }

    pub(crate) fn read(&self) -> TracedMemory {
        // While threads are inside the hook, a block may be subtracted before it is added.
        let current = u64::try_from(self.bytes.load(Relaxed)).unwrap_or(0);
        let peak = u64::try_from(self.peak_bytes.load(Relaxed)).unwrap_or(0);
        TracedMemory { current, peak: peak.max(current) }
    }

    pub(crate) fn n_blocks(&self) -> u64 {
        u64::try_from(self.blocks.load(Relaxed)).unwrap_or(0)
    }

    #[inline]
    fn add_bytes(&self, diff: i64) {
        let now = self.bytes.fetch_add(diff, Relaxed).wrapping_add(diff);
        if now > self.peak_bytes.load(Relaxed) {
            self.peak_bytes.fetch_max(now, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_resize_is_the_larger_of_the_two_and_not_their_sum() {
        let totals = Totals::new();
        totals.add(100);
        totals.replace(100, 150);
        assert_eq!(totals.read(), TracedMemory { current: 150, peak: 150 });
        totals.replace(150, 10);
        totals.remove(10);
        assert_eq!(totals.read(), TracedMemory { current: 0, peak: 150 });
        totals.reset_peak();
        assert_eq!(totals.read(), TracedMemory { current: 0, peak: 0 });
    }
}
