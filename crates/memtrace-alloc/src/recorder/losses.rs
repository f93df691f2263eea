//! What the recorder could not record, and counts instead.

use super::{RECORDER, Recorder};
use crate::thread;
use core::sync::atomic::Ordering::Relaxed;

/// What was lost for want of memory or by nesting, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Blocks that are not in the table of live blocks: it could not grow, or the address has no
    /// place in it.
    pub n_blocks_without_record: u64,
    /// Blocks recorded without their stack: no room for a new one.
    pub n_blocks_without_site: u64,
    /// Blocks recorded without their thread, generation or time of birth, though these were asked for, and blocks given
    /// back of which it was not counted how long they had lived: no room.
    pub n_blocks_without_detail: u64,
    /// Allocations made inside the recorder (by a signal handler), not recorded.
    pub n_nested: u64,
    /// Peaks that were not copied, though this was asked for: no room.
    pub n_peaks: u64,
}

impl Recorder {
    /// Counts a block of which less is known than was asked for.
    #[cold]
    pub(super) fn count_without_detail(&self) {
        self.n_blocks_without_detail.fetch_add(1, Relaxed);
    }

    /// Counts an allocation inside a guarded section, unless the section leaves it out on purpose.
    #[cold]
    pub(super) fn count_nested(&self) {
        if thread::is_recording() {
            self.n_nested.fetch_add(1, Relaxed);
        }
    }
}

/// Returns what was lost since the process began.
pub fn losses() -> Losses {
    Losses {
        n_blocks_without_record: RECORDER.n_blocks_without_record.load(Relaxed),
        n_blocks_without_site: RECORDER.n_blocks_without_site.load(Relaxed),
        n_blocks_without_detail: RECORDER.n_blocks_without_detail.load(Relaxed),
        n_nested: RECORDER.n_nested.load(Relaxed),
        n_peaks: RECORDER.n_peak_copies().1,
    }
}
