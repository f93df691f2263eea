//! Giving memory back to the system that a shrunken heap's traces need no more.
//!
//! # Mechanism
//!
//! Threads that come by outside of the quick ways, record a block alone in its page, or capture a stack that is not
//! recalled, take turns, one at a time, each a bounded piece of work ([`pace`]): often while there is something to do,
//! else eight times a second.
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
//! 100 to 250 µs; all of the table of two million blocks, 20 MB, in 77 turns and 12 ms. Nothing to do: 0.1 % of a
//! processor.

use super::PageShadow;
use crate::operation::during;
use crate::pace::{self, Pace, RecentMost};
use crate::thread;
use crate::thread_slot::Work;

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
        Self { pace: Pace::new(Work::Tables), blocks: RecentMost::new(), pages: RecentMost::new() }
    }
}

/// Gives back again and again, until there is likely to be no more: other threads, and what is in use, are in the way
/// some of the time.
pub(crate) fn while_fruitful(mut give_back: impl FnMut() -> bool) {
    const N_TRIES: u32 = if cfg!(test) { 4 } else { 32 };
    let mut n_tries = 0u32;
    while n_tries < N_TRIES {
        n_tries = if give_back() { 0 } else { n_tries.saturating_add(1) };
    }
}

impl PageShadow {
    /// Gives memory back if it is the calling thread's turn. To be called outside of operations.
    #[inline]
    pub(crate) fn tend_now_and_then(&self) {
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
        let _ = (0..N_TRIES).any(|_| during(|| self.arrays.free_some()));
        while_fruitful(|| self.tend_arrays(None));
        while_fruitful(|| self.tend_sparse());
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
                self.arrays.free_some();
                self.scavenge()
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::tests::{all, insert, shadow, take, trace};
    use super::*;
    use crate::live::{Detail, LiveTable, LiveTrace};
    use crate::site::SiteId;
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use std::vec::Vec;

    extern crate std;

    /// Other tests' threads are in the way as long as they run.
    fn comes_true(mut is_true: impl FnMut() -> bool) -> bool {
        (0..6000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            is_true()
        })
    }

    #[test]
    fn traces_that_stay_are_there_when_most_are_gone_and_their_memory_has_gone_back() {
        let shadow = shadow();
        const N: u64 = 400_000;
        let addr_of = |i: u64| (7 << 32) + i * 80;
        (0..N).for_each(|i| assert_eq!(insert(shadow, addr_of(i), trace(i)), Ok(None)));
        let full = shadow.arrays.usage();
        let stays = |i: &u64| i % 20_000 < 200;
        (0..N).filter(|i| !stays(i)).for_each(|i| {
            assert_eq!(take(shadow, addr_of(i)), Some(trace(i)));
        });
        assert!(comes_true(|| {
            shadow.tend_at_length();
            shadow.arrays.usage().n_pages < full.n_pages / 10
        }));
        let expected: BTreeMap<_, _> =
            (0..N).filter(stays).map(|i| (addr_of(i), trace(i))).collect();
        assert_eq!(all(shadow), expected);
        // All of it serves again.
        (0..N).filter(|i| !stays(i)).for_each(|i| {
            assert_eq!(insert(shadow, addr_of(i), trace(i + 1)), Ok(None));
        });
        assert!(shadow.arrays.usage().n_pages < full.n_pages * 6 / 5);
        assert_eq!(all(shadow).len() as u64, N);
    }

    #[test]
    fn a_program_that_goes_on_gives_back_what_it_had_without_being_asked() {
        let shadow = shadow();
        const N: u64 = 200_000;
        let addr_of = |i: u64| (9 << 32) + i * 64;
        (0..N).for_each(|i| assert_eq!(insert(shadow, addr_of(i), trace(i)), Ok(None)));
        let full = shadow.arrays.usage();
        (0..N).for_each(|i| assert_eq!(take(shadow, addr_of(i)), Some(trace(i))));
        let go_on = || {
            for i in 0..1000 {
                let addr = (10 << 32) + i * 2048;
                assert_eq!(insert(shadow, addr, trace(2000)), Ok(None));
                assert_eq!(take(shadow, addr), Some(trace(2000)));
                // As the recorder does for such a block, and where it captures a stack anew.
                shadow.tend_now_and_then();
            }
            shadow.arrays.usage().n_pages < full.n_pages / 10
        };
        assert!(comes_true(go_on));
    }

