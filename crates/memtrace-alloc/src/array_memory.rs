//! Memory for the arrays of a page shadow.
//!
//! # Mechanism
//!
//! Arrays have 8 to 256 words, which is 1 to 32 lines of 64 bytes. They are cut from pages of 4 KiB, of which a
//! record beside them says by a bit for each line what is free. Pages with free lines are in lists by the
//! longest array that there is room for; the one with the least room that will do is taken from, so that others
//! become free as a whole. Those go back to the system ([`ArrayMemory::give_back_pages`]): their addresses stay,
//! and serve again before new ones do.
//!
//! An array that is done with is used again for another page of heap, once no thread can be looking at it any
//! more. Threads tell of operations under way in a line of their own, without a fence
//! ([`thread_slot`](crate::thread_slot)); whoever gives arrays back has the kernel put one into all threads of
//! the process (`membarrier`), and then looks, again and again, which operations are over. What waits meanwhile is
//! noted in arrays of the longest kind. If the kernel does not do this, nothing is used again, which is memory
//! lost and nothing else.
//!
//! # Invariants
//!
//! - **I1** An array that is handed out is zero, aligned to 64 bytes, and nobody else's.
//! - **I2** What waits is not written to: a thread may still look at it, and finds that all is gone. What is done
//!   was waited for long enough.
//! - **I3** What is free is zero, and no thread looks at it.
//! - **I4** A page has memory, and is charged for, if it was taken from since it was last given back; only such
//!   pages have bits set.
//! - **I5** Every page with bits set is in the list that its bits say; every other that was used once and has
//!   no memory is among the unbacked ones; no page is in two lists.
//!
//! # Cost
//!
//! A leaf lock for each array; a system call for each 64 that are done with, and for each run of pages that is
//! given back. Records take 24 bytes a page.
#![expect(unsafe_code, reason = "hands out mapped memory, and keeps records in it")]

use crate::lock::LeafLock;
use crate::mapped::{self, NODE_SIZE, Part};
use crate::page_word::{LINE_WORDS, MAX_LEVEL, Shape};
use crate::thread;
use crate::thread_slot::{Grace, SLOTS};
use core::cell::Cell;
use core::mem::offset_of;
use core::ptr;
use memtrace_heap::PAGE_SIZE;

/// Bytes of a region, which is aligned to as many. Records come first, then pages.
const REGION_SIZE: usize = 2 << 20;
const N_PAGES: usize = REGION_SIZE / PAGE_SIZE;
/// Pages that records and what precedes them take.
const N_HEADER_PAGES: usize = (NODE_SIZE + N_PAGES * size_of::<Record>()).div_ceil(PAGE_SIZE);
/// Bytes of a line: a bit of a record's. (Models, whose lines are shorter, have no such memory.)
const LINE_SIZE: usize = PAGE_SIZE / u64::BITS as usize;
const N_LEVELS: usize = MAX_LEVEL as usize + 1;
const _: () = assert!(cfg!(loom) || LINE_SIZE == LINE_WORDS * size_of::<u64>());
/// The list of pages that are free as a whole.
const WHOLE: usize = N_LEVELS;
/// The list of pages that have been given back.
const UNBACKED: usize = N_LEVELS + 1;
/// So many pages are taken before it is looked for arrays that are empty by now.
const N_FRESH: usize = 64;
/// Pages that go back by one system call, at most.
const MAX_RUN: usize = 64;
/// So many that are done with are waited for at once, at least.
const N_AT_ONCE: usize = 64;
/// It is looked whether they can be used again each time that so many more have come.
const N_BETWEEN: usize = N_AT_ONCE / 4;
/// No more are made to wait that could be left where they are: some thread may have stopped for ever.
const MAX_WAITING: usize = 1 << 14;
/// Where that, or the kernel, is in the way, it is tried again after so many.
const N_BETWEEN_TRIES: usize = 1024;
/// So many are made zero at once.
const N_ZEROED: usize = 4 * N_AT_ONCE;

/// Arrays that are not in use.
pub(crate) struct ArrayMemory(LeafLock<Memory>);

/// What is known of a page, in its region; zero for one that was never used.
#[repr(C)]
struct Record {
    /// The lines that are free, if the page has memory.
    free: Cell<u64>,
    next: Cell<*mut Record>,
    /// Null for the first of its list.
    previous: Cell<*mut Record>,
}

