//! Memory for the arrays of a page shadow.
//!
//! # Mechanism
//!
//! Arrays have 8 to 256 words. They are cut from mapped regions, and one that is done with is used again for
//! another page, once no thread can be looking at it any more. Threads tell of operations under way in a
//! line of their own, without a fence ([`thread_slot`](crate::thread_slot)); whoever gives arrays back has
//! the kernel put one into all threads of the process (`membarrier`), and then looks whether any operation
//! is under way. If there is, or the kernel does not do this, the arrays wait: for ever, if need be, which
//! is memory lost and nothing else.
//!
//! # Invariants
//!
//! - **I1** An array that is handed out is zero, aligned to 64 bytes, and nobody else's.
//! - **I2** What waits is not written to: a thread may still look at it, and finds that all is gone.
//!
//! # Cost
//!
//! A leaf lock for each array; a system call for each 64 that are done with.
#![expect(unsafe_code, reason = "hands out mapped memory")]

use crate::lock::LeafLock;
use crate::mapped::{self, Part};
use crate::page_word::{LINE_WORDS, MAX_LEVEL, Shape};
use crate::thread;
use crate::thread_slot::SLOTS;
use core::ptr;

/// Words of a region: 256 KiB.
const REGION_WORDS: usize = 1 << 15;
const N_LEVELS: usize = MAX_LEVEL as usize + 1;
/// So many are given back at once.
const N_AT_ONCE: usize = 64;
/// If they cannot be, it is tried again after so many more.
const N_BETWEEN: usize = N_AT_ONCE / 4;
const MAX_WAITING: usize = 1024;

/// Arrays that are not in use.
pub(crate) struct ArrayMemory(LeafLock<Memory>);

struct Memory {
    /// By level, the first free array; its first word is the address of the next.
    free: [*mut u64; N_LEVELS],
    /// What is left of the latest region, and how many words that is.
    rest: *mut u64,
    n_rest: usize,
    waiting: [u64; MAX_WAITING],
    n_waiting: usize,
    /// How many must wait before it is tried to give them back.
    n_wanted: usize,
    /// How often there was no room for one more to wait.
    n_refused: usize,
}

// SAFETY: the memory belongs to whoever holds the lock.
unsafe impl Send for Memory {}

impl ArrayMemory {
    pub(crate) const fn new() -> Self {
        Self(LeafLock::new(Memory {
            free: [ptr::null_mut(); N_LEVELS],
            rest: ptr::null_mut(),
            n_rest: 0,
            waiting: [0; MAX_WAITING],
            n_waiting: 0,
            n_wanted: N_AT_ONCE,
            n_refused: 0,
        }))
    }

    /// Returns an array of zeros; `None` if none is free, and `may_map` is not set or there is no memory.
    pub(crate) fn take(&self, level: u32, may_map: bool) -> Option<Shape> {
        let array = self.0.lock().take(level, may_map)?;
        Some(Shape::new(array.expose_provenance() as u64, level))
    }

    /// Takes back an array that nobody has ever seen.
    pub(crate) fn give_back(&self, shape: Shape) {
        self.0.lock().free(shape);
    }

    /// Whether there is room for one more to wait. To be called as [`Self::retire`].
    pub(crate) fn can_retire(&self) -> bool {
        self.0.lock().has_room()
    }

    /// Takes back an array that other threads may still be looking at, all of whose traces are gone; it is
    /// lost if there is no room for one more to wait. To be called in an operation of the thread's own.
    pub(crate) fn retire(&self, shape: Shape) {
        let mut memory = self.0.lock();
        if !memory.has_room() {
            return;
        }
        let place = memory.n_waiting;
        let Some(waiting) = memory.waiting.get_mut(place) else { return };
        *waiting = shape.to_entry();
        memory.n_waiting = place.saturating_add(1);
        if memory.n_waiting >= memory.n_wanted {
            memory.free_waiting();
        }
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.0.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.0.release();
    }
}

impl Memory {
    fn take(&mut self, level: u32, may_map: bool) -> Option<*mut u64> {
        // The shortest that is long enough; what is left of it becomes free.
        for longer in level..=MAX_LEVEL {
            if let Some(array) = self.unlink(longer) {
                for half in (level..longer).rev() {
                    let rest = array.wrapping_add(LINE_WORDS << half);
                    self.link(Shape::new(rest.expose_provenance() as u64, half));
                }
                return Some(array);
            }
        }
        let n_words = LINE_WORDS << level;
        if self.n_rest < n_words {
            if !may_map {
                return None;
            }
            self.free_rest();
            self.rest = mapped::map::<u64>(REGION_WORDS, Part::LiveTable);
            self.n_rest = if self.rest.is_null() { 0 } else { REGION_WORDS };
        }
        let n_rest = self.n_rest.checked_sub(n_words)?;
        let array = self.rest;
        self.rest = array.wrapping_add(n_words);
        self.n_rest = n_rest;
        Some(array)
    }

