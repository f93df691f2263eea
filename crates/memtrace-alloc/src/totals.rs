//! Bytes and blocks now traced, and the most bytes there have been.
//!
//! # Mechanism
//!
//! Each thread adds to sums of its own (module [`thread_slot`](crate::thread_slot)), and a sum is all of
//! them together with what is shared. When a thread's bytes have grown or shrunk by [`FLUSH_BYTES`] and
//! more, they go to the shared sum, and the peak is looked at; the most that they have been in between,
//! the thread keeps, too. So the peak is exact as long as one thread allocates; where several do at once, it
//! may be too low by what they have grown by since they last looked.
//!
//! While the peak is kept as a copy of all traces, all threads add to the shared sums: there every release
//! must know how much there is.
//!
//! # Orderings
//!
//! Each counter is a sum of signed differences; all are `Relaxed`, since none publishes anything.
//! When no thread is inside the hook, the sums are those of the live table and the tracked memory.
//!
//! # Cost
//!
//! Two additions and a comparison on a cache line that is the thread's own.

use crate::thread;
use crate::thread_slot::{SLOTS, Slot};
use core::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// By how much a thread's own sum grows or shrinks, at least, before it is looked at. Grows with the number of
/// threads, so that looking at all of them takes a constant share of the time.
const FLUSH_BYTES: i64 = 64 << 10;
const N_SLOTS_BITS: u32 = 6;

/// Requested bytes, now and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedMemory {
    /// Requested bytes of all live traces.
    pub current: u64,
    /// The largest `current` since tracing started, or since [`crate::reset_peak`].
    ///
    /// Exact as long as one thread allocates at a time. Where threads allocate at once, it may be lower than
    /// what was by 64 KiB for each of them (more with over 64 threads: 1 KiB times the number of threads).
    pub peak: u64,
}

#[repr(align(128))]
pub(crate) struct Totals {
    /// Whether all threads add to the sums here. Read at every operation, seldom written, like the rest of
    /// the first line; the second is what threads share.
    is_shared: AtomicBool,
    /// A release from more bytes than this calls for a copy of the peak.
    threshold: AtomicI64,
    /// What the threads' own sums were together when they were last looked at.
    own_bytes: AtomicI64,
    shared: Shared,
}

#[repr(align(64))]
struct Shared {
    bytes: AtomicI64,
    blocks: AtomicI64,
    peak_bytes: AtomicI64,
}

impl Totals {
    pub(crate) const fn new() -> Self {
        Self {
            is_shared: AtomicBool::new(false),
            threshold: AtomicI64::new(i64::MAX),
            own_bytes: AtomicI64::new(0),
            shared: Shared {
                bytes: AtomicI64::new(0),
                blocks: AtomicI64::new(0),
                peak_bytes: AtomicI64::new(0),
            },
        }
    }

