//! Giving back arrays of pages in which no block starts any more.
//!
//! Whoever needs memory for an array, where none is free, first looks at some pages for empty ones: no thread
//! looks at more pages than it needs arrays for. Else it is done when a heap has shrunk
//! ([`tending`](super::tending)).

use super::{PageShadow, vacate};
use crate::page_array::is_empty;
use crate::page_directory::{Chunk, Group, PAGE_BITS};
use crate::page_word::Entry;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};

/// Groups of entries that are looked at each time, each for 2 MiB of heap.
const N_GROUPS: usize = 4;
/// Arrays are enough for one time.
const N_ENOUGH: usize = 512;
/// Groups that are met each time, most of them not in use.
const N_LOOKS: usize = 256;

/// Where the search goes on.
pub(super) struct Cursor {
    chunk: AtomicPtr<Chunk>,
    group: AtomicUsize,
}

impl Cursor {
    pub(super) const fn new() -> Self {
        Self { chunk: AtomicPtr::new(ptr::null_mut()), group: AtomicUsize::new(0) }
    }
}

impl PageShadow {
    /// Gives back empty arrays of some pages, others each time: of some 8 MiB of heap. Returns how many.
    pub(super) fn scavenge(&self) -> usize {
        let mut n_looked_at = 0usize;
        let mut n_found = 0usize;
        // Relaxed: if several do it at once, they may look at the same pages.
        let mut index = self.cursor.group.load(Relaxed);
        let mut at = self.cursor.chunk.load(Acquire);
        for _ in 0..N_LOOKS {
            #[expect(unsafe_code, reason = "chunks in mapped memory")]
            // SAFETY: null, or a chunk that stays mapped and linked (I2 of the directory).
            let Some(chunk) = (unsafe { at.as_ref() }) else {
                (at, index) = (self.directory.first_chunk(), 0);
                continue;
            };
            match chunk.group(index) {
                Ok(group) => {
                    index = index.wrapping_add(1);
                    if let Some((first_addr, entries)) = group {
                        let n_found_here = self.scavenge_group(first_addr, entries);
                        n_found = n_found.saturating_add(n_found_here);
                        n_looked_at = n_looked_at.wrapping_add(1);
                        if n_looked_at == N_GROUPS || n_found >= N_ENOUGH {
                            break;
                        }
                    }
                }
                Err(_) => (at, index) = (chunk.next(), 0),
            }
        }
        self.cursor.group.store(index, Relaxed);
        self.cursor.chunk.store(at, Release);
        n_found
    }

    fn scavenge_group(&self, first_addr: u64, entries: &Group) -> usize {
        let mut n_found = 0usize;
        for (page, entry) in (first_addr >> PAGE_BITS..).zip(entries) {
            n_found = n_found.saturating_add(usize::from(self.scavenge_page(page, entry)));
        }
        n_found
    }

    /// Gives back the array of a page if it is empty, and says whether it did. Called in an operation of the
    /// thread's own, which holds no lock.
    pub(super) fn scavenge_page(&self, page: u64, entry: &AtomicU64) -> bool {
        let held = entry.load(Acquire);
        if let Entry::Array(shape) = Entry::of(held)
            && is_empty(shape)
            && self.arrays.can_retire()
        {
            // Whoever has the lock is at work on another page, or on this one, which is not empty then.
            let lock = self.growth(page).and_then(|growth| growth.lock.try_lock());
            let is_vacant = lock.is_some() && entry.load(SeqCst) == held && vacate(entry, shape);
            drop(lock);
            if is_vacant {
                self.arrays.retire(shape);
            }
            return is_vacant;
        }
        false
    }
}