impl Record {
    /// The record at an address; `None` if it is null. For who holds the lock.
    fn at<'a>(record: *mut Self) -> Option<&'a Self> {
        // SAFETY: null, or within the records of a region, which stays mapped and is zero at first.
        unsafe { record.as_ref() }
    }

    /// What is free of the page of a record.
    fn free_at(record: *mut Self) -> u64 {
        Self::at(record).map_or(0, |record| record.free.get())
    }
}

#[repr(C)]
struct Region {
    /// A node of [`mapped`].
    node: [u8; NODE_SIZE],
    records: [Record; N_PAGES],
}

struct Memory {
    /// The first page of each list.
    lists: [*mut Record; N_LEVELS + 2],
    /// The latest region, and the first of its pages that were never used.
    region: *mut Region,
    next_page: usize,
    /// How many more pages may be taken before it is looked for empty arrays.
    n_fresh: usize,
    usage: Usage,
    /// Arrays that are done with, for whose grace there has been no beginning.
    retired: Notes,
    /// Those whose grace is under way, and that grace.
    waiting: Notes,
    grace: Option<Grace>,
    /// Those whose grace is over.
    done: Notes,
    n_retired: usize,
    /// An array for notes to come; null if there is none. Not to be had when it is wanted most: where there is no
    /// memory, and empty arrays are looked for.
    spare: *mut u64,
    /// How many all these are.
    n_waiting: usize,
    /// Whether a grace could not begin when it was last tried, and how often there has been no room since.
    is_refused: bool,
    n_refused: usize,
}

/// Words of arrays, noted in arrays of the longest kind: in each the address of the next, then notes.
#[derive(Clone, Copy)]
struct Notes {
    latest: *mut u64,
    /// Of the latest, the word of the address included.
    n_words: usize,
}

const N_NOTE_WORDS: usize = LINE_WORDS << MAX_LEVEL;

impl Notes {
    const NONE: Self = Self { latest: ptr::null_mut(), n_words: N_NOTE_WORDS };

    const fn are_none(self) -> bool {
        self.latest.is_null()
    }
}

/// How much memory there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Words of arrays in use; those that wait are among them, what they are noted in is not.
    pub(crate) n_words: usize,
    /// Pages with memory.
    pub(crate) n_pages: usize,
    /// Those of them that are free as a whole.
    pub(crate) n_whole: usize,
}

// SAFETY: the memory belongs to whoever holds the lock.
unsafe impl Send for Memory {}

impl ArrayMemory {
    pub(crate) const fn new() -> Self {
        Self(LeafLock::new(Memory {
            lists: [ptr::null_mut(); N_LEVELS + 2],
            region: ptr::null_mut(),
            next_page: N_PAGES,
            n_fresh: 0,
            usage: Usage { n_words: 0, n_pages: 0, n_whole: 0 },
            retired: Notes::NONE,
            waiting: Notes::NONE,
            grace: None,
            done: Notes::NONE,
            n_retired: 0,
            spare: ptr::null_mut(),
            n_waiting: 0,
            is_refused: false,
            n_refused: 0,
        }))
    }

    /// Returns an array of zeros; `None` if none is free, and `may_map` is not set or there is no memory.
    pub(crate) fn take(&self, level: u32, may_map: bool) -> Option<Shape> {
        let mut memory = self.0.lock();
        let array_addr = memory.take(level, may_map)?;
        memory.renew_spare();
        Some(Shape::new(array_addr as u64, level))
    }

    /// Takes back an array that nobody has ever seen.
    pub(crate) fn give_back(&self, shape: Shape) {
        self.0.lock().free(shape);
    }

    /// Whether arrays that are empty are to be retired: not if they would wait for very long. To be called as
    /// [`Self::retire`].
    pub(crate) fn can_retire(&self) -> bool {
        let mut memory = self.0.lock();
        memory.renew_spare();
        let has_room = |memory: &Memory| {
            let can_note = memory.retired.n_words < N_NOTE_WORDS || !memory.spare.is_null();
            can_note && !memory.is_refused && memory.n_waiting < MAX_WAITING
        };
        if !has_room(&memory) {
            memory.n_refused = memory.n_refused.wrapping_add(1);
            if memory.n_refused.is_multiple_of(N_BETWEEN_TRIES) {
                memory.free_some(1);
            }
        }
        has_room(&memory)
    }

