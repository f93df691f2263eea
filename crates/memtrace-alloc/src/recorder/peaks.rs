//! When the peak is kept, and what is copied into it.
//!
//! # Mechanism
//!
//! If a copy of the peak is wanted, all threads add to one sum, and whoever is about to make it smaller looks whether
//! it has passed a threshold since the last copy. If so it copies all traces, and the one that it has taken
//! out itself, while others go on. [`PeakKeeper`](crate::peak::PeakKeeper) says what the next threshold is; it is
//! out of reach while a copy is made.

use super::Recorder;
use crate::control;
use crate::live::{Detail, LiveTable, LiveTrace};
use crate::peak::{PeakTrace, Writer};
use crate::state::{Recording, State};
use crate::thread;

impl Recorder {
    /// Copies all traces, and the block that was taken out of the table but counts for the `bytes`.
    #[cold]
    #[inline(never)]
    pub(super) fn keep_peak_with_block(&self, bytes: i64, block_addr: u64, trace: LiveTrace) {
        let has_details = control::records().details();
        let detail = if has_details { self.live.detail(block_addr) } else { Detail::UNKNOWN };
        self.keep_peak(bytes, Some(PeakTrace::new(trace, self.told(detail))));
    }

    /// Keeps the peak, if this is one, before a block becomes smaller that was taken out of the table
    /// and not yet subtracted.
    #[inline]
    pub(super) fn shrinking(&self, block_addr: u64, trace: LiveTrace) {
        if self.totals.is_shared() {
            let now = self.totals.bytes();
            if self.totals.is_peak(now) {
                self.keep_peak_with_block(now, block_addr, trace);
            }
        }
    }

    /// Copies all traces, and the one that was `taken` out of its table but counts for the `bytes`.
    ///
    /// Called for a release of the program's, before the block is given back and without a lock.
    #[cold]
    pub(crate) fn keep_peak(&self, bytes: i64, taken: Option<PeakTrace>) {
        // A signal handler that releases may have interrupted the holder of a lock that is needed here,
        // this very thread: then waiting for it would never end.
        if thread::holds_lock() {
            return;
        }
        // Others who come now are about to release no more than what the one who copies has seen, or
        // will come again.
        let Some(mut peak) = self.peak.try_lock() else { return };
        if !self.totals.is_peak(bytes) {
            return;
        }
        self.totals.set_threshold(i64::MAX);
        let state = State::now();
        let counted = |size| state.counted(size);
        let next = peak.copy(bytes, control::records().details(), &counted, |writer| {
            taken.into_iter().for_each(|trace| writer.push(trace));
            self.write_all(writer);
        });
        self.totals.set_threshold(next);
    }

    /// Writes all traces that are in the tables.
    fn write_all(&self, writer: &mut Writer<'_>) {
        if control::records().details() {
            self.live.for_each::<true>(|_, trace, detail| {
                writer.push(PeakTrace::new(trace, self.told(detail)));
            });
        } else {
            self.live.for_each::<false>(|_, trace, detail| {
                writer.push(PeakTrace::new(trace, detail));
            });
        }
        self.tracked.lock().iter().for_each(|trace| writer.push(trace.as_peak()));
    }

    /// Returns how many copies of a peak there have been, and how many there was no room for.
    pub(super) fn n_peak_copies(&self) -> (u64, u64) {
        self.peak.lock().n_copies()
    }

    /// Begins to keep the peak, if copies are wanted. Called under the control lock.
    pub(crate) fn begin_peak(&self, percent: Option<u16>) {
        self.peak.lock().set_percent(percent);
        self.totals.set_shared(percent.is_some());
        self.reset_peak();
    }

    /// Lets no copy be made until [`Self::reset_peak`], and forgets the one there is.
    pub(crate) fn suspend_peak(&self) {
        let mut peak = self.peak.lock();
        peak.forget();
        self.totals.set_threshold(i64::MAX);
    }

    /// Keeps the peak no more.
    pub(crate) fn end_peak(&self) {
        let mut peak = self.peak.lock();
        peak.set_percent(None);
        self.totals.set_threshold(i64::MAX);
        self.totals.set_shared(false);
    }

    /// Makes the peak what is traced now.
    pub(crate) fn reset_peak(&self) {
        // Under the lock, so that no copy of an earlier peak is made meanwhile.
        let mut peak = self.peak.lock();
        peak.forget();
        self.totals.reset_peak();
        self.totals.set_threshold(peak.first_threshold());
    }
}
