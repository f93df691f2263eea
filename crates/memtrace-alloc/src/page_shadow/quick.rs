//! What the recorder does most of the time, with blocks whose traces are where they are likeliest to be.
//!
//! The beginning and the end of an operation are in different functions, so that none need go on after it has called
//! another.
#![expect(unsafe_code, reason = "words in mapped memory, found by address")]

use super::{ALONE_SIZE, PageShadow};
use crate::live::{LiveTrace, Quick};
use crate::page_array::{home, insert_where_vacant, line};
use crate::page_line::{first, look};
use crate::page_word::{Granule, Shape, Tag, is_live_of, tag_of, trace_of};
use crate::thread_slot::Slot;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

/// What came of a look at the word where a trace is likeliest to be.
pub(crate) enum AtHome<T> {
    /// That was the one.
    Done(T),
    /// It was not, but this array is the page's.
    Not(Shape),
    /// It takes more to know.
    Unknown,
}

impl PageShadow {
    /// Records a block, of which nothing is recorded, as `word`, if there is nothing where that is likeliest to
    /// be. Called in an operation, which goes on.
    #[inline(always)]
    pub(crate) fn insert_at_home(&self, block_addr: u64, word: u64) -> AtHome<()> {
        let granule = Granule::of(block_addr);
        let Some(entry) = self.directory.quick_entry(granule) else { return AtHome::Unknown };
        let Some(shape) = Shape::of_entry(entry.load(Acquire)) else { return AtHome::Unknown };
        // SAFETY: in an operation, in which the page led to this array.
        let home = unsafe { home(shape, granule.tag()) };
        // Sealed or gone if it is the page's no more. A stale trace of the block, given back unseen, would
        // stand here, too, unless another was in its way.
        match home.compare_exchange(0, word, SeqCst, Relaxed) {
            Ok(_) => AtHome::Done(()),
            Err(_) => AtHome::Not(shape),
        }
    }

    /// Records a block whose trace is not [`AtHome`] as `word`, if its line has a vacant word and nothing speaks
    /// against it; says whether it did. Called in the same operation.
    #[inline(always)]
    pub(crate) fn insert_into_line(&self, shape: Shape, word: u64) -> bool {
        insert_where_vacant(shape, tag_of(word), word)
    }

    /// Forgets a block if its trace is where it is likeliest to be, and returns what was recorded. Begins an operation,
    /// which goes on unless it is [`AtHome::Unknown`].
    #[inline(always)]
    pub(crate) fn take_at_home(&self, slot: &Slot, block_addr: u64) -> AtHome<LiveTrace> {
        let granule = Granule::of(block_addr);
        let Some(entry) = self.directory.quick_entry(granule) else { return AtHome::Unknown };
        slot.begin();
        let taken = Self::take_at_home_of(entry, granule);
        if matches!(taken, AtHome::Unknown) {
            slot.end();
        }
        taken
    }

    /// The same for a block whose page has this entry. Called in an operation, which goes on.
    #[inline(always)]
    pub(super) fn take_at_home_of(entry: &AtomicU64, granule: Granule) -> AtHome<LiveTrace> {
        let Some(shape) = Shape::of_entry(entry.load(Acquire)) else { return AtHome::Unknown };
        let tag = granule.tag();
        // SAFETY: in an operation, in which the page led to this array.
        let home = unsafe { home(shape, tag) };
        let held = home.load(Relaxed);
        if is_live_of(held, tag) && home.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
            return AtHome::Done(trace_of(held));
        }
        AtHome::Not(shape)
    }

    /// Records a block that is likely to be alone in its page as `word`, if it is by now: where [`AtHome`] is
    /// unknown. Says whether it did. Called in the same operation.
    #[inline(always)]
    pub(crate) fn insert_alone(&self, block_addr: u64, word: u64) -> bool {
        if trace_of(word).size < ALONE_SIZE {
            return false;
        }
        let entry = self.directory.quick_entry_in_use(Granule::of(block_addr));
        entry.is_some_and(|entry| entry.compare_exchange(0, word, SeqCst, Relaxed).is_ok())
    }

    /// Forgets a block that is alone in its page, and returns what was recorded: where [`AtHome`] is unknown. Needs no
    /// operation, for it looks into no array, and makes no entry other than zero.
    #[inline(always)]
    pub(crate) fn take_alone(&self, block_addr: u64) -> Option<LiveTrace> {
        let granule = Granule::of(block_addr);
        let entry = self.directory.quick_entry(granule)?;
        let held = entry.load(Acquire);
        let is_taken = is_live_of(held, granule.tag())
            && entry.compare_exchange(held, 0, SeqCst, Relaxed).is_ok();
        if is_taken { Some(trace_of(held)) } else { None }
    }

    /// Takes a trace that is not [`AtHome`] out of its line. Called in the same operation.
    #[inline(always)]
    pub(crate) fn take_from_line(&self, shape: Shape, block_addr: u64) -> Quick {
        let tag = Tag::of(block_addr);
        // SAFETY: in an operation, in which the page led to this array.
        let line = unsafe { line(shape, shape.line_index(tag)) };
        let look = look(line, tag);
        if look.live | look.moving == 0 && self.flat.is_vacant() {
            return Quick::Nothing;
        }
        let Some(place) = first(line, look.live) else { return Quick::Unknown };
        let held = place.load(Relaxed);
        if is_live_of(held, tag) && place.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
            return Quick::Taken(trace_of(held));
        }
        Quick::Unknown
    }
}