    /// Takes back an array that other threads may still be looking at, all of whose traces are gone; it is
    /// lost if there is no memory to note it. To be called in an operation of the thread's own.
    pub(crate) fn retire(&self, shape: Shape) {
        let mut memory = self.0.lock();
        if !memory.note(shape.to_entry()) {
            return;
        }
        memory.n_retired = memory.n_retired.wrapping_add(1);
        memory.n_waiting = memory.n_waiting.saturating_add(1);
        if memory.n_retired.is_multiple_of(N_BETWEEN) {
            memory.free_some(N_AT_ONCE);
        }
    }

    /// Frees some of what is done with, if no other thread can be looking at it, and says whether nothing is left. To be
    /// called as [`Self::retire`].
    pub(crate) fn free_some(&self) -> bool {
        self.0.lock().free_some(1)
    }

    pub(crate) fn usage(&self) -> Usage {
        self.0.lock().usage
    }

    /// Gives pages that are free as a whole back to the system, `n_pages` at most; returns how many.
    pub(crate) fn give_back_pages(&self, n_pages: usize) -> usize {
        let mut n_given = 0usize;
        while n_given < n_pages {
            // Whoever needs an array waits for one system call, not for all of them.
            let n_now = self.0.lock().give_back_run(n_pages.saturating_sub(n_given));
            if n_now == 0 {
                break;
            }
            n_given = n_given.saturating_add(n_now);
        }
        n_given
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.0.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.0.release();
    }
}

/// Lines at which an array of a level may begin.
const fn aligned(level: u32) -> u64 {
    match 1u64.checked_shl(1 << level) {
        // As many bits as are below it, with as many zeros between them.
        Some(beyond) => match u64::MAX.checked_div(beyond.wrapping_sub(1)) {
            Some(aligned) => aligned,
            None => u64::MAX,
        },
        None => 1,
    }
}

/// The lines, of those free, at which there is room for an array of a level.
const fn room(free: u64, level: u32) -> u64 {
    let mut room = free;
    let mut done = 0;
    while done < level {
        room &= room >> (1u32 << done);
        done = done.wrapping_add(1);
    }
    room & aligned(level)
}

/// The lines of an array of a level at the beginning of a page.
const fn lines(level: u32) -> u64 {
    1u64.wrapping_shl(1 << level).wrapping_sub(1)
}

/// The list that a page with memory belongs to; `None` if nothing is free.
fn list_of(free: u64) -> Option<usize> {
    if free == u64::MAX {
        return Some(WHOLE);
    }
    (0..=MAX_LEVEL).rev().find(|&level| room(free, level) != 0).map(|level| level as usize)
}

/// The record of the page that an address is in.
fn record_of(addr: usize) -> *mut Record {
    let index = addr % REGION_SIZE / PAGE_SIZE;
    let region_addr = addr & !REGION_SIZE.wrapping_sub(1);
    let at = region_addr
        .wrapping_add(offset_of!(Region, records))
        .wrapping_add(index.wrapping_mul(size_of::<Record>()));
    ptr::with_exposed_provenance_mut(at)
}

/// The address of the page that a record is of.
fn page_addr_of(record: *mut Record) -> usize {
    let addr = record.addr();
    let region_addr = addr & !REGION_SIZE.wrapping_sub(1);
    let offset = addr.wrapping_sub(region_addr).wrapping_sub(offset_of!(Region, records));
    let index = offset.checked_div(size_of::<Record>()).unwrap_or(0);
    region_addr.wrapping_add(index.wrapping_mul(PAGE_SIZE))
}

impl Memory {
    fn take(&mut self, level: u32, may_map: bool) -> Option<usize> {
        // The page with the least room that is enough.
        let found = self.lists.get(level as usize..=WHOLE)?.iter().find(|first| !first.is_null());
        let record = match found {
            Some(first) => *first,
            None => self.back_page(may_map)?,
        };
        let free = Record::free_at(record);
        let line = room(free, level).trailing_zeros();
        self.set_free(record, free & !lines(level).wrapping_shl(line));
        self.usage.n_words = self.usage.n_words.saturating_add(LINE_WORDS << level);
        Some(page_addr_of(record).wrapping_add((line as usize).wrapping_mul(LINE_SIZE)))
    }

