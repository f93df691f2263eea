//! The details of a block: which thread recorded it, and in which generation; and when, by the clock.

use super::Recorder;
use crate::control;
use crate::lifetime::Birth;
use crate::live::{Detail, LiveTable, LiveTrace};
use crate::state::Recording;
use crate::thread::{self, ThreadState};

impl Recorder {
    /// Notes all that is wanted beside the trace of a block that is about to be recorded: its detail, and that it is
    /// born now.
    #[inline]
    pub(super) fn note(&self, block_addr: u64, detail: Detail) {
        let records = control::records();
        let has_detail = !records.details() || self.live.set_detail(block_addr, detail).is_ok();
        let has_birth = !records.lifetimes || self.live.set_birth(block_addr, Birth::now()).is_ok();
        if !has_detail || !has_birth {
            self.count_without_detail();
        }
    }

    /// Notes when a block was born that is about to be recorded again.
    #[inline]
    pub(super) fn set_birth(&self, block_addr: u64, birth: Birth) {
        if self.live.set_birth(block_addr, birth).is_err() {
            self.count_without_detail();
        }
    }

    /// Counts what a block that is given back stands for at the site that allocated it.
    #[cold]
    pub(super) fn count_freed(&self, trace: LiveTrace, birth: Birth, state: impl Recording) {
        let (n_blocks, bytes) = state.stands_for(trace.size);
        if !self.by_site.add_freed(trace.site, n_blocks, bytes, birth) {
            self.count_without_detail();
        }
    }

    /// When a block was born that is about to lose its trace, and still has it: so what was noted is there.
    #[inline]
    pub(super) fn birth(&self, block_addr: u64, state: impl Recording) -> Birth {
        // What the compiler knows of the state: any other is looked at beside what is wanted.
        if state.is_plain() || !control::records().lifetimes {
            return Birth::UNKNOWN;
        }
        self.live.birth(block_addr)
    }

    /// Returns the detail of what happens now: the generation always, by which details of earlier
    /// runs are told; the thread if it is wanted.
    #[inline]
    pub(super) fn detail_now(&self, thread: impl FnOnce() -> u32) -> Detail {
        let thread = if control::records().threads { thread() } else { 0 };
        Detail { thread, birth: self.generations.current() }
    }

    /// Returns the number of a thread, giving it one the first time.
    #[inline]
    pub(super) fn number_of(&self, state: &ThreadState) -> u32 {
        match state.number() {
            0 => state.set_number(self.threads.register()),
            number => number,
        }
    }

    /// What of a detail is to be told.
    #[inline]
    pub(crate) fn told(&self, detail: Detail) -> Detail {
        let records = control::records();
        if !self.generations.is_of_run(detail.birth) {
            // Of a block of an earlier run at the same address.
            return Detail::UNKNOWN;
        }
        let birth = if records.generations { detail.birth } else { 0 };
        Detail { birth, ..detail }
    }

    /// Renews, in a forked child, what the system tells about its only thread.
    pub(crate) fn renew_thread(&self) {
        if let Some(number @ 1..) = thread::with_state(ThreadState::number) {
            self.threads.renew(number);
        }
    }
}
