//! The table of stacks that all contenders share: what they differ in is how a stack is captured.
//!
//! Open addressing over 64-bit hashes. A stack's number is its slot's, plus one; its frames lie in a
//! pool, are written when the stack is inserted, and are read by the checks only.
//!
//! # Orderings
//!
//! A key is complete in itself and its number follows from its place: `Relaxed`, as is the mask, which
//! is set before there are other threads. A stack's place in
//! the pool is published by a release of `places`, which whoever reads the frames acquires.
#![expect(unsafe_code, reason = "maps memory for the pool of frames")]

use memtrace_unwind::{End, Sites, StackHash};
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The most slots, so that even a large program's stacks under all contenders fill half of them.
pub(crate) const N_SLOTS: usize = 1 << 20;
/// Words of the pool: address space, resident as far as it is written.
const N_WORDS: usize = 1 << 25;
/// The place of a stack whose frames had no room.
const NO_FRAMES: u64 = 1 << 16;

/// Distinct stacks by their hashes.
pub(crate) struct Table {
    /// The number of slots in use, a power of two, less one.
    mask: AtomicUsize,
    keys: [AtomicU64; N_SLOTS],
    /// Word in the pool, shifted by 16, and length, by 2, and end of each stack; 0 is none.
    places: [AtomicU64; N_SLOTS],
    pool: OnceLock<&'static [AtomicU64]>,
    n_words: AtomicUsize,
    n_sites: AtomicUsize,
    n_lost: AtomicUsize,
}

/// The one table.
pub(crate) static TABLE: Table = Table {
    mask: AtomicUsize::new(N_SLOTS - 1),
    keys: [const { AtomicU64::new(0) }; N_SLOTS],
    places: [const { AtomicU64::new(0) }; N_SLOTS],
    pool: OnceLock::new(),
    n_words: AtomicUsize::new(0),
    n_sites: AtomicUsize::new(0),
    n_lost: AtomicUsize::new(0),
};

impl Table {
    /// Maps the pool, and uses so many slots, a power of two; to be called before the first stack is
    /// inserted.
    pub(crate) fn prepare(&self, n_slots: usize) {
        assert!(n_slots.is_power_of_two() && n_slots <= N_SLOTS);
        self.mask.store(n_slots - 1, Ordering::Relaxed);
        self.pool.get_or_init(|| {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: asks for a new mapping, anywhere.
            let mapped =
                unsafe { libc::mmap(std::ptr::null_mut(), N_WORDS * 8, protection, flags, -1, 0) };
            assert!(mapped != libc::MAP_FAILED, "no address space for the pool of frames");
            // SAFETY: the mapping is as large, zeroed, aligned to pages, and never unmapped.
            unsafe { std::slice::from_raw_parts(mapped.cast::<AtomicU64>(), N_WORDS) }
        });
    }

    /// Hashes a stack and returns its number.
    #[inline]
    pub(crate) fn intern(&self, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        let hash = StackHash::of(call_addrs, end);
        self.find(hash).or_else(|| self.insert(hash, call_addrs, end))
    }

    /// Returns the frames and the end of a stack.
    pub(crate) fn stack(&self, site: NonZeroU32) -> (&'static [AtomicU64], End) {
        let place = &self.places[site.get() as usize - 1];
        loop {
            // Partner: the release in `insert`.
            match place.load(Ordering::Acquire) {
                // Another thread has made the number known and is about to write the frames.
                0 => std::thread::yield_now(),
                place => return self.stack_at(place),
            }
        }
    }

    /// Calls `visit` with the frames of every stack.
    pub(crate) fn for_each_stack(&self, mut visit: impl FnMut(&[AtomicU64])) {
        for place in &self.places {
            // Partner: the release in `insert`.
            let place = place.load(Ordering::Acquire);
            if place != 0 {
                visit(self.stack_at(place).0);
            }
        }
    }

    /// Stacks that had no room.
    pub(crate) fn n_lost(&self) -> usize {
        self.n_lost.load(Ordering::Relaxed)
    }

    fn stack_at(&self, place: u64) -> (&'static [AtomicU64], End) {
        let len = (place >> 2 & 0x3FFF) as usize;
        let end = [End::Outermost, End::Limit, End::Truncated][(place & 3) as usize % 3];
        let start = (place >> 16) as usize;
        let pool = self.pool.get().copied().unwrap_or_default();
        (pool.get(start..start + len).unwrap_or_default(), end)
    }

    /// Writes a stack to the pool, from word 1 on, so that no place is 0.
    fn keep(&self, call_addrs: &[u64], end: End) -> Option<u64> {
        let pool = self.pool.get()?;
        let start = 1 + self.n_words.fetch_add(call_addrs.len(), Ordering::Relaxed);
        let words = pool.get(start..start + call_addrs.len())?;
        for (word, &addr) in words.iter().zip(call_addrs) {
            word.store(addr, Ordering::Relaxed);
        }
        let end = match end {
            End::Outermost => 0,
            End::Limit => 1,
            End::Truncated => 2,
        };
        Some((start as u64) << 16 | (call_addrs.len() as u64) << 2 | end)
    }
}

impl Sites for Table {
    #[inline]
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        let mask = self.mask.load(Ordering::Relaxed) & (N_SLOTS - 1);
        let mut slot = hash.get() as usize & mask;
        loop {
            let key = self.keys[slot].load(Ordering::Relaxed);
            if key == hash.get() {
                return NonZeroU32::new(slot as u32 + 1);
            }
            if key == 0 {
                return None;
            }
            slot = (slot + 1) & mask;
        }
    }

    #[cold]
    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        let mask = self.mask.load(Ordering::Relaxed) & (N_SLOTS - 1);
        // Fuller, chains of slots would grow long.
        if self.n_sites.load(Ordering::Relaxed) > mask / 4 * 3 {
            self.n_lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let mut slot = hash.get() as usize & mask;
        loop {
            let key = &self.keys[slot];
            match key.compare_exchange(0, hash.get(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) if other == hash.get() => return NonZeroU32::new(slot as u32 + 1),
                Err(_) => slot = (slot + 1) & mask,
            }
        }
        self.n_sites.fetch_add(1, Ordering::Relaxed);
        let place = self.keep(call_addrs, end).unwrap_or_else(|| {
            self.n_lost.fetch_add(1, Ordering::Relaxed);
            NO_FRAMES
        });
        // Partner: the acquiring loads of whoever reads the frames.
        self.places[slot].store(place, Ordering::Release);
        NonZeroU32::new(slot as u32 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_keeps_its_number_its_frames_and_its_end_and_no_other_stack_has_them() {
        TABLE.prepare(1 << 10);
        let frames = [0x1000, 0x2000, 0x3000];
        let complete = TABLE.intern(&frames, End::Outermost).unwrap();
        let cut = TABLE.intern(&frames, End::Limit).unwrap();
        let shorter = TABLE.intern(&frames[..2], End::Outermost).unwrap();
        assert!(complete != cut && complete != shorter && cut != shorter);
        assert_eq!(TABLE.intern(&frames, End::Outermost), Some(complete));
        let (found, end) = TABLE.stack(cut);
        let found: Vec<u64> = found.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        assert_eq!((found.as_slice(), end), (frames.as_slice(), End::Limit));
        assert_eq!(TABLE.n_lost(), 0);
    }
}