    /// Changes what is free of a page that has memory, and its list with it.
    fn set_free(&mut self, record: *mut Record, free: u64) {
        let Some(of_page) = Record::at(record) else { return };
        let (old, new) = (list_of(of_page.free.replace(free)), list_of(free));
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.unlink(of_page, old);
        }
        if let Some(new) = new {
            self.link(record, new);
        }
    }

    fn link(&mut self, record: *mut Record, list: usize) {
        if list == WHOLE {
            self.usage.n_whole = self.usage.n_whole.saturating_add(1);
        }
        let Some((first, linked)) = self.lists.get_mut(list).zip(Record::at(record)) else {
            return;
        };
        linked.next.set(*first);
        linked.previous.set(ptr::null_mut());
        if let Some(first) = Record::at(*first) {
            first.previous.set(record);
        }
        *first = record;
    }

    fn unlink(&mut self, record: &Record, list: usize) {
        if list == WHOLE {
            self.usage.n_whole = self.usage.n_whole.saturating_sub(1);
        }
        let (next, previous) = (record.next.get(), record.previous.get());
        if let Some(next) = Record::at(next) {
            next.previous.set(previous);
        }
        match Record::at(previous) {
            Some(previous) => previous.next.set(next),
            None => {
                if let Some(first) = self.lists.get_mut(list) {
                    *first = next;
                }
            }
        }
    }

    /// Returns a page with memory that is free as a whole, though none was.
    fn back_page(&mut self, may_map: bool) -> Option<*mut Record> {
        if self.n_fresh == 0 {
            if !may_map {
                return None;
            }
            self.n_fresh = N_FRESH;
        }
        let unbacked = self.lists.get(UNBACKED).copied().filter(|first| !first.is_null());
        let unbacked = unbacked.and_then(|first| Some((first, Record::at(first)?)));
        if unbacked.is_none() && self.next_page >= N_PAGES {
            self.map_region()?;
        }
        if !mapped::charge(PAGE_SIZE) {
            return None;
        }
        let record = match unbacked {
            Some((first, record)) => {
                self.unlink(record, UNBACKED);
                first
            }
            None => {
                let page = self.next_page;
                self.next_page = page.saturating_add(1);
                record_of(self.region.addr().wrapping_add(page.wrapping_mul(PAGE_SIZE)))
            }
        };
        self.n_fresh = self.n_fresh.saturating_sub(1);
        self.usage.n_pages = self.usage.n_pages.saturating_add(1);
        self.set_free(record, u64::MAX);
        Some(record)
    }

    /// Maps a region; its pages are charged for one by one as they are used.
    #[cold]
    fn map_region(&mut self) -> Option<()> {
        const HEADER_SIZE: usize = N_HEADER_PAGES * PAGE_SIZE;
        if !mapped::charge(HEADER_SIZE) {
            return None;
        }
        let region = mapped::map_aligned(REGION_SIZE, Part::LiveTable);
        if region.is_null() {
            mapped::uncharge(HEADER_SIZE);
            return None;
        }
        region.expose_provenance();
        self.region = region.cast();
        self.next_page = N_HEADER_PAGES;
        Some(())
    }

    fn free(&mut self, shape: Shape) {
        let addr = shape.addr() as usize;
        let array = ptr::with_exposed_provenance_mut::<u64>(addr);
        // SAFETY: an array of this length that nobody looks at.
        unsafe { array.write_bytes(0, shape.n_words()) };
        let record = record_of(addr);
        let lines = lines(shape.level()).wrapping_shl((addr % PAGE_SIZE / LINE_SIZE) as u32);
        self.set_free(record, Record::free_at(record) | lines);
        self.usage.n_words = self.usage.n_words.saturating_sub(shape.n_words());
    }

    /// Gives some pages back that lie side by side, `n_pages` at most; returns how many.
    fn give_back_run(&mut self, n_pages: usize) -> usize {
        let Some(&record) = self.lists.get(WHOLE) else { return 0 };
        if record.is_null() || n_pages == 0 {
            return 0;
        }
        // The header's pages, whose records are zero, come before all others: the run ends there.
        let is_whole = |record: *mut Record| Record::free_at(record) == u64::MAX;
        let (mut first, mut n_run) = (record, 1usize);
        let max_run = n_pages.min(MAX_RUN);
        while n_run < max_run && is_whole(first.wrapping_sub(1)) {
            (first, n_run) = (first.wrapping_sub(1), n_run.saturating_add(1));
        }
        let index = |record: *mut Record| page_addr_of(record) % REGION_SIZE / PAGE_SIZE;
        let n_after = N_PAGES.saturating_sub(index(first));
        while n_run < max_run.min(n_after) && is_whole(first.wrapping_add(n_run)) {
            n_run = n_run.saturating_add(1);
        }
        let size = n_run.wrapping_mul(PAGE_SIZE);
        let page = ptr::with_exposed_provenance_mut(page_addr_of(first));
        // SAFETY: pages of a region that are free (I3).
        if !unsafe { mapped::discard(page, size) } {
            return 0;
        }
        mapped::uncharge(size);
        self.usage.n_pages = self.usage.n_pages.saturating_sub(n_run);
        // The lowest address first among those that serve again.
        for at in (0..n_run).rev() {
            let record = first.wrapping_add(at);
            if let Some(record) = Record::at(record) {
                self.unlink(record, WHOLE);
                record.free.set(0);
            }
            self.link(record, UNBACKED);
        }
        n_run
    }

    /// Takes an array for notes to come, unless there is one.
    fn renew_spare(&mut self) {
        if self.spare.is_null()
            && let Some(addr) = self.take(MAX_LEVEL, false)
        {
            self.spare = ptr::with_exposed_provenance_mut(addr);
            self.usage.n_words = self.usage.n_words.saturating_sub(N_NOTE_WORDS);
        }
    }

    /// Notes the word of an array that is retired; `false` without memory for that.
    fn note(&mut self, word: u64) -> bool {
        if self.retired.n_words >= N_NOTE_WORDS {
            self.renew_spare();
            let latest = core::mem::replace(&mut self.spare, ptr::null_mut());
            if latest.is_null() {
                return false;
            }
            // SAFETY: an array of this length that is nobody else's.
            unsafe { latest.write(self.retired.latest.expose_provenance() as u64) };
            self.retired = Notes { latest, n_words: 1 };
        }
        // SAFETY: below the length of the array.
        unsafe { self.retired.latest.wrapping_add(self.retired.n_words).write(word) };
        self.retired.n_words = self.retired.n_words.saturating_add(1);
        true
    }

    /// Takes the latest of the notes of arrays that are done with.
    fn take_done(&mut self) -> Option<u64> {
        if self.done.are_none() {
            return None;
        }
        let latest = self.done.latest;
        self.done.n_words = self.done.n_words.saturating_sub(1).max(1);
        // SAFETY: below the length of the array, and written by `note`.
        let word = unsafe { latest.wrapping_add(self.done.n_words).read() };
        if self.done.n_words == 1 {
            // SAFETY: the address of the next, or zero.
            let next = unsafe { latest.read() };
            self.usage.n_words = self.usage.n_words.saturating_add(N_NOTE_WORDS);
            self.free(Shape::new(latest.expose_provenance() as u64, MAX_LEVEL));
            let latest = ptr::with_exposed_provenance_mut::<u64>(next as usize);
            self.done = Notes { latest, n_words: N_NOTE_WORDS };
        }
        Some(word)
    }

    /// Frees some of what is done with, if no other thread can be looking at it, and says whether nothing is left; begins
    /// to wait for what has come since, if those are so many.
    #[cold]
    fn free_some(&mut self, n_wanted: usize) -> bool {
        if self.done.are_none()
            && self.grace.is_some_and(|grace| SLOTS.is_over(grace, thread::slot()))
        {
            (self.done, self.waiting, self.grace) = (self.waiting, Notes::NONE, None);
        }
        if self.waiting.are_none() && self.n_retired_at_least(n_wanted) {
            self.grace = SLOTS.begin_grace();
            self.is_refused = self.grace.is_none();
            if !self.is_refused {
                (self.waiting, self.retired) = (self.retired, Notes::NONE);
            }
        }
        for _ in 0..N_ZEROED {
            let Some(word) = self.take_done() else { break };
            self.n_waiting = self.n_waiting.saturating_sub(1);
            self.free(Shape::from_word(word));
        }
        self.done.are_none() && self.waiting.are_none() && self.retired.are_none()
    }

    /// Whether so many arrays have been retired whose grace has not begun.
    fn n_retired_at_least(&self, n_wanted: usize) -> bool {
        // SAFETY: the address of the next, or zero; notes of the longest array are more than are ever asked for.
        let is_full_before = || unsafe { self.retired.latest.read() } != 0;
        !self.retired.are_none() && (self.retired.n_words > n_wanted || is_full_before())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_array::line;
    extern crate std;
    use core::sync::atomic::Ordering::Relaxed;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::{BTreeMap, BTreeSet};

    impl Memory {
        /// Checks the invariants by number, and returns one that does not hold.
        fn violated_invariant(&self) -> Option<&'static str> {
            let (mut usage, mut seen) = (Usage::default(), BTreeSet::new());
            for (list, first) in self.lists.iter().enumerate() {
                let (mut record, mut previous) = (*first, ptr::null_mut());
                while let Some(Record { free, next, previous: before }) = Record::at(record) {
                    let (free, next, before) = (free.get(), next.get(), before.get());
                    let is_right = if list == UNBACKED {
                        free == 0
                    } else {
                        // SAFETY: a page with memory.
                        let page = unsafe {
                            &*ptr::with_exposed_provenance::<[[u64; 8]; 64]>(page_addr_of(record))
                        };
                        let is_zero = |at: usize| free >> at & 1 == 0 || page[at] == [0; 8];
                        if !(0..64).all(is_zero) {
                            return Some("I3");
                        }
                        list_of(free) == Some(list)
                    };
                    if !is_right || before != previous || !seen.insert(record) {
                        return Some("I5");
                    }
                    usage.n_whole += usize::from(list == WHOLE);
                    (previous, record) = (record, next);
                }
            }
            (usage.n_whole != self.usage.n_whole).then_some("n_whole")
        }
    }

    #[test]
    fn an_array_begins_where_as_many_lines_are_free_as_it_has_and_at_a_multiple_of_them() {
        for level in 0..=MAX_LEVEL {
            let n_lines = 1usize << level;
            for free in [u64::MAX, 0, 0xffff_0000_ffff_0000, 0x00ff_00f0_0f0c_0302, 1 << 63] {
                let is_free = |at: usize| free >> at & 1 != 0;
                let expected = (0..64usize)
                    .filter(|at| at % n_lines == 0 && (*at..at + n_lines).all(is_free))
                    .fold(0u64, |bits, at| bits | 1 << at);
                assert_eq!(room(free, level), expected, "{free:x} {level}");
            }
            assert_eq!(lines(level).count_ones() as usize, n_lines);
        }
        assert_eq!((list_of(0), list_of(u64::MAX), list_of(6)), (None, Some(WHOLE), Some(0)));
    }

    #[test]
    fn arrays_serve_again_after_a_thread_was_in_the_way_while_very_many_waited() {
        let arrays: &ArrayMemory = Box::leak(Box::new(ArrayMemory::new()));
        crate::membarrier::prepare();
        thread::claim_slot();
        let take = || arrays.take(0, true).unwrap();
        let other = SLOTS.claim().unwrap();
        const N: usize = 3000;
        other.during(|| {
            let retire = |shape| thread::slot().unwrap().during(|| arrays.retire(shape));
            (0..N).for_each(|_| retire(take()));
            assert!(!arrays.free_some());
        });
        assert!(arrays.usage().n_words >= N * LINE_WORDS);
        // Other tests' threads may be in the way, too, for a moment.
        let is_free = || {
            std::thread::yield_now();
            thread::slot().unwrap().during(|| arrays.free_some())
        };
        assert!((0..1_000_000).any(|_| is_free()));
        assert_eq!(arrays.usage().n_words, 0);
        SLOTS.release(other);
    }

    #[test]
    fn pages_without_arrays_in_use_go_back_and_serve_again() {
        let arrays: &ArrayMemory = Box::leak(Box::new(ArrayMemory::new()));
        let take_all = || -> std::vec::Vec<_> {
            (0..100_000).map(|i| arrays.take(i % 3, true).unwrap()).collect()
        };
        let all = take_all();
        let full = arrays.usage();
        assert!(
            full.n_whole < 2 && full.n_pages * PAGE_SIZE < full.n_words * 8 * 11 / 10,
            "{full:?}"
        );
        // What stays is spread over all regions.
        let (stay, go): (std::vec::Vec<_>, std::vec::Vec<_>) =
            all.into_iter().enumerate().partition(|(i, _)| i % 20_000 == 0);
        go.into_iter().for_each(|(_, shape)| arrays.give_back(shape));
        let is_resident = || {
            let regions = stay.iter().map(|(_, shape)| shape.addr() as usize / REGION_SIZE);
            regions
                .collect::<BTreeSet<_>>()
                .into_iter()
                .map(|region| {
                    mapped::resident_bytes(
                        ptr::without_provenance(region * REGION_SIZE),
                        REGION_SIZE,
                    )
                })
                .sum::<u64>()
        };
        let before = is_resident();
        assert_eq!(arrays.give_back_pages(10), 10);
        let n_given = 10 + arrays.give_back_pages(usize::MAX);
        let usage = arrays.usage();
        assert_eq!((usage.n_whole, usage.n_pages), (0, full.n_pages - n_given));
        assert!(usage.n_pages <= stay.len() + 2, "{usage:?}");
        assert!(is_resident() + n_given as u64 * 4000 / 2 < before, "{} {before}", is_resident());
        assert_eq!(arrays.0.lock().violated_invariant(), None);
        // No address space is wanted for as much again.
        let region = arrays.0.lock().region;
        drop(take_all());
        assert_eq!(region, arrays.0.lock().region);
        assert_eq!(arrays.0.lock().violated_invariant(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn arrays_in_use_are_zero_when_taken_and_do_not_overlap(
            steps in prop::collection::vec((0..=MAX_LEVEL, 0..100usize, 0..5u8), 1..800),
        ) {
            let arrays: &ArrayMemory = Box::leak(Box::new(ArrayMemory::new()));
            let mut in_use = BTreeMap::new();
            for (level, which, what) in steps {
                if what == 0 && which % 4 == 0 {
                    arrays.give_back_pages(which);
                    prop_assert_eq!(arrays.0.lock().violated_invariant(), None);
                    continue;
                }
                if what < 3 && !in_use.is_empty() {
                    let addr = *in_use.keys().nth(which % in_use.len()).unwrap();
                    arrays.give_back(in_use.remove(&addr).unwrap());
                    continue;
                }
                let Some(shape) = arrays.take(level, which % 4 != 0) else { continue };
                prop_assert_eq!((shape.level(), shape.addr() % 64), (level, 0));
                for index in 0..1 << level {
                    // SAFETY: in use from now on.
                    for word in unsafe { line(shape, index) } {
                        prop_assert_eq!(word.load(Relaxed), 0);
                        word.store(1, Relaxed);
                    }
                }
                let end = |shape: Shape| shape.addr() + 8 * shape.n_words() as u64;
                let below = in_use.range(..shape.addr()).next_back();
                prop_assert!(below.is_none_or(|(_, below)| end(*below) <= shape.addr()));
                let above = in_use.range(shape.addr()..).next();
                prop_assert!(above.is_none_or(|(addr, _)| end(shape) <= *addr));
                in_use.insert(shape.addr(), shape);
            }
            prop_assert_eq!(arrays.0.lock().violated_invariant(), None);
            let n_words = in_use.values().map(|shape| shape.n_words()).sum::<usize>();
            prop_assert_eq!(arrays.usage().n_words, n_words);
            in_use.into_values().for_each(|shape| arrays.give_back(shape));
            // One page has the array for notes to come.
            let usage = arrays.usage();
            let n_pages = usage.n_pages.saturating_sub(1);
            prop_assert_eq!((usage.n_words, usage.n_whole), (0, n_pages));
            prop_assert_eq!(arrays.give_back_pages(usize::MAX), n_pages);
            prop_assert_eq!(arrays.usage().n_pages, usage.n_pages - n_pages);
        }
    }
}
