//! What is done around a resize, and for blocks that the program tells of.
//!
//! # Mechanism
//!
//! The record is taken out of the table before the wrapped allocator is called, since another thread may get the
//! old address at once, and stays in the totals. Then the block gets a new record, which takes the old one's
//! place in the totals; or the old one again if the resize failed; or none, if tracing has been stopped
//! or the sampler passes the block over, and the old one is subtracted.
//!
//! As for an allocation, most blocks take a short way through functions that jump to each other (see
//! [`allocation`](super::allocation)).
//!
//! A block that is resized in a guarded section keeps its stack: there is no other that is known.

use super::insertion::{AtSites, Insertion, Note};
use super::{RECORDER, Recorder};
use crate::control::{self, Mode};
use crate::entry::{Old, ResizedEntry};
use crate::lifetime::Birth;
use crate::live::{Detail, LiveTable, LiveTrace};
use crate::operation::during;
use crate::site::SiteId;
use crate::state::{Recording, State};
use crate::thread::{self, ThreadState};
use core::num::NonZeroU32;

/// A trace that was taken out, and counts in the totals as long as none has taken its place.
#[derive(Clone, Copy)]
pub(crate) struct Replaced {
    trace: LiveTrace,
    birth: Birth,
    /// The state that it was recorded in.
    state: State,
}

impl Replaced {
    pub(crate) fn new(old: &Old, state: State) -> Option<Self> {
        Some(Self { trace: old.trace?, birth: old.birth, state })
    }

    /// What it counts for.
    fn bytes(self) -> u64 {
        self.state.counted(self.trace.size)
    }

    /// What is counted by sites of one that was `replaced`, if any was, and that tracing in `state` knows of.
    fn at_sites(replaced: Option<Self>, state: State) -> AtSites {
        let known = replaced.filter(|old| old.state == state);
        AtSites { freed: known.map(|old| (old.trace, old.birth)) }
    }

    /// What puts a trace in the place of one that was `replaced`, if any was.
    pub(super) fn by(
        block_addr: u64,
        trace: LiveTrace,
        replaced: Option<Self>,
        note: Option<Note>,
        state: State,
    ) -> Insertion {
        let at_sites = Some(Self::at_sites(replaced, state));
        Insertion { block_addr, trace, old_bytes: replaced.map(Self::bytes), note, at_sites }
    }
}

impl Recorder {
    /// Takes out the record of a block that is about to be resized. `state` was looked at just before.
    #[inline]
    pub(crate) fn resizing(&self, block: *mut u8, new_size: usize, state: State) -> Old {
        let block_addr = block.addr() as u64;
        // Nothing else is known of it while no more than sizes and stacks are recorded.
        let birth = if state.is_plain() { Birth::UNKNOWN } else { self.birth(block_addr, state) };
        let taken = self.take_out(block_addr, state);
        self.live.shadow().tend_now_and_then();
        let Some(trace) = taken else { return Old { trace: None, birth } };
        // One that was sampled need not be sampled again.
        if trace.size > new_size as u64 || state.is_sampled() {
            self.shrinking(block_addr, trace);
        }
        Old { trace: Some(trace), birth }
    }

    /// Takes out a trace that makes way for another, unless tracing is about to be stopped, when all are forgotten.
    fn take_out(&self, block_addr: u64, state: State) -> Option<LiveTrace> {
        during(|| if state.is_still() { self.live.take(block_addr) } else { None })
    }

    /// Puts back the record of a block that could not be resized.
    #[cold]
    pub(crate) fn not_resized(&self, block: *mut u8, old: Old, state: State) {
        let Some(trace) = old.trace else { return };
        // What was noted may have gone while the block had no trace.
        let note = (old.birth != Birth::UNKNOWN).then_some(Note::Was(old.birth));
        let (block_addr, old_bytes) = (block.addr() as u64, Some(state.counted(trace.size)));
        self.insert(&Insertion { block_addr, trace, old_bytes, note, at_sites: None }, state);
    }
}

// None of these needs `self`, which would take a register.
impl Recorder {
    /// Records a block that the wrapped allocator has resized; null is passed over.
    #[inline(always)]
    pub(crate) fn resized(resized: ResizedEntry, state: &ThreadState) {
        let entry = resized.entry();
        if !control::is_short() || !resized.state().is_plain() || entry.block().is_null() {
            return Self::resized_otherwise(resized);
        }
        match state.recall(entry.registers()) {
            Some(site) => Self::resized_recalled(resized, state, site),
            None => Self::resized_by_one_frame(resized, state),
        }
    }

    /// Records a resized block of whose stack one frame is asked for, or passes it on.
    #[inline(never)]
    fn resized_by_one_frame(resized: ResizedEntry, state: &ThreadState) {
        match state.recall_one_frame(resized.entry().registers()) {
            Some(site) => Self::resized_recalled(resized, state, site),
            None => Self::resized_further(resized, state),
        }
    }