    /// The slot that the calling thread is to add to, if it is to add to its own.
    #[inline(always)]
    fn own(&self) -> Option<&'static Slot> {
        if self.is_shared() { None } else { thread::slot() }
    }

    #[inline(always)]
    pub(crate) fn add(&self, size: u64) {
        match self.own() {
            Some(slot) => {
                slot.blocks.add(1);
                self.add_own(slot, size as i64);
            }
            None => self.add_shared(size as i64, 1),
        }
    }

    /// Subtracts a trace; returns how many bytes there were before, or less than any peak if that is not
    /// to be known.
    #[inline(always)]
    pub(crate) fn remove(&self, size: u64) -> i64 {
        let diff = (size as i64).wrapping_neg();
        match self.own() {
            Some(slot) => {
                slot.blocks.add(-1);
                self.add_own(slot, diff);
                i64::MIN
            }
            None => self.remove_shared(diff),
        }
    }

    /// One trace takes the place of another: the peak never sees both.
    #[inline(always)]
    pub(crate) fn replace(&self, old_size: u64, new_size: u64) {
        let diff = (new_size as i64).wrapping_sub(old_size as i64);
        match self.own() {
            Some(slot) => self.add_own(slot, diff),
            None => self.add_shared(diff, 0),
        }
    }

    #[inline(always)]
    fn add_own(&self, slot: &Slot, diff: i64) {
        let now = slot.bytes.add(diff);
        if now > slot.max_bytes.get() {
            slot.max_bytes.set(now);
        }
        if now.unsigned_abs() >= FLUSH_BYTES as u64 {
            self.flush_if_much(slot, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_if_much(&self, slot: &Slot, now: i64) {
        let n_times = SLOTS.n_slots().wrapping_shr(N_SLOTS_BITS).saturating_add(1);
        if now.unsigned_abs() >= (FLUSH_BYTES as u64).saturating_mul(n_times.into()) {
            self.flush(slot);
        }
    }

    /// Moves what the calling thread has in its slot to the shared sums.
    pub(crate) fn flush(&self, slot: &Slot) {
        // Before the sums move: the peak that there was in between.
        let others = self.bytes().wrapping_sub(slot.bytes.get());
        self.raise_peak(others.wrapping_add(slot.max_bytes.get()));
        let (bytes, blocks) = (slot.bytes.get(), slot.blocks.get());
        slot.bytes.add(bytes.wrapping_neg());
        slot.blocks.add(blocks.wrapping_neg());
        slot.max_bytes.set(slot.bytes.get());
        self.shared.bytes.fetch_add(bytes, Relaxed);
        self.shared.blocks.fetch_add(blocks, Relaxed);
    }

    #[cold]
    #[inline(never)]
    fn add_shared(&self, diff: i64, n_blocks: i64) {
        self.shared.blocks.fetch_add(n_blocks, Relaxed);
        let now = self.shared.bytes.fetch_add(diff, Relaxed).wrapping_add(diff);
        self.raise_peak(now.wrapping_add(self.own_bytes.load(Relaxed)));
    }

    #[cold]
    #[inline(never)]
    fn remove_shared(&self, diff: i64) -> i64 {
        self.shared.blocks.fetch_sub(1, Relaxed);
        let before = self.shared.bytes.fetch_add(diff, Relaxed);
        before.wrapping_add(self.own_bytes.load(Relaxed))
    }

    fn raise_peak(&self, bytes: i64) {
        if bytes > self.shared.peak_bytes.load(Relaxed) {
            self.shared.peak_bytes.fetch_max(bytes, Relaxed);
        }
    }

    /// Lets all threads add to the shared sums, or to their own.
    pub(crate) fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Relaxed);
        self.look_at_own();
    }

    /// Whether they do.
    #[inline(always)]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Relaxed)
    }

    /// Finds out what the threads' own sums are.
    fn look_at_own(&self) {
        let own = SLOTS.iter().fold(0i64, |sum, slot| sum.wrapping_add(slot.bytes.get()));
        self.own_bytes.store(own, Relaxed);
    }

    /// Whether a release from so many bytes calls for a copy of the peak.
    #[inline(always)]
    pub(crate) fn is_peak(&self, bytes: i64) -> bool {
        bytes > self.threshold.load(Relaxed)
    }

    pub(crate) fn set_threshold(&self, threshold: i64) {
        self.threshold.store(threshold, Relaxed);
    }

    /// Returns the sum of bytes, which may be negative for a moment.
    pub(crate) fn bytes(&self) -> i64 {
        self.look_at_own();
        self.shared.bytes.load(Relaxed).wrapping_add(self.own_bytes.load(Relaxed))
    }

    /// Replaces both sums, in a forked child; the peak stays, unless it is now lower than the sum.
    pub(crate) fn set(&self, n_blocks: u64, bytes: u64) {
        SLOTS.reset();
        self.look_at_own();
        self.shared.blocks.store(n_blocks as i64, Relaxed);
        self.shared.bytes.store(bytes as i64, Relaxed);
        self.raise_peak(bytes as i64);
    }

    pub(crate) fn reset_peak(&self) {
        // A thread that allocates meanwhile stores what it has then, if that is more.
        SLOTS.iter().for_each(|slot| slot.max_bytes.set(slot.bytes.get()));
        self.shared.peak_bytes.store(self.bytes(), Relaxed);
    }

    pub(crate) fn read(&self) -> TracedMemory {
        // While threads are inside the hook, a block may be subtracted before it is added.
        let bytes = self.bytes();
        // The most that there was, if only one thread has allocated since it last looked.
        let above = SLOTS.iter().map(|slot| slot.max_bytes.get().wrapping_sub(slot.bytes.get()));
        let peak = bytes.wrapping_add(above.max().unwrap_or(0));
        self.raise_peak(peak);
        let current = u64::try_from(bytes).unwrap_or(0);
        let peak = u64::try_from(self.shared.peak_bytes.load(Relaxed)).unwrap_or(0);
        TracedMemory { current, peak: peak.max(current) }
    }

    pub(crate) fn n_blocks(&self) -> u64 {
        let own = SLOTS.iter().fold(0i64, |sum, slot| sum.wrapping_add(slot.blocks.get()));
        u64::try_from(self.shared.blocks.load(Relaxed).wrapping_add(own)).unwrap_or(0)
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
