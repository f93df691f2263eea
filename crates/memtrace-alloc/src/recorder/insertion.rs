//! How a trace gets into the live table and the totals.
//!
//! # Mechanism
//!
//! In an operation of the thread's own slot, in which the state is looked at before anything is stored:
//! [`crate::control`] says why. A trace that has a small word goes to its home, and is added to the slot's sums as the
//! operation ends. If there is another trace at home, it goes elsewhere in its line; where its page has no array, into the
//! page's entry, if it is likely to stay alone. Whatever is not so (the thread has no slot, all threads share one sum, more
//! is recorded than size and stack) goes a way that serves any trace, in an operation of its own.
//!
//! # Cost
//!
//! The way to the home: 49 instructions. It saves no register, and leaves what is not as it is most of the
//! time to others in a jump.

use super::{RECORDER, Recorder};
use crate::lifetime::Birth;
use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};
use crate::live_samples::LiveSamples;
use crate::operation::during;
use crate::page_shadow::AtHome;
use crate::page_word::{Shape, small_live, trace_of};
use crate::state::{On, Recording};
use crate::thread;
use crate::thread_slot::Slot;
use core::sync::atomic::Ordering::Relaxed;

/// A trace that is to be put into the table, with all that goes with it.
#[derive(Clone, Copy)]
pub(super) struct Insertion {
    pub(super) block_addr: u64,
    pub(super) trace: LiveTrace,
    /// What the trace counted for whose place in the totals it takes.
    pub(super) old_bytes: Option<u64>,
    pub(super) note: Option<Note>,
    pub(super) at_sites: Option<AtSites>,
}

/// What is noted beside a trace.
#[derive(Clone, Copy)]
pub(super) enum Note {
    /// The block is born now: its detail, and the time, as far as they are recorded.
    Born(Detail),
    /// It was born then, and its detail is there.
    Was(Birth),
}

/// What is counted by sites: the block as allocated at its own, and perhaps another, which it takes the place of, as given
/// back.
#[derive(Clone, Copy)]
pub(super) struct AtSites {
    pub(super) freed: Option<(LiveTrace, Birth)>,
}

// The short ways, in plain runs. None of these needs `self`, which would take a register.
impl Recorder {
    /// Puts a trace into the table and the totals. One that was taken out before, and counts for `old_bytes`, makes way.
    #[inline(always)]
    pub(super) fn record(block_addr: u64, trace: LiveTrace, old_bytes: Option<u64>) {
        match (thread::slot(), old_bytes) {
            (Some(slot), None) => Self::record_new(slot, block_addr, trace),
            (Some(slot), Some(old_bytes)) => Self::record_again(slot, block_addr, trace, old_bytes),
            (None, _) => Self::record_otherwise(block_addr, trace, old_bytes),
        }
    }

    /// The same for a block that is new, by a thread with a slot. What is not as it is most of the time is left to others
    /// in a jump, not a call, so that no registers need be saved.
    // Not inlined into the capture, which needs the registers.
    #[inline(never)]
    pub(super) fn record_new(slot: &Slot, block_addr: u64, trace: LiveTrace) {
        // From here on, the word is all that is known of the trace, so that it takes no more than one register.
        let Some(word) = small_live(block_addr, trace) else {
            return Self::record_otherwise(block_addr, trace, None);
        };
        slot.begin();
        if !On.is_still() {
            // As if it had been allocated when tracing was stopped, or before it was started.
            return slot.end();
        }
        match RECORDER.live.shadow().insert_at_home(block_addr, word) {
            AtHome::Done(()) => Self::recorded(slot, trace_of(word).size),
            AtHome::Not(shape) => Self::record_in_line(slot, block_addr, word, shape),
            AtHome::Unknown => Self::record_at_block(slot, block_addr, trace),
        }
    }

    /// The same in the operation, which it ends, where there is a trace where this one would be likeliest to be.
    #[inline(never)]
    fn record_in_line(slot: &Slot, block_addr: u64, word: u64, shape: Shape) {
        if RECORDER.live.shadow().insert_into_line(shape, word) {
            return Self::recorded(slot, trace_of(word).size);
        }
        slot.end();
        Self::record_otherwise(block_addr, trace_of(word), None);
    }

