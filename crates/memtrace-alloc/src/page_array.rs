//! An array of traces of one page, in lines; finding, inserting, taking, and moving to another array.
//!
//! All of it by compare-and-swap, by any number of threads at once; only that nothing is inserted into an
//! array that traces are moved into, but by who moves them. What this adds up to is told in
//! [`page_shadow`](crate::page_shadow).
//!
//! # Cost
//!
//! A look at a line; moving: four atomic operations a trace.
#![expect(unsafe_code, reason = "arrays in mapped memory, found by address")]

use crate::live::LiveTrace;
use crate::page_line::{Line, first, look};
use crate::page_word::{
    Kind, LINE_WORDS, SEALED, Shape, Tag, copy, gone, has_tag, is_live_of, kind, tag_of, trace_of,
};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

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

/// What came of looking for a trace in one line.
pub(crate) enum Found {
    Taken(LiveTrace),
    /// It is not there; whether it has gone to the array that traces are moved to.
    Not {
        is_gone: bool,
    },
}

/// What came of an insertion.
pub(crate) enum Inserted {
    /// What was recorded of a block at this address before.
    Yes(Option<LiveTrace>),
    /// There is no room in the line.
    IsFull,
    /// The array is not the page's any more.
    HasMoved,
}

/// Inserts where one look at the line has shown that there is a place, that nothing is recorded of the block,
/// and that the array is the page's; says whether it did.
#[inline(always)]
pub(crate) fn insert_where_vacant(shape: Shape, tag: Tag, word: u64) -> bool {
    // SAFETY: the caller is in an operation, in which the page led to this array.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let look = look(line, tag);
    look.live | look.moving == 0
        && !(shape.is_just_too_short() && is_one_at_most(look.vacant))
        && first(line, look.vacant)
            .is_some_and(|slot| slot.compare_exchange(0, word, SeqCst, Relaxed).is_ok())
}

/// Whether a trace whose home is taken had better have an array twice as long than another place in its line.
///
/// A block that is not at home takes twice as long, each way, and no branch predictor knows of it. But a long
/// array takes memory: so only where with the next length there are no such blocks any more, and where the
/// line has no room for more than one more.
pub(crate) fn is_crowded(shape: Shape, tag: Tag) -> bool {
    // SAFETY: as above.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    // SAFETY: as above.
    let home = unsafe { home(shape, tag) };
    shape.is_just_too_short() && home.load(Relaxed) != 0 && is_one_at_most(look(line, tag).vacant)
}

/// Whether no more than one bit is set.
#[inline(always)]
const fn is_one_at_most(bits: u32) -> bool {
    bits & bits.wrapping_sub(1) == 0
}

/// Whether the traces in an array are too many for one half as long: whether there are more in two neighbouring
/// lines than one has words.
pub(crate) fn is_needed(shape: Shape) -> bool {
    let n_used = |index| {
        // SAFETY: as above; the index is below the number of lines.
        let line = unsafe { line(shape, index) };
        line.iter().filter(|slot| slot.load(Relaxed) != 0).count()
    };
    // Of a single line there is no half.
    let mut firsts = (0..1usize << shape.level() >> 1).map(|two| two << 1);
    firsts.any(|first| n_used(first).wrapping_add(n_used(first | 1)) > LINE_WORDS)
}

pub(crate) fn insert_into(shape: Shape, tag: Tag, word: u64) -> Inserted {
    // SAFETY: the caller is in an operation, in which the page led to this array.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    loop {
        let mut vacant = None;
        let mut stale = None;
        for slot in line {
            let held = slot.load(Acquire);
            match kind(held) {
                Kind::Vacant => vacant = Some((slot, held)),
                Kind::Live if !has_tag(held, tag) => {}
                Kind::Live => stale = Some((slot, held)),
                Kind::Gone | Kind::Sealed | Kind::Copy => return Inserted::HasMoved,
            }
        }
        let Some((slot, held)) = stale.or(vacant) else { return Inserted::IsFull };
        if slot.compare_exchange(held, word, SeqCst, Relaxed).is_ok() {
            return Inserted::Yes((held != 0).then(|| trace_of(held)));
        }
    }
}