    /// Records a resized block whose stack is remembered, but not told from others by where it begins.
    #[inline(never)]
    fn resized_further(resized: ResizedEntry, state: &ThreadState) {
        match state.recall_further(resized.entry().registers()) {
            Some(site) => Self::resized_recalled(resized, state, site),
            None => Self::resized_unrecalled(resized),
        }
    }

    #[inline(always)]
    fn resized_recalled(resized: ResizedEntry, state: &ThreadState, site: NonZeroU32) {
        let (Some(slot), Some(old)) = (state.slot(), resized.old().trace) else {
            return Self::resized_with_site(resized, site);
        };
        let entry = resized.entry();
        let trace = LiveTrace { size: entry.size() as u64, site: SiteId(site.get()) };
        Self::record_again(slot, entry.block().addr() as u64, trace, old.size);
    }

    /// The same for a block that had no record, or by a thread that has no slot.
    #[cold]
    #[inline(never)]
    fn resized_with_site(resized: ResizedEntry, site: NonZeroU32) {
        let entry = resized.entry();
        let trace = LiveTrace { size: entry.size() as u64, site: SiteId(site.get()) };
        let old_bytes = resized.old().trace.map(|old| old.size);
        Self::record(entry.block().addr() as u64, trace, old_bytes);
    }

    /// Records a resized block whose stack is not remembered where it is likeliest to be.
    #[inline(never)]
    fn resized_unrecalled(resized: ResizedEntry) {
        let entry = resized.entry();
        let (block_addr, size) = (entry.block().addr() as u64, entry.size() as u64);
        let old = Replaced::new(resized.old(), resized.state());
        let site = thread::guarded(|state| RECORDER.site_unrecalled(entry.registers(), state));
        match site {
            Some(site) => {
                Self::record(block_addr, LiveTrace { size, site }, old.map(Replaced::bytes));
            }
            None => RECORDER.resized_nested(block_addr, size, old),
        }
    }

    /// The same while nothing is recorded, or more than the short way does, or was before, or by a thread that has
    /// lost its state.
    #[inline(never)]
    pub(crate) fn resized_otherwise(resized: ResizedEntry) {
        let entry = resized.entry();
        if entry.block().is_null() {
            return;
        }
        let (block_addr, size) = (entry.block().addr() as u64, entry.size() as u64);
        let old = Replaced::new(resized.old(), resized.state());
        match control::mode() {
            Mode::Off => {
                RECORDER.forget_resized(old.map(Replaced::bytes));
                RECORDER.probed();
            }
            Mode::Short => Self::resized_unrecalled(resized),
            Mode::AtLength => {
                if RECORDER.record_at_length(entry.registers(), block_addr, size, old).is_none() {
                    RECORDER.resized_nested(block_addr, size, old);
                }
            }
        }
    }
}

impl Recorder {
    /// Subtracts the earlier record of a resized block that gets no new one.
    #[inline]
    pub(super) fn forget_resized(&self, old_bytes: Option<u64>) {
        if let Some(old_bytes) = old_bytes {
            self.totals.remove(old_bytes);
        }
    }

    /// The same while tracing is on, in `state`: it counts as given back.
    #[inline]
    pub(super) fn forget(&self, old: Option<Replaced>, state: State) {
        if old.is_some() && self.by_site.is_on() {
            during(|| {
                if let Some((trace, birth)) = Replaced::at_sites(old, state).freed
                    && state.is_still()
                {
                    self.count_freed(trace, birth, state);
                }
            });
        }
        self.forget_resized(old.map(Replaced::bytes));
    }

    /// Records a resized block inside a guarded section, if it had a record: it was known and stays known, born anew; its
    /// stack is the only one there is.
    #[cold]
    fn resized_nested(&self, block_addr: u64, size: u64, old: Option<Replaced>) {
        let Some(replaced) = old else { return self.count_nested() };
        let state = State::now_for_certain();
        let note =
            Note::Born(self.detail_now(|| thread::with_state(ThreadState::number).unwrap_or(0)));
        let trace = LiveTrace { size, ..replaced.trace };
        self.insert(&Replaced::by(block_addr, trace, old, Some(note), state), state);
    }

    /// Gives a block that is recorded a new record, of what the program told of it, as if it were resized; `false` if
    /// there is no record at this address.
    ///
    /// While tracing is sampled there is none afterwards, either: what is in the table then was sampled,
    /// and what the program tells of was not.
    pub(crate) fn replace_block(&self, block_addr: u64, trace: LiveTrace, detail: Detail) -> bool {
        let state = State::now_for_certain();
        if state.is_sampled() {
            self.releasing_sampled(block_addr, state);
            return false;
        }
        let birth = self.birth(block_addr, state);
        let Some(old) = self.take_out(block_addr, state) else { return false };
        if old.size > trace.size {
            self.shrinking(block_addr, old);
        }
        let old = Some(Replaced { trace: old, birth, state });
        let note = Some(Note::Born(detail));
        self.insert(&Replaced::by(block_addr, trace, old, note, state), state);
        true
    }
}
