//! What is done for an allocation, between the hook and the tables.
//!
//! # Mechanism
//!
//! Nearly all allocations take the *short* way: recorded without details, at a stack that the thread's cache
//! recalls. All that is not so is left to functions that are jumped to, so that the short way saves no
//! registers. The next one captures the stack; the last looks whether the block is sampled, and finds out its
//! details.
//!
//! # Cost
//!
//! The short way: a dozen instructions beside those that recall the stack, and those of
//! [`insertion`](super::insertion).

use super::insertion::Note;
use super::resize::Replaced;
use super::{RECORDER, Recorder};
use crate::control::{self, Mode};
use crate::entry::Entry;
use crate::live::LiveTrace;
use crate::site::SiteId;
use crate::state::State;
use crate::thread::{self, ThreadState};
use core::num::NonZeroU32;
use memtrace_unwind::Registers;

// None of these needs `self`, which would take a register.
impl Recorder {
    /// Records a block that the wrapped allocator has handed out; null is passed over.
    ///
    /// What is done for nearly all blocks: whatever else there is to do is done by functions that this one
    /// jumps to, so that it needs no frame.
    #[inline(always)]
    pub(crate) fn allocated(entry: Entry, state: &ThreadState) {
        if !control::is_short() || entry.block().is_null() {
            return Self::allocated_otherwise(entry);
        }
        match state.recall(entry.registers()) {
            Some(site) => Self::recalled(entry, state, site),
            None => Self::allocated_by_one_frame(entry, state),
        }
    }

    /// Records a block of whose stack one frame is asked for, or passes it on.
    #[inline(never)]
    fn allocated_by_one_frame(entry: Entry, state: &ThreadState) {
        match state.recall_one_frame(entry.registers()) {
            Some(site) => Self::recalled(entry, state, site),
            None => Self::allocated_further(entry, state),
        }
    }

    /// Records a block whose stack is remembered, but not told from others by where it begins.
    #[inline(never)]
    fn allocated_further(entry: Entry, state: &ThreadState) {
        match state.recall_further(entry.registers()) {
            Some(site) => Self::recalled(entry, state, site),
            None => Self::allocated_unrecalled(entry),
        }
    }

    #[inline(always)]
    fn recalled(entry: Entry, state: &ThreadState, site: NonZeroU32) {
        let Some(slot) = state.slot() else { return Self::recalled_without_slot(entry, site) };
        let trace = LiveTrace { size: entry.size() as u64, site: SiteId(site.get()) };
        Self::record_new(slot, entry.block().addr() as u64, trace);
    }

    #[cold]
    #[inline(never)]
    fn recalled_without_slot(entry: Entry, site: NonZeroU32) {
        let trace = LiveTrace { size: entry.size() as u64, site: SiteId(site.get()) };
        Self::record(entry.block().addr() as u64, trace, None);
    }

    /// Records a block whose stack is not remembered where it is likeliest to be.
    #[inline(never)]
    fn allocated_unrecalled(entry: Entry) {
        let (block_addr, size) = (entry.block().addr() as u64, entry.size() as u64);
        // One in some thousand allocations of a thread comes here, even where all else takes the short ways.
        RECORDER.live.shadow().tend_now_and_then();
        let site = thread::guarded(|state| RECORDER.site_unrecalled(entry.registers(), state));
        match site {
            Some(site) => Self::record(block_addr, LiveTrace { size, site }, None),
            None => RECORDER.count_nested(),
        }
    }

    /// The same while nothing is recorded, or more than the short way does, or by a thread that has lost its state.
    #[inline(never)]
    pub(crate) fn allocated_otherwise(entry: Entry) {
        match control::mode() {
            _ if entry.block().is_null() => RECORDER.probed(),
            Mode::Off => RECORDER.probed(),
            Mode::Short => Self::allocated_unrecalled(entry),
            Mode::AtLength => {
                let (block_addr, size) = (entry.block().addr() as u64, entry.size() as u64);
                let recorded = RECORDER.record_at_length(entry.registers(), block_addr, size, None);
                if recorded.is_none() {
                    RECORDER.count_nested();
                }
            }
        }
    }
}

impl Recorder {
    /// Records a block with its details and a stack that may be deep, if it is to be recorded at all;
    /// `None` inside a guarded section.
    ///
    /// A function of its own: the short way needs fewer registers and less stack.
    #[inline(never)]
    pub(super) fn record_at_length(
        &self,
        here: Registers,
        block_addr: u64,
        size: u64,
        old: Option<Replaced>,
    ) -> Option<()> {
        // With what was stored before it: what is recorded.
        let now = State::now_for_certain();
        if now.is_sampled() && !now.decides_for(size) {
            self.forget(old, now);
            return Some(());
        }
        thread::guarded(|state| {
            let trace = LiveTrace { size, site: self.site_from(here, state) };
            let detail = || Note::Born(self.detail_now(|| self.number_of(state)));
            let note = control::records().any().then(detail);
            self.insert_here(&Replaced::by(block_addr, trace, old, note, now), now);
        })
    }
}