    /// Takes the first free array of a level.
    fn unlink(&mut self, level: u32) -> Option<*mut u64> {
        let first = self.free.get_mut(level as usize)?;
        let array = ptr::NonNull::new(*first)?;
        // SAFETY: a free array's first word is the address of the next, or zero.
        let next = unsafe { array.read() };
        *first = ptr::with_exposed_provenance_mut(next as usize);
        // SAFETY: the array is nobody's; the rest of it is zero.
        unsafe { array.write(0) };
        Some(array.as_ptr())
    }

    /// Makes arrays of what is left of a region.
    fn free_rest(&mut self) {
        for level in (0..=MAX_LEVEL).rev() {
            let n_words = LINE_WORDS << level;
            while self.n_rest >= n_words {
                let addr = self.rest.expose_provenance() as u64;
                self.link(Shape::new(addr, level));
                self.rest = self.rest.wrapping_add(n_words);
                self.n_rest = self.n_rest.saturating_sub(n_words);
            }
        }
    }

    fn free(&mut self, shape: Shape) {
        let array = ptr::with_exposed_provenance_mut::<u64>(shape.addr() as usize);
        // SAFETY: an array of this length that nobody looks at.
        unsafe { array.write_bytes(0, shape.n_words()) };
        self.link(shape);
    }

    /// Puts an array of zeros first among the free ones.
    fn link(&mut self, shape: Shape) {
        let array = ptr::with_exposed_provenance_mut::<u64>(shape.addr() as usize);
        if let Some(first) = self.free.get_mut(shape.level() as usize) {
            // SAFETY: as above.
            unsafe { array.write(first.expose_provenance() as u64) };
            *first = array;
        }
    }

    /// Whether there is room for one more to wait. Where there is none it is now and then tried to make some:
    /// who was in the way for all earlier attempts is not in the way for ever.
    fn has_room(&mut self) -> bool {
        if self.n_waiting == MAX_WAITING {
            self.n_refused = self.n_refused.wrapping_add(1);
            if self.n_refused.is_multiple_of(N_BETWEEN) {
                self.free_waiting();
            }
        }
        self.n_waiting < MAX_WAITING
    }

    /// Frees what waits, if no other thread can be looking at it.
    #[cold]
    fn free_waiting(&mut self) {
        if !SLOTS.are_others_idle(thread::slot()) {
            self.n_wanted = self.n_waiting.saturating_add(N_BETWEEN);
            return;
        }
        while let Some(last) = self.n_waiting.checked_sub(1) {
            self.n_waiting = last;
            if let Some(&word) = self.waiting.get(last) {
                self.free(Shape::from_word(word));
            }
        }
        self.n_wanted = N_AT_ONCE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_array::line;
    extern crate std;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;

    #[test]
    fn arrays_serve_again_after_a_thread_was_in_the_way_for_as_long_as_there_was_room() {
        let arrays: &ArrayMemory = Box::leak(Box::new(ArrayMemory::new()));
        crate::membarrier::prepare();
        thread::claim_slot();
        let take = || arrays.take(0, true).unwrap();
        let other = SLOTS.claim().unwrap();
        other.during(|| (0..MAX_WAITING + 100).for_each(|_| arrays.retire(take())));
        assert!(arrays.0.lock().free[0].is_null());
        // Other tests' threads may be in the way, too, for a moment.
        let is_free = || {
            std::thread::yield_now();
            let shape = take();
            let _ = arrays.can_retire().then(|| arrays.retire(shape));
            !arrays.0.lock().free[0].is_null()
        };
        assert!((0..1_000_000).any(|_| is_free()));
        SLOTS.release(other);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn arrays_in_use_are_zero_when_taken_and_do_not_overlap(
            steps in prop::collection::vec((0..=MAX_LEVEL, 0..100usize, any::<bool>()), 1..400),
        ) {
            let arrays: &ArrayMemory = Box::leak(Box::new(ArrayMemory::new()));
            let mut in_use = BTreeMap::new();
            for (level, which, gives_back) in steps {
                if gives_back && !in_use.is_empty() {
                    let addr = *in_use.keys().nth(which % in_use.len()).unwrap();
                    arrays.give_back(in_use.remove(&addr).unwrap());
                    continue;
                }
                let Some(shape) = arrays.take(level, which % 4 != 0) else { continue };
                prop_assert_eq!((shape.level(), shape.addr() % 64), (level, 0));
                for index in 0..1 << level {
                    // SAFETY: in use from now on.
                    for word in unsafe { line(shape, index) } {
                        prop_assert_eq!(word.load(core::sync::atomic::Ordering::Relaxed), 0);
                        word.store(1, core::sync::atomic::Ordering::Relaxed);
                    }
                }
                let end = |shape: Shape| shape.addr() + 8 * shape.n_words() as u64;
                let below = in_use.range(..shape.addr()).next_back();
                prop_assert!(below.is_none_or(|(_, below)| end(*below) <= shape.addr()));
                let above = in_use.range(shape.addr()..).next();
                prop_assert!(above.is_none_or(|(addr, _)| end(shape) <= *addr));
                in_use.insert(shape.addr(), shape);
            }
        }
    }
}