    /// The same where traces stand beside their blocks, if this one can.
    #[inline(never)]
    fn record_at_block(slot: &Slot, block_addr: u64, trace: LiveTrace) {
        let Some(table) = RECORDER.live.beside() else {
            return Self::record_alone(slot, block_addr, trace);
        };
        let Some(forgotten) = table.insert_beside(block_addr, trace) else {
            slot.end();
            return Self::record_otherwise(block_addr, trace, None);
        };
        slot.end_with_block_added();
        let is_much = RECORDER.totals.grow_own(slot, trace.size as i64);
        if is_much || forgotten.is_some() {
            Self::recorded_at_block(slot, forgotten);
        }
    }

    /// The rest of it where the thread has counted much, or a block at this address was given back unseen.
    #[cold]
    #[inline(never)]
    fn recorded_at_block(slot: &Slot, forgotten: Option<LiveTrace>) {
        RECORDER.totals.flush_if_much(slot);
        if let Some(forgotten) = forgotten {
            RECORDER.totals.remove(forgotten.size);
        }
    }

    /// The same where the page has no array, for a block that is alone there.
    #[inline(never)]
    fn record_alone(slot: &Slot, block_addr: u64, trace: LiveTrace) {
        match small_live(block_addr, trace) {
            Some(word) if RECORDER.live.shadow().insert_alone(block_addr, word) => {
                Self::recorded(slot, trace_of(word).size);
                // So that a program of large blocks gives back what it had for small ones.
                RECORDER.live.shadow().tend_now_and_then();
            }
            _ => {
                slot.end();
                Self::record_otherwise(block_addr, trace, None);
            }
        }
    }

    /// The same for a block that takes the place of another.
    #[inline(never)]
    pub(super) fn record_again(slot: &Slot, block_addr: u64, trace: LiveTrace, old_bytes: u64) {
        let Some(word) = small_live(block_addr, trace) else {
            return Self::record_otherwise(block_addr, trace, Some(old_bytes));
        };
        slot.begin();
        if !On.is_still() {
            return Self::not_recorded_again(slot, old_bytes);
        }
        match RECORDER.live.shadow().insert_at_home(block_addr, word) {
            AtHome::Done(()) => Self::recorded_again(slot, trace_of(word).size, old_bytes),
            AtHome::Not(_) => {
                slot.end();
                Self::record_otherwise(block_addr, trace_of(word), Some(old_bytes));
            }
            AtHome::Unknown => Self::record_again_alone(slot, block_addr, word, old_bytes),
        }
    }

    /// The same where tracing has been stopped.
    #[cold]
    #[inline(never)]
    fn not_recorded_again(slot: &Slot, old_bytes: u64) {
        slot.end();
        RECORDER.totals.remove(old_bytes);
    }

    /// The same where the page has no array, for a block that is alone there.
    #[inline(never)]
    fn record_again_alone(slot: &Slot, block_addr: u64, word: u64, old_bytes: u64) {
        let live = &RECORDER.live;
        if live.beside().is_none() && live.shadow().insert_alone(block_addr, word) {
            Self::recorded_again(slot, trace_of(word).size, old_bytes);
            return live.shadow().tend_now_and_then();
        }
        slot.end();
        Self::record_otherwise(block_addr, trace_of(word), Some(old_bytes));
    }

    /// Ends the operation in which a trace was put into the table, and adds it to the thread's own sums.
    #[inline(always)]
    fn recorded(slot: &Slot, size: u64) {
        slot.end_with_block_added();
        if RECORDER.totals.grow_own(slot, size as i64) {
            RECORDER.totals.flush_if_much(slot);
        }
    }

    /// The same for a trace that takes the place of another in the sums.
    #[inline(always)]
    fn recorded_again(slot: &Slot, size: u64, old_bytes: u64) {
        slot.end();
        if RECORDER.totals.resize_own(slot, (size as i64).wrapping_sub(old_bytes as i64)) {
            RECORDER.totals.flush_if_much(slot);
        }
    }

