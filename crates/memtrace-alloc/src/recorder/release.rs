//! What is done for a release, before the block is given back.
//!
//! # Mechanism
//!
//! Most of the time the trace is at its home, or nearby in its line: it is taken out there, in an operation of the
//! thread's own slot, and subtracted from the slot's sums as the operation ends; or it is alone in its page, and is taken
//! out of the page's entry without an operation. Whatever is not so goes a way
//! that finds any trace, keeps totals by site, and copies the peak if the release ends one.
//!
//! There is no guard: nothing here can nest, and a release in a signal handler counts, too.
//!
//! # Cost
//!
//! The way to the home: 46 instructions. It saves no register, and leaves what is not as it is
//! most of the time to others in a jump, which give the block back, too.

use super::{RECORDER, Recorder};
use crate::live::{LiveTable, LiveTrace, Quick};
use crate::live_blocks::Beside;
use crate::live_samples::LiveSamples;
use crate::operation::during;
use crate::page_shadow::AtHome;
use crate::page_word::Shape;
use crate::state::{On, Recording, State};
use crate::thread_slot::Slot;

/// What came of a look for a trace where it is likeliest to be. What it leaves to do is done by a function of the
/// recorder's, which the hook calls out of the way that most blocks go.
#[must_use]
pub(crate) enum Released {
    /// It was taken out and subtracted.
    Done,
    /// The same, and the thread has subtracted much: [`Totals::flush_if_much`](crate::totals::Totals::flush_if_much).
    Much,
    /// It may be elsewhere in its line, and the operation goes on: [`Recorder::releasing_from_line`].
    InLine(Shape),
    /// It takes more to know: [`Recorder::releasing_at_block`].
    Unknown,
}

impl Recorder {
    /// Forgets a block of the caller's that is about to be given back. `state` was looked at just before.
    #[inline(never)]
    pub(crate) fn releasing(&self, block_addr: u64, state: State) {
        if state.is_plain() {
            self.releasing_in(block_addr, On);
        } else if state.is_sampled() {
            self.releasing_sampled(block_addr, state);
        } else {
            self.releasing_in(block_addr, state);
        }
    }

    /// The same while tracing is sampled, for what [`State::lets_go`] did not let go.
    #[cold]
    #[inline(never)]
    pub(crate) fn releasing_sampled(&self, block_addr: u64, state: State) {
        self.release_at_length(&LiveSamples(&self.live), block_addr, state);
    }

    /// The same in the state [`On`], in which neither totals by site nor a copy of the peak are kept, if the trace is
    /// where it is likeliest to be. Compiled into the hook, so that most blocks are given back without a call between.
    #[inline(always)]
    pub(crate) fn releasing_from_home(slot: &Slot, block_addr: u64) -> Released {
        let recorder = &RECORDER;
        // No guard: nothing here can nest, and a release in a signal handler counts, too.
        match recorder.live.shadow().take_at_home(slot, block_addr) {
            AtHome::Done(trace) => {
                if recorder.subtract(slot, trace) {
                    Released::Much
                } else {
                    Released::Done
                }
            }
            AtHome::Not(shape) => Released::InLine(shape),
            AtHome::Unknown => Released::Unknown,
        }
    }

    /// The same where traces stand beside their blocks, if this one does.
    #[inline(never)]
    pub(crate) fn releasing_at_block(slot: &Slot, block_addr: u64) {
        let recorder = &RECORDER;
        let Some(table) = recorder.live.beside() else {
            return Self::releasing_alone(slot, block_addr);
        };
        match table.take_beside(block_addr) {
            Some(trace) => recorder.released_without(slot, trace),
            None => recorder.releasing_in(block_addr, On),
        }
    }

    /// The same where the page has no array, of a block that is alone there.
    #[inline(never)]
    fn releasing_alone(slot: &Slot, block_addr: u64) {
        let recorder = &RECORDER;
        match recorder.live.shadow().take_alone(block_addr) {
            Some(trace) => recorder.released_without(slot, trace),
            None => recorder.releasing_in(block_addr, On),
        }
    }