    /// Threads that fill pages and empty them, while another gives back whatever is empty.
    #[test]
    fn nothing_is_lost_while_memory_goes_back_and_serves_again() {
        let shadow = shadow();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let loads: Vec<_> = (0..3u64)
                .map(|t| {
                    let is_done = &is_done;
                    scope.spawn(move || {
                        // One goes without.
                        if t != 2 {
                            thread::claim_slot();
                        }
                        let mut round = t;
                        while !is_done.load(Relaxed) {
                            round += 3;
                            // The same pages of entries, and now and then others.
                            let first = (round % 7) << 30;
                            let size =
                                |i: u64| if i.is_multiple_of(97) { 17 << 20 } else { round + i };
                            let addrs = (0..600).map(|i| (i, first + i * 160 + t * 16));
                            for (i, addr) in addrs.clone() {
                                assert_eq!(insert(shadow, addr, trace(size(i))), Ok(None));
                            }
                            for (i, addr) in addrs {
                                assert_eq!(shadow.get(addr), Some(trace(size(i))));
                                assert_eq!(take(shadow, addr), Some(trace(size(i))), "{addr:#x}");
                            }
                        }
                    })
                })
                .collect();
            for _ in 0..400 {
                shadow.tend_at_length();
            }
            is_done.store(true, Relaxed);
            loads.into_iter().for_each(|load| load.join().unwrap());
        });
        assert!(all(shadow).is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many blocks from an address on, at so many bytes from each other.
        Insert(u64, u64, u8),
        Take(u64, u64, u8),
        Tend,
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn live_blocks_keep_their_details_while_those_of_others_go_back(
            steps in prop::collection::vec(
                prop_oneof![
                    3 => (0..64u64, 1..40u64, any::<u8>())
                        .prop_map(|(page, by, n)| Step::Insert(page << 12, by << 4, n)),
                    3 => (0..64u64, 1..40u64, any::<u8>())
                        .prop_map(|(page, by, n)| Step::Take(page << 12, by << 4, n)),
                    2 => Just(Step::Tend),
                ],
                1..60,
            ),
        ) {
            let shadow = shadow();
            let mut oracle = BTreeMap::new();
            let mut n = 0u32;
            for step in steps {
                match step {
                    Step::Insert(first, by, n_blocks) => {
                        for addr in (0..u64::from(n_blocks)).map(|i| first + i * by) {
                            n += 1;
                            let size = if n.is_multiple_of(50) { 1 << 25 } else { 8 };
                            let trace = LiveTrace { size, site: SiteId(n) };
                            let detail = Detail { thread: n, birth: n * 2 };
                            let held = take(shadow, addr);
                            prop_assert_eq!(held, oracle.remove(&addr).map(|(trace, _)| trace));
                            during(|| {
                                shadow.set_detail(addr, detail).unwrap();
                                insert(shadow, addr, trace).unwrap();
                            });
                            oracle.insert(addr, (trace, detail));
                        }
                    }
                    Step::Take(first, by, n_blocks) => {
                        for addr in (0..u64::from(n_blocks)).map(|i| first + i * by) {
                            let held = take(shadow, addr);
                            prop_assert_eq!(held, oracle.remove(&addr).map(|(trace, _)| trace));
                        }
                    }
                    Step::Tend => {
                        shadow.tend_at_length();
                        while_fruitful(|| shadow.give_back_details(|_| false));
                    }
                }
            }
            let mut seen = BTreeMap::new();
            shadow.for_each::<true>(|addr, trace, detail| {
                assert!(seen.insert(addr, (trace, detail)).is_none());
            });
            prop_assert_eq!(seen, oracle);
        }
    }

    #[test]
    fn a_detail_that_waits_for_its_trace_stays() {
        let shadow = shadow();
        let detail = Detail { thread: 3, birth: 4 };
        let is_given = || {
            let _ = (0..10).filter(|_| shadow.give_back_details(|_| false)).count();
            shadow.detail(64) != detail
        };
        during(|| {
            shadow.set_detail(64, detail).unwrap();
            assert!(!is_given());
            // Nor does another thread give it back.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    thread::claim_slot();
                    assert!(!is_given());
                });
            });
        });
        assert!(comes_true(is_given));
        assert_eq!(shadow.detail(64), Detail::UNKNOWN);
    }
}
