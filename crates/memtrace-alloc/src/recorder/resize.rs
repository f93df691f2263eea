//! What is done around a resize, and for blocks that the program tells of.
//!
//! # Mechanism
//!
//! The record is taken out of the table before the wrapped allocator is called, since another thread may get the
//! old address at once, and stays in the totals. Then the block gets a new record, which takes the old one's
//! place in the totals; or the old one again if the resize failed; or none, if tracing has been stopped
//! or the sampler passes the block over, and the old one is subtracted.
//!
//! A block that is resized in a guarded section keeps its stack: there is no other that is known.

use super::Recorder;
use crate::control::{self, Mode, On, Recording, State};
use crate::live::{Detail, LiveTable, LiveTrace};
use crate::thread::{self, ThreadState};
use memtrace_unwind::here;

impl Recorder {
    /// Takes out the record of a block that is about to be resized. `state` was looked at just before.
    #[inline]
    pub(crate) fn resizing(
        &self,
        block: *mut u8,
        new_size: usize,
        state: State,
    ) -> Option<LiveTrace> {
        let block_addr = block.addr() as u64;
        let trace = self.live.take(block_addr)?;
        // One that was sampled need not be sampled again.
        if trace.size > new_size as u64 || state.is_sampled() {
            self.shrinking(block_addr, trace);
        }
        Some(trace)
    }

    /// Puts back the record of a block that could not be resized.
    #[cold]
    pub(crate) fn not_resized(&self, block: *mut u8, record: Option<LiveTrace>, state: State) {
        if let Some(trace) = record {
            let bytes = state.counted(trace.size);
            self.record(block.addr() as u64, trace, Some(bytes), state);
        }
    }

    /// Records a resized block, whose earlier record, `old`, was made in `old_state`.
    #[inline(never)]
    pub(crate) fn resized(
        &self,
        block: *mut u8,
        size: usize,
        old: Option<LiveTrace>,
        old_state: State,
    ) {
        let (block_addr, size) = (block.addr() as u64, size as u64);
        let old_bytes = old.map(|old| old_state.counted(old.size));
        if self.by_site.is_on()
            && let Some(old) = old
        {
            let (n_blocks, bytes) = old_state.stands_for(old.size);
            self.by_site.add_freed(old.site, n_blocks, bytes);
        }
        let recorded = match control::mode() {
            Mode::Off => {
                self.forget_resized(old_bytes);
                return self.probed();
            }
            Mode::Short => {
                let here = here();
                thread::guarded(|state| {
                    let trace = LiveTrace { size, site: self.site_from(here, state) };
                    self.record(block_addr, trace, old_bytes, On);
                })
            }
            Mode::AtLength => self.record_at_length(here(), block_addr, size, old_bytes),
        };
        if recorded.is_none() {
            match old {
                Some(old) => {
                    self.resized_unguarded(block_addr, LiveTrace { size, ..old }, old_bytes)
                }
                None => self.count_nested(),
            }
        }
    }

    /// Subtracts the earlier record of a resized block that gets no new one.
    #[inline]
    pub(super) fn forget_resized(&self, old_bytes: Option<u64>) {
        if let Some(old_bytes) = old_bytes {
            self.totals.remove(old_bytes);
        }
    }

    /// Records a resized block inside a guarded section: it was known and stays known, born anew; its
    /// stack is the only one there is.
    #[cold]
    fn resized_unguarded(&self, block_addr: u64, trace: LiveTrace, old_bytes: Option<u64>) {
        // If tracing has stopped since, the record is taken back.
        let state = State::now();
        if self.by_site.is_on() {
            let (n_blocks, bytes) = state.stands_for(trace.size);
            self.by_site.add_allocated(trace.site, n_blocks, bytes);
        }
        self.live.recording(|| {
            if control::records().any() {
                let number = || thread::with_state(ThreadState::number).unwrap_or(0);
                self.set_detail(block_addr, self.detail_now(number));
            }
            self.record(block_addr, trace, old_bytes, state);
        });
    }

    /// Gives a block that is recorded a new record, of what the program told of it; `false` if there is
    /// no record at this address.
    ///
    /// While tracing is sampled there is none afterwards, either: what is in the table then was sampled,
    /// and what the program tells of was not.
    pub(crate) fn replace_block(&self, block_addr: u64, trace: LiveTrace, detail: Detail) -> bool {
        let state = State::now();
        if state.is_sampled() {
            self.releasing(block_addr, state);
            return false;
        }
        let Some(old) = self.live.take(block_addr) else { return false };
        if old.size > trace.size {
            self.shrinking(block_addr, old);
        }
        self.live.recording(|| {
            if control::records().any() {
                self.set_detail(block_addr, detail);
            }
            self.record(block_addr, trace, Some(old.size), state);
        });
        true
    }
}