    /// The same where the trace is not where it is likeliest to be; ends the operation.
    #[inline(never)]
    pub(crate) fn releasing_from_line(slot: &Slot, block_addr: u64, shape: Shape) {
        let recorder = &RECORDER;
        match recorder.live.shadow().take_from_line(shape, block_addr) {
            Quick::Taken(trace) => recorder.released(slot, trace),
            Quick::Nothing => slot.end(),
            Quick::Unknown => {
                slot.end();
                recorder.release_at_length(recorder.live.shadow(), block_addr, On);
            }
        }
    }

    /// Ends the operation in which a trace was taken, and subtracts it from the thread's own sums; says whether these have
    /// shrunk much.
    #[inline(always)]
    fn subtract(&self, slot: &Slot, trace: LiveTrace) -> bool {
        slot.end_with_block_removed();
        self.totals.shrink_own(slot, trace.size)
    }

    /// The same, and all that follows.
    #[inline(always)]
    fn released(&self, slot: &Slot, trace: LiveTrace) {
        if self.subtract(slot, trace) {
            self.totals.flush_if_much(slot);
        }
    }

    /// Subtracts a trace that was taken without an operation.
    #[inline(always)]
    fn released_without(&self, slot: &Slot, trace: LiveTrace) {
        slot.remove_block();
        if self.totals.shrink_own(slot, trace.size) {
            self.totals.flush_if_much(slot);
        }
    }

    /// Forgets a block of which a tool says that it is gone, and that need not be its own.
    pub(crate) fn untracking(&self, block_addr: u64) {
        let state = State::now_for_certain();
        if state.is_sampled() {
            self.releasing_sampled(block_addr, state);
        } else {
            self.releasing_in(block_addr, state);
        }
    }

    /// The same in any state, which is looked at once more.
    #[inline(never)]
    fn releasing_in(&self, block_addr: u64, state: impl Recording) {
        match self.live.beside() {
            None => self.release_from(self.live.shadow(), block_addr, state),
            Some(table) => self.releasing_beside(table, block_addr, state),
        }
    }

    /// The same where traces stand beside their blocks.
    #[inline(never)]
    fn releasing_beside(&self, table: Beside<'_>, block_addr: u64, state: impl Recording) {
        self.release_from(&table, block_addr, state);
    }

    /// The same from the table that has the block.
    #[inline(always)]
    fn release_from(&self, table: &impl LiveTable, block_addr: u64, state: impl Recording) {
        // No guard: nothing here can nest, and a release in a signal handler counts, too.
        match self.take_counting(block_addr, state, || table.take_quickly(block_addr)) {
            Quick::Taken(trace) => self.remove_taken(block_addr, trace, state),
            Quick::Nothing => {}
            Quick::Unknown => self.release_at_length(table, block_addr, state),
        }
    }

    /// The same where the trace is not where it is likeliest to be. Out of line, so that the other way needs few
    /// registers.
    #[inline(never)]
    fn release_at_length(&self, table: &impl LiveTable, block_addr: u64, state: impl Recording) {
        let take = || table.take(block_addr).map_or(Quick::Nothing, Quick::Taken);
        if let Quick::Taken(trace) = self.take_counting(block_addr, state, take) {
            self.remove_taken(block_addr, trace, state);
        }
        self.live.shadow().tend_now_and_then();
    }

    /// Takes a trace out of the table and counts it as given back at its site, in one operation: unless all traces are about
    /// to be forgotten.
    #[inline(always)]
    fn take_counting(
        &self,
        block_addr: u64,
        state: impl Recording,
        take: impl FnOnce() -> Quick,
    ) -> Quick {
        during(|| {
            if !state.is_still() {
                return Quick::Nothing;
            }
            let birth = self.birth(block_addr, state);
            let taken = take();
            if let Quick::Taken(trace) = taken
                && self.by_site.is_on()
            {
                self.count_freed(trace, birth, state);
            }
            taken
        })
    }

    /// Subtracts a block that was taken out of the table, and keeps the peak if this was one.
    #[inline]
    fn remove_taken(&self, block_addr: u64, trace: LiveTrace, state: impl Recording) {
        let before = self.totals.remove(state.counted(trace.size));
        if self.totals.is_peak(before) {
            self.keep_peak_with_block(before, block_addr, trace);
        }
    }
}
