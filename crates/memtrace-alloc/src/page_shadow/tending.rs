//! Giving memory back to the system that a shrunken heap's traces need no more.
//!
//! # Mechanism
//!
//! Threads that come by outside of the quick ways take turns, one at a time, each a bounded piece of work
//! ([`pace`](crate::pace)): often while there is something to do, else eight times a second.
//!
//! If arrays have more than twice as many words as there have been blocks in the last second, and more than a
//! MiB, some pages of heap are looked at for arrays that are empty. Pages of arrays that are free as a whole go
//! back, but for those that were in use in the last second; so do pages of entries and of a flat shadow's words in
//! which there is nothing. So a program whose heap grows and shrinks all the time keeps what it needs, and one that
//! has had its peak gives back as it goes on.
//!
//! # Cost
//!
//! A turn looks at up to 2048 entries, and at the arrays of those that have one, and gives back up to 1 MiB:
//! some 100 µs. Nothing to do: 0.1 % of a processor.

use super::{PageShadow, during};
use crate::pace::{self, Pace, RecentMost};
use crate::thread;

/// Words that arrays may have beyond what blocks need.
const N_SPARE_WORDS: u64 = if cfg!(test) { 0 } else { 1 << 17 };
/// Pages that stay in any case.
const N_SPARE_PAGES: u64 = if cfg!(test) { 0 } else { 64 };
/// Pages that one turn gives back.
const N_PAGES: u64 = 256;
/// If so many arrays are found to be empty it is worth going on.
const N_WORTHWHILE: usize = 64;

pub(super) struct Tending {
    pace: Pace,
    blocks: RecentMost,
    pages: RecentMost,
}

impl Tending {
    pub(super) const fn new() -> Self {
        Self { pace: Pace::new(), blocks: RecentMost::new(), pages: RecentMost::new() }
    }
}

impl PageShadow {
    /// Gives memory back if it is the calling thread's turn. To be called outside of operations.
    #[inline]
    pub(super) fn tend_now_and_then(&self) {
        if let Some(slot) = thread::slot()
            && let Some(now_ms) = self.tending.pace.begin_now_and_then(slot)
        {
            self.tend(now_ms);
        }
    }

    /// The same for who comes by seldom.
    #[cold]
    pub(crate) fn tend_if_due(&self) {
        if thread::slot().is_some()
            && let Some(now_ms) = self.tending.pace.begin()
        {
            self.tend(now_ms);
        }
    }

    #[cold]
    #[inline(never)]
    fn tend(&self, now_ms: u64) {
        // A signal handler may have interrupted who has a lock that is needed here.
        let is_more = !thread::holds_lock() && {
            let is_more = self.tend_arrays(Some(now_ms));
            self.tend_sparse() || is_more
        };
        self.tending.pace.end(now_ms, is_more);
    }

    /// Gives back all that can be, after traces were forgotten.
    #[cold]
    pub(crate) fn tend_at_length(&self) {
        if thread::holds_lock() {
            return;
        }
        // Other threads may be in the way for a moment.
        const N_TRIES: usize = 8;
        let _ = (0..N_TRIES).any(|_| during(|| self.arrays.free_waiting()));
        while self.tend_arrays(None) {}
        while self.tend_sparse() {}
    }

    /// Gives back arrays, and pages of them: without a time as if nothing had been in use just before. Whether there
    /// is likely to be more.
    fn tend_arrays(&self, now_ms: Option<u64>) -> bool {
        let usage = self.arrays.usage();
        let most = |recent: &RecentMost, now: u64| now_ms.map_or(now, |ms| recent.most(ms, now));
        let n_blocks = most(&self.tending.blocks, pace::n_blocks());
        let n_wanted = n_blocks.saturating_mul(2).saturating_add(N_SPARE_WORDS);
        let mut n_found = 0;
        if usage.n_words as u64 > n_wanted {
            n_found = during(|| {
                let n_found = self.scavenge();
                if n_found != 0 {
                    self.arrays.free_waiting();
                }
                n_found
            });
        }
        let usage = self.arrays.usage();
        let n_used = usage.n_pages.saturating_sub(usage.n_whole) as u64;
        let n_kept = most(&self.tending.pages, n_used).saturating_sub(n_used);
        let n_spare = (usage.n_whole as u64).saturating_sub(n_kept).saturating_sub(N_SPARE_PAGES);
        let n_given = self.arrays.give_back_pages(n_spare.min(N_PAGES) as usize);
        n_found >= N_WORTHWHILE || n_given as u64 == N_PAGES
    }

    /// Gives back pages of entries and of the flat shadow's words. Whether there is likely to be more.
    fn tend_sparse(&self) -> bool {
        // In operations, so that one which a signal handler interrupts is seen.
        let is_more = during(|| self.directory.give_back_pages());
        during(|| self.flat.give_back_words()) || is_more
    }
}
