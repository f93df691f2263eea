//! How a trace gets into the live table and the totals.
//!
//! # Mechanism
//!
//! A trace that has a small word goes to its home, in an operation of the thread's own slot, and is added to the
//! slot's sums as the operation ends. If there is another trace at home, it goes elsewhere in its line; where its page
//! has no array, into the page's entry, if it is likely to stay alone. Whatever is not so (the thread has no slot,
//! traces stand beside their blocks, tracing is sampled, all threads share one sum) goes a way that serves any trace.
//!
//! # Orderings
//!
//! Each way looks at the state after it has stored the trace, and takes that back if tracing has been stopped
//! meanwhile: half of the handshake of [`crate::control`].
//!
//! # Cost
//!
//! The way to the home: 50 instructions. It saves no register, and leaves what is not as it is most of the
//! time to others in a jump.

use super::{RECORDER, Recorder};
use crate::control::Recording;
use crate::live::{LiveTable, LiveTrace};
use crate::live_blocks::Beside;
use crate::live_samples::LiveSamples;
use crate::page_shadow::AtHome;
use crate::page_word::{Shape, small_live, trace_of};
use crate::thread;
use crate::thread_slot::Slot;
use core::sync::atomic::Ordering::Relaxed;

impl Recorder {
    /// Puts a trace into the table and the totals, as it is recorded in `state`. One that was taken out
    /// before, and counts for `old_bytes`, makes way.
    #[inline(always)]
    pub(super) fn record(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        if state.sampled().is_some() {
            return self.record_any(block_addr, trace, old_bytes, state);
        }
        match (old_bytes, thread::slot()) {
            (None, Some(slot)) => Self::record_new(slot, block_addr, trace, state),
            (Some(old_bytes), Some(slot)) => {
                Self::record_again(slot, block_addr, trace, old_bytes, state);
            }
            (old_bytes, None) => self.record_any(block_addr, trace, old_bytes, state),
        }
    }

    /// The same for a block that is new, by a thread with a slot. What is not as it is most of the time is left
    /// to others in a jump, not a call, so that no registers need be saved; nor does the one recorder need one.
    // Not inlined into the capture, which needs the registers.
    #[inline(never)]
    pub(super) fn record_new(
        slot: &Slot,
        block_addr: u64,
        trace: LiveTrace,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if !state.is_plain() && recorder.totals.is_shared() {
            return recorder.record_any(block_addr, trace, None, state);
        }
        // From here on, the word is all that is known of the trace, so that it takes no more than one register.
        let Some(word) = small_live(block_addr, trace) else {
            return recorder.record_any(block_addr, trace, None, state);
        };
        match recorder.live.shadow().insert_at_home(slot, block_addr, word) {
            AtHome::Done(()) => recorder.recorded(slot, block_addr, word, state),
            AtHome::Not(shape) => Self::record_in_line(slot, block_addr, word, shape, state),
            AtHome::Unknown => Self::record_at_block(slot, block_addr, trace, state),
        }
    }

    /// The same where traces stand beside their blocks, if this one can.
    #[inline(never)]
    fn record_at_block(slot: &Slot, block_addr: u64, trace: LiveTrace, state: impl Recording) {
        let recorder = &RECORDER;
        let Some(table) = recorder.live.beside() else {
            return Self::record_alone(slot, block_addr, trace, state);
        };
        let Some(forgotten) = table.insert_beside(block_addr, trace) else {
            return recorder.record_any(block_addr, trace, None, state);
        };
        slot.add_block();
        let is_much = recorder.totals.grow_own(slot, state.counted(trace.size) as i64);
        if is_much || forgotten.is_some() || !state.is_still() {
            Self::recorded_at_block(slot, table, block_addr, trace, forgotten, state);
        }
    }

    /// The same where the page has no array, for a block that is alone there.
    #[inline(never)]
    fn record_alone(slot: &Slot, block_addr: u64, trace: LiveTrace, state: impl Recording) {
        let recorder = &RECORDER;
        match small_live(block_addr, trace) {
            Some(word) if recorder.live.shadow().insert_alone(slot, block_addr, word) => {
                recorder.recorded(slot, block_addr, word, state);
                // So that a program of large blocks gives back what it had for small ones.
                recorder.live.shadow().tend_now_and_then();
            }
            _ => recorder.record_any(block_addr, trace, None, state),
        }
    }

    /// The rest of it where the thread has counted much, a block at this address was given back unseen, or tracing
    /// has been stopped.
    #[cold]
    #[inline(never)]
    fn recorded_at_block(
        slot: &Slot,
        table: Beside<'_>,
        block_addr: u64,
        trace: LiveTrace,
        forgotten: Option<LiveTrace>,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        recorder.totals.flush_if_much(slot);
        if let Some(forgotten) = forgotten {
            recorder.totals.remove(state.counted(forgotten.size));
        }
        if !state.is_still() {
            recorder.take_back(&table, block_addr, trace, state.counted(trace.size));
        }
    }

    /// The same for a block that takes the place of another.
    #[inline(never)]
    pub(super) fn record_again(
        slot: &Slot,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: u64,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if !state.is_plain() && recorder.totals.is_shared() {
            return recorder.record_any(block_addr, trace, Some(old_bytes), state);
        }
        let Some(word) = small_live(block_addr, trace) else {
            return recorder.record_any(block_addr, trace, Some(old_bytes), state);
        };
        match recorder.live.shadow().insert_at_home(slot, block_addr, word) {
            AtHome::Done(()) => recorder.recorded_again(slot, block_addr, word, old_bytes, state),
            AtHome::Not(_) => {
                slot.end();
                recorder.record_any(block_addr, trace_of(word), Some(old_bytes), state);
            }
            AtHome::Unknown => Self::record_again_alone(slot, block_addr, word, old_bytes, state),
        }
    }

