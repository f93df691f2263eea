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
use crate::page_line::Line;
use crate::page_word::{LINE_WORDS, MAX_LEVEL, Shape, Tag};
use crate::thread;
use crate::thread_slot::SLOTS;
use core::ptr;
use core::sync::atomic::AtomicU64;

/// Words of a region: 256 KiB.
const REGION_WORDS: usize = 1 << 15;
const N_LEVELS: usize = MAX_LEVEL as usize + 1;
/// So many are given back at once.
const N_AT_ONCE: usize = 64;
const MAX_WAITING: usize = 1024;

/// Arrays that are not in use.
pub(crate) struct Arrays(LeafLock<Memory>);

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
}

// SAFETY: the memory belongs to whoever holds the lock.
unsafe impl Send for Memory {}

impl Arrays {
    pub(crate) const fn new() -> Self {
        Self(LeafLock::new(Memory {
            free: [ptr::null_mut(); N_LEVELS],
            rest: ptr::null_mut(),
            n_rest: 0,
            waiting: [0; MAX_WAITING],
            n_waiting: 0,
            n_wanted: N_AT_ONCE,
        }))
    }

    /// Returns an array of zeros; `None` if there is no memory.
    pub(crate) fn take(&self, level: u32) -> Option<Shape> {
        let array = self.0.lock().take(level)?;
        Some(Shape::new(array.expose_provenance() as u64, level))
    }

    /// Takes back an array that nobody has ever seen.
    pub(crate) fn give_back(&self, shape: Shape) {
        self.0.lock().free(shape);
    }

    /// Takes back an array that other threads may still be looking at, all of whose traces are gone. To be
    /// called in an operation of the thread's own.
    pub(crate) fn retire(&self, shape: Shape) {
        let mut memory = self.0.lock();
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
    fn take(&mut self, level: u32) -> Option<*mut u64> {
        let first = self.free.get_mut(level as usize)?;
        if let Some(array) = ptr::NonNull::new(*first) {
            // SAFETY: a free array's first word is the address of the next, or zero.
            let next = unsafe { array.read() };
            *first = ptr::with_exposed_provenance_mut(next as usize);
            // SAFETY: the array is nobody's; the rest of it is zero.
            unsafe { array.write(0) };
            return Some(array.as_ptr());
        }
        let n_words = LINE_WORDS << level;
        if self.n_rest < n_words {
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

    /// Frees what waits, if no other thread can be looking at it.
    #[cold]
    fn free_waiting(&mut self) {
        if !SLOTS.are_others_idle(thread::slot()) {
            self.n_wanted = self.n_waiting.saturating_add(N_AT_ONCE / 4);
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

/// The line of an array in which the traces of some tags stand.
///
/// # Safety
/// The array is in use, or waits, as long as the result is used, and the index is below its number of lines.
#[inline(always)]
pub(crate) unsafe fn line<'a>(shape: Shape, index: usize) -> &'a Line {
    let array = ptr::with_exposed_provenance::<Line>(shape.addr() as usize);
    // SAFETY: the caller's promise; the memory is mapped for ever, aligned, and only accessed by atomics.
    unsafe { &*array.wrapping_add(index) }
}

/// The word where a trace with a tag is most likely to be.
///
/// # Safety
/// The array is in use, or waits, as long as the result is used.
#[inline(always)]
pub(crate) unsafe fn home<'a>(shape: Shape, tag: Tag) -> &'a AtomicU64 {
    let array = ptr::with_exposed_provenance::<AtomicU64>(shape.addr() as usize);
    // SAFETY: as above; the index is below the number of words.
    unsafe { &*array.wrapping_add(shape.home_index(tag)) }
}
