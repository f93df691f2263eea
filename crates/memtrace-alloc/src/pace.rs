//! When work is done that nobody waits for: a little now and then, by a thread that comes by.
//!
//! # Orderings
//!
//! All variables are `Relaxed`: they say when to look, not what is there. Those other than `due_ms` are
//! written by who has the turn; if a turn has taken so long that another began, either is as good.
//!
//! # Cost
//!
//! An addition to a thread's own line; each 16th time a look at the clock, which is no system call.

use crate::recorder::RECORDER;
use crate::thread_slot::{Slot, Work};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memtrace_heap::{PageSource, SystemPages};

/// While there is something to do, and while there is not.
const LEAST_MS: u64 = 1;
const MOST_MS: u64 = 128;
/// Who has not ended a turn by then, or is in another process after a fork, has lost it.
const TURN_MS: u64 = 1000;
/// The time of which [`RecentMost`] tells is one to two of these.
const PERIOD_MS: u64 = 500;

/// Who has the next turn, and when.
pub(crate) struct Pace {
    work: Work,
    due_ms: AtomicU64,
    interval_ms: AtomicU64,
}

impl Pace {
    pub(crate) const fn new(work: Work) -> Self {
        Self { work, due_ms: AtomicU64::new(0), interval_ms: AtomicU64::new(LEAST_MS) }
    }

    /// Returns the time, in milliseconds, if it is the calling thread's turn.
    #[inline]
    pub(crate) fn begin_now_and_then(&self, slot: &Slot) -> Option<u64> {
        if slot.is_turn(self.work) { self.begin() } else { None }
    }

    /// The same without waiting for the thread to come by often.
    #[cold]
    pub(crate) fn begin(&self) -> Option<u64> {
        let now_ms = SystemPages.millis();
        let due_ms = self.due_ms.load(Relaxed);
        let is_mine = now_ms > due_ms
            && self
                .due_ms
                .compare_exchange(due_ms, now_ms.saturating_add(TURN_MS), Relaxed, Relaxed)
                .is_ok();
        is_mine.then_some(now_ms)
    }

    /// Ends a turn that began at `now_ms`.
    pub(crate) fn end(&self, now_ms: u64, is_more: bool) {
        let interval_ms = match self.interval_ms.load(Relaxed) {
            _ if is_more => LEAST_MS,
            before => before.saturating_mul(2).min(MOST_MS),
        };
        self.interval_ms.store(interval_ms, Relaxed);
        self.due_ms.store(now_ms.saturating_add(interval_ms), Relaxed);
    }
}

/// The most that a figure has been in the last half or whole second.
pub(crate) struct RecentMost {
    begun_ms: AtomicU64,
    most: AtomicU64,
    most_before: AtomicU64,
}

impl RecentMost {
    pub(crate) const fn new() -> Self {
        Self {
            begun_ms: AtomicU64::new(0),
            most: AtomicU64::new(0),
            most_before: AtomicU64::new(0),
        }
    }

    /// Learns what the figure is now, and returns the most it has been.
    pub(crate) fn most(&self, now_ms: u64, figure: u64) -> u64 {
        let age_ms = now_ms.saturating_sub(self.begun_ms.load(Relaxed));
        let most = self.most.load(Relaxed);
        if age_ms >= PERIOD_MS {
            let before = if age_ms < 2 * PERIOD_MS { most } else { figure };
            self.most_before.store(before, Relaxed);
            self.most.store(figure, Relaxed);
            self.begun_ms.store(now_ms, Relaxed);
            return before.max(figure);
        }
        self.most.store(most.max(figure), Relaxed);
        most.max(figure).max(self.most_before.load(Relaxed))
    }
}

/// Returns how many blocks there are, about.
pub(crate) fn n_blocks() -> u64 {
    RECORDER.totals.n_blocks()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread_slot::SLOTS;

    #[test]
    fn turns_come_often_while_there_is_something_to_do_and_seldom_while_there_is_not() {
        let pace = Pace::new(Work::Tables);
        let now_ms = pace.begin().unwrap();
        assert_eq!(pace.begin(), None, "it is somebody's turn");
        pace.end(now_ms - 1000, false);
        assert_eq!(pace.interval_ms.load(Relaxed), 2 * LEAST_MS);
        for _ in 0..10 {
            pace.end(now_ms - 1000, false);
        }
        assert_eq!(pace.interval_ms.load(Relaxed), MOST_MS);
        let later_ms = pace.begin().unwrap();
        pace.end(later_ms - 1000, true);
        assert_eq!(pace.interval_ms.load(Relaxed), LEAST_MS);
        assert!(pace.begin().is_some());
    }

    #[test]
    fn each_work_has_its_turn_whatever_the_rhythm_in_which_a_thread_comes_by() {
        let slot = SLOTS.claim().unwrap();
        for rhythm in [[1, 1], [1, 2], [2, 1], [1, 4], [7, 8]] {
            let mut n_turns = [0; 2];
            for _ in 0..64 {
                for (i, work) in [Work::Tables, Work::Details].into_iter().enumerate() {
                    n_turns[i] += (0..rhythm[i]).filter(|_| slot.is_turn(work)).count();
                }
            }
            assert_eq!(n_turns, rhythm.map(|n| n * 4), "{rhythm:?}");
        }
        SLOTS.release(slot);
    }

    #[test]
    fn the_most_of_the_last_second_is_known_and_forgotten_after_it() {
        let most = RecentMost::new();
        assert_eq!(most.most(10_000, 5), 5);
        assert_eq!(most.most(10_100, 9), 9);
        assert_eq!(most.most(10_200, 3), 9);
        assert_eq!(most.most(10_600, 4), 9);
        assert_eq!(most.most(11_050, 4), 9);
        assert_eq!(most.most(11_101, 2), 4);
        assert_eq!(most.most(11_700, 1), 2);
        assert_eq!(most.most(20_000, 1), 1);
    }
}