    /// The same where the page has no array, for a block that is alone there.
    #[inline(never)]
    fn record_again_alone(
        slot: &Slot,
        block_addr: u64,
        word: u64,
        old_bytes: u64,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if recorder.live.beside().is_none()
            && recorder.live.shadow().insert_alone(slot, block_addr, word)
        {
            recorder.recorded_again(slot, block_addr, word, old_bytes, state);
            return recorder.live.shadow().tend_now_and_then();
        }
        recorder.record_any(block_addr, trace_of(word), Some(old_bytes), state);
    }

    /// The same where there is a trace where this one would be likeliest to be.
    #[inline(never)]
    fn record_in_line(
        slot: &Slot,
        block_addr: u64,
        word: u64,
        shape: Shape,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if recorder.live.shadow().insert_into_line(shape, word) {
            return recorder.recorded(slot, block_addr, word, state);
        }
        slot.end();
        recorder.record_slowly(recorder.live.shadow(), block_addr, trace_of(word), None, state);
    }

    /// Ends the operation in which a trace was put into the table, and adds it to the thread's own sums.
    #[inline(always)]
    fn recorded(&self, slot: &Slot, block_addr: u64, word: u64, state: impl Recording) {
        let bytes = state.counted(trace_of(word).size);
        slot.end_with_block_added();
        let is_much = self.totals.grow_own(slot, bytes as i64);
        if is_much || !state.is_still() {
            Self::recorded_last(slot, block_addr, word, state);
        }
    }

    /// The same for a trace that takes the place of another in the sums.
    #[inline(always)]
    fn recorded_again(
        &self,
        slot: &Slot,
        block_addr: u64,
        word: u64,
        old_bytes: u64,
        state: impl Recording,
    ) {
        slot.end();
        let bytes = state.counted(trace_of(word).size) as i64;
        let is_much = self.totals.resize_own(slot, bytes.wrapping_sub(old_bytes as i64));
        if is_much || !state.is_still() {
            Self::recorded_last(slot, block_addr, word, state);
        }
    }

    /// The same where the thread has counted much, or tracing has been stopped.
    #[cold]
    #[inline(never)]
    fn recorded_last(slot: &Slot, block_addr: u64, word: u64, state: impl Recording) {
        let (recorder, trace) = (&RECORDER, trace_of(word));
        recorder.totals.flush_if_much(slot);
        if !state.is_still() {
            let bytes = state.counted(trace.size);
            recorder.take_back(recorder.live.shadow(), block_addr, trace, bytes);
        }
    }

    /// Puts any trace into the table and the totals.
    #[inline(never)]
    fn record_any(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        if let Some(state) = state.sampled() {
            let table = LiveSamples(&self.live);
            return self.record_slowly(&table, block_addr, trace, old_bytes, state);
        }
        match self.live.beside() {
            None => self.record_in(self.live.shadow(), block_addr, trace, old_bytes, state),
            Some(table) => self.record_beside(table, block_addr, trace, old_bytes, state),
        }
    }

    /// The same where traces stand beside their blocks.
    #[inline(never)]
    fn record_beside(
        &self,
        table: Beside<'_>,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        self.record_in(&table, block_addr, trace, old_bytes, state);
    }

    /// The same in the table that is to have the block.
    #[inline(always)]
    fn record_in(
        &self,
        table: &impl LiveTable,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        // Where none was there before, that was tried.
        if old_bytes.is_some() && table.insert_quickly(block_addr, trace) {
            let bytes = state.counted(trace.size);
            self.count(bytes, old_bytes);
            if !state.is_still() {
                self.take_back(table, block_addr, trace, bytes);
            }
        } else {
            self.record_slowly(table, block_addr, trace, old_bytes, state);
        }
    }

    /// The same where there is no room where the trace would be likeliest to be.
    #[inline(never)]
    fn record_slowly(
        &self,
        table: &impl LiveTable,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        match table.insert(block_addr, trace) {
            Ok(forgotten) => {
                let bytes = state.counted(trace.size);
                self.count(bytes, old_bytes);
                // A block at this address was given back unseen.
                if let Some(forgotten) = forgotten {
                    self.totals.remove(state.counted(forgotten.size));
                }
                if !state.is_still() {
                    self.take_back(table, block_addr, trace, bytes);
                }
            }
            Err(_) => {
                self.n_blocks_without_record.fetch_add(1, Relaxed);
                self.forget_resized(old_bytes);
            }
        }
    }

    /// Adds the bytes of a trace that was put into the table, in the place of another's if there was one.
    #[inline(always)]
    fn count(&self, bytes: u64, old_bytes: Option<u64>) {
        match old_bytes {
            Some(old_bytes) => self.totals.replace(old_bytes, bytes),
            None => self.totals.add(bytes),
        }
    }

    /// Takes back a trace that was put into the table when tracing had just been stopped.
    #[cold]
    fn take_back(&self, table: &impl LiveTable, block_addr: u64, trace: LiveTrace, bytes: u64) {
        if table.take_if(block_addr, trace) {
            self.totals.remove(bytes);
        }
    }
}