    /// The same for any trace, in an operation of its own.
    #[inline(never)]
    fn record_otherwise(block_addr: u64, trace: LiveTrace, old_bytes: Option<u64>) {
        let insertion = Insertion { block_addr, trace, old_bytes, note: None, at_sites: None };
        RECORDER.insert(&insertion, On);
    }
}

impl Recorder {
    /// Puts any trace into the table and the totals, if the state still is what it is to be recorded in. If not, or if
    /// there is no room, the one whose place it would have taken counts no more. Gives memory back now and then.
    #[inline(never)]
    pub(super) fn insert(&self, insertion: &Insertion, state: impl Recording) {
        self.insert_here(insertion, state);
    }

    /// The same where the caller's own code is compiled.
    #[inline(always)]
    pub(super) fn insert_here(&self, insertion: &Insertion, state: impl Recording) {
        let &Insertion { block_addr, trace, old_bytes, note, .. } = insertion;
        match thread::slot() {
            Some(slot) if state.sampled().is_none() && !self.totals.is_shared() => {
                slot.begin();
                if !state.is_still() {
                    slot.end();
                    return self.forget_resized(old_bytes);
                }
                self.store_beside(insertion, state);
                if self.live.insert_quickly(block_addr, trace) {
                    match old_bytes {
                        Some(old_bytes) => Self::recorded_again(slot, trace.size, old_bytes),
                        None => Self::recorded(slot, trace.size),
                    }
                } else {
                    self.insert_slowly(slot, block_addr, trace, old_bytes, state);
                }
            }
            _ => self.insert_otherwise(insertion, state),
        }
        self.live.shadow().tend_now_and_then();
        if note.is_some() {
            self.live.tend_details_now_and_then();
        }
    }

    /// The rest of it where there is no room where the trace would be likeliest to be; ends the operation.
    #[inline(never)]
    fn insert_slowly(
        &self,
        slot: &Slot,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        let inserted = self.live.insert(block_addr, trace);
        slot.end();
        self.count(inserted, trace, old_bytes, state);
    }

    /// The same by a thread without a slot, or where all threads add to one sum, or of a sample.
    #[inline(never)]
    fn insert_otherwise(&self, insertion: &Insertion, state: impl Recording) {
        let &Insertion { block_addr, trace, old_bytes, .. } = insertion;
        let inserted = during(|| {
            if !state.is_still() {
                return None;
            }
            self.store_beside(insertion, state);
            Some(match state.sampled() {
                Some(_) => LiveSamples(&self.live).insert(block_addr, trace),
                None if self.live.insert_quickly(block_addr, trace) => Ok(None),
                None => self.live.insert(block_addr, trace),
            })
        });
        match inserted {
            Some(inserted) => self.count(inserted, trace, old_bytes, state),
            None => self.forget_resized(old_bytes),
        }
    }

    /// Counts a trace that was put into the table, or could not be.
    fn count(
        &self,
        inserted: Result<Option<LiveTrace>, NoRoom>,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        match inserted {
            Ok(forgotten) => {
                let bytes = state.counted(trace.size);
                match old_bytes {
                    Some(old_bytes) => self.totals.replace(old_bytes, bytes),
                    None => self.totals.add(bytes),
                }
                // A block at this address was given back unseen.
                if let Some(forgotten) = forgotten {
                    self.totals.remove(state.counted(forgotten.size));
                }
            }
            Err(NoRoom) => {
                self.n_blocks_without_record.fetch_add(1, Relaxed);
                self.forget_resized(old_bytes);
            }
        }
    }

    /// Stores all that goes with a trace that is stored next, in the same operation.
    #[inline(always)]
    fn store_beside(&self, insertion: &Insertion, state: impl Recording) {
        let &Insertion { block_addr, trace, note, at_sites, .. } = insertion;
        if let Some(at_sites) = at_sites
            && self.by_site.is_on()
        {
            let (n_blocks, bytes) = state.stands_for(trace.size);
            self.by_site.add_allocated(trace.site, n_blocks, bytes);
            if let Some((freed, birth)) = at_sites.freed {
                self.count_freed(freed, birth, state);
            }
        }
        match note {
            None => {}
            Some(Note::Born(detail)) => self.note(block_addr, detail),
            Some(Note::Was(birth)) => self.set_birth(block_addr, birth),
        }
    }
}