/// Takes the live trace of a tag out of an array, or the copy if `counts_copy`.
pub(crate) fn take_from(shape: Shape, tag: Tag, counts_copy: bool) -> Found {
    // SAFETY: as above.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let look = look(line, tag);
    if let Some(slot) = first(line, look.live) {
        let held = slot.load(Relaxed);
        if is_live_of(held, tag) && slot.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
            return Found::Taken(trace_of(held));
        }
    }
    let mut is_gone = false;
    for slot in line {
        loop {
            let held = slot.load(Acquire);
            let is_it = match kind(held) {
                _ if !has_tag(held, tag) => false,
                Kind::Live => true,
                Kind::Copy => counts_copy,
                Kind::Gone => {
                    is_gone = true;
                    false
                }
                Kind::Vacant | Kind::Sealed => false,
            };
            if !is_it {
                break;
            }
            if slot.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
                return Found::Taken(trace_of(held));
            }
        }
    }
    Found::Not { is_gone }
}

/// Returns the word of the live trace of a tag, or of the copy if `counts_copy`; else whether it is gone.
pub(crate) fn word_of(shape: Shape, tag: Tag, counts_copy: bool) -> Result<u64, bool> {
    // SAFETY: as above.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let mut is_gone = false;
    for slot in line {
        let held = slot.load(Acquire);
        if has_tag(held, tag) {
            match kind(held) {
                Kind::Live => return Ok(held),
                Kind::Copy if counts_copy => return Ok(held),
                Kind::Gone => is_gone = true,
                _ => {}
            }
        }
    }
    Err(is_gone)
}

/// Stores a word in an array where nobody else inserts.
pub(crate) fn place(shape: Shape, tag: Tag, word: u64) -> Option<&'static AtomicU64> {
    // SAFETY: the caller has made the array, and will be the one to retire it.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    // SAFETY: as above.
    let home = unsafe { home(shape, tag) };
    let is_vacant = |slot: &&AtomicU64| slot.load(Relaxed) == 0;
    let slot = Some(home).filter(is_vacant).or_else(|| line.iter().find(is_vacant))?;
    slot.store(word, SeqCst);
    Some(slot)
}

/// Moves what stands in a place of an old array to a new one, in which nobody else inserts.
pub(crate) fn move_word(slot: &AtomicU64, to: Shape) {
    loop {
        let held = slot.load(SeqCst);
        if kind(held) != Kind::Live {
            if slot.compare_exchange(0, SEALED, SeqCst, Relaxed).is_ok() {
                return;
            }
            continue;
        }
        // There is room: a line of the old array has become two.
        let placed = place(to, tag_of(held), copy(held));
        let is_gone = slot.compare_exchange(held, gone(held), SeqCst, Relaxed).is_ok();
        if let Some(placed) = placed {
            // It fails if the block was released just now.
            let now = if is_gone { held } else { 0 };
            let _ = placed.compare_exchange(copy(held), now, SeqCst, Relaxed);
        }
        if is_gone {
            return;
        }
    }
}

pub(crate) fn for_each_slot(shape: Shape, mut visit: impl FnMut(&AtomicU64)) {
    for index in 0..1usize << shape.level() {
        // SAFETY: as above; the index is below the number of lines.
        for slot in unsafe { line(shape, index) } {
            visit(slot);
        }
    }
}

/// Whether there was nothing in any word when it was looked at. Most that are not empty have something in their first line.
pub(crate) fn is_empty(shape: Shape) -> bool {
    (0..1usize << shape.level()).all(|index| {
        // SAFETY: as above; the index is below the number of lines.
        let line = unsafe { line(shape, index) };
        line.iter().fold(0, |words, slot| words | slot.load(Relaxed)) == 0
    })
}

pub(crate) fn for_each_word(shape: Shape, mut visit: impl FnMut(u64)) {
    for_each_slot(shape, |slot| visit(slot.load(Acquire)));
}

/// A set of tags.
#[derive(Default)]
pub(crate) struct Tags([u64; 4]);

impl Tags {
    /// Adds one; whether it was not in the set.
    pub(crate) fn add(&mut self, tag: Tag) -> bool {
        let bit = 1u64.wrapping_shl(tag.index() as u32);
        let Some(word) = self.0.get_mut(tag.index() / 64) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(crate) fn has(&self, tag: Tag) -> bool {
        let word = self.0.get(tag.index() / 64).copied().unwrap_or(0);
        word & 1u64.wrapping_shl(tag.index() as u32) != 0
    }
}
