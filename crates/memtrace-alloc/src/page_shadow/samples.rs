//! Traces of sampled blocks, of which hardly a page has two at a time.
//!
//! They are kept so that a page goes back to having no entry as soon as its traces are gone, for all later
//! releases to see.

use super::{GRANULE, PageShadow};
use crate::live::{LiveTable, LiveTrace, NoRoom};
use crate::page_directory::PAGE_BITS;
use crate::page_word::{SIZE_LIMIT, Tag, live};
use crate::sampled_pages::SampledPages;
use crate::thread;
use core::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

impl PageShadow {
    /// Records a sampled block, and tells `pages` before the block is handed out. Called in an operation.
    pub(crate) fn insert_sampled(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        pages: &SampledPages,
    ) -> Result<Option<LiveTrace>, NoRoom> {
        let replaced = if self.insert_sample_alone(block_addr, trace)? {
            None
        } else {
            self.insert(block_addr, trace)?
        };
        pages.mark(block_addr);
        Ok(replaced)
    }

    /// Records a block in the entry of its page, whatever the block's size, if no other is there.
    fn insert_sample_alone(&self, block_addr: u64, trace: LiveTrace) -> Result<bool, NoRoom> {
        if !block_addr.is_multiple_of(GRANULE) || trace.size >= SIZE_LIMIT {
            return Ok(false);
        }
        let page = self.directory.page_or_map(block_addr)?;
        let word = live(Tag::of(block_addr), trace);
        page.mark_used()?;
        Ok(page.entry.compare_exchange(0, word, SeqCst, Relaxed).is_ok())
    }

    /// Forgets a block that may have been sampled, and lets `pages` know what is gone. Called in an operation.
    pub(crate) fn take_sampled(&self, block_addr: u64, pages: &SampledPages) -> Option<LiveTrace> {
        let taken = self.take(block_addr);
        // A signal handler may have interrupted who has a lock that is needed here.
        if (taken.is_some() || pages.wants_search(block_addr)) && !thread::holds_lock() {
            if let Some(entry) = self.directory.entry(block_addr) {
                self.scavenge_page(block_addr >> PAGE_BITS, entry);
            }
            pages.clear_unless(block_addr, || self.directory.has_entry_like(block_addr));
        }
        taken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::generation::mix;
    use crate::operation::during;
    use crate::page_directory::CHUNK_BITS;
    use crate::site::SiteId;
    use core::sync::atomic::AtomicBool;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    extern crate std;

    fn tables() -> (&'static PageShadow, &'static SampledPages) {
        let shadow: &'static PageShadow = Box::leak(Box::new(PageShadow::new()));
        assert!(shadow.prepare());
        crate::membarrier::prepare();
        (shadow, Box::leak(Box::new(SampledPages::new())))
    }

    /// As the hook releases, which looks at the page first.
    fn release(
        (shadow, pages): (&PageShadow, &SampledPages),
        block_addr: u64,
        size: u64,
    ) -> Option<LiveTrace> {
        if size < SIZE_LIMIT && pages.has_none(block_addr) {
            return None;
        }
        during(|| shadow.take_sampled(block_addr, pages))
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, u64),
        /// As a resize does.
        Take(u64),
        Release(u64),
        Clear,
    }

    fn ops() -> impl Strategy<Value = Op> {
        // Two pages each in five chunks, of which two and two share their cells.
        let addr = (0..5u64, 0..512u64).prop_map(|(chunk, i)| (chunk << CHUNK_BITS) + i * 16);
        let size = prop_oneof![8 => 1..5000u64, 1 => SIZE_LIMIT - 2..SIZE_LIMIT + 2];
        prop_oneof![
            9 => (addr.clone(), size).prop_map(|(addr, size)| Op::Insert(addr, size)),
            1 => addr.clone().prop_map(Op::Take),
            8 => addr.prop_map(Op::Release),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn no_release_of_a_sample_is_let_go_and_pages_without_samples_are_clear_again(
            ops in prop::collection::vec(ops(), 1..300),
        ) {
            thread::claim_slot();
            let (shadow, pages) = tables();
            let mut oracle = BTreeMap::new();
            let mut met = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(addr, size) => {
                        let held = oracle.insert(addr, size);
                        prop_assert_eq!(
                            release((shadow, pages), addr, held.unwrap_or(0)).map(|trace| trace.size),
                            held
                        );
                        let trace = LiveTrace { size, site: SiteId(1) };
                        prop_assert_eq!(shadow.insert_sampled(addr, trace, pages), Ok(None));
                        met.push(addr);
                    }
                    Op::Take(addr) => {
                        prop_assert_eq!(shadow.take(addr).map(|trace| trace.size), oracle.remove(&addr));
                    }
                    Op::Release(addr) => {
                        let held = oracle.remove(&addr);
                        let taken = release((shadow, pages), addr, held.unwrap_or(0));
                        prop_assert_eq!(taken.map(|trace| trace.size), held);
                    }
                    Op::Clear => {
                        shadow.clear(&mut |_| {});
                        oracle.clear();
                    }
                }
                for (addr, size) in &oracle {
                    prop_assert!(*size >= SIZE_LIMIT || !pages.has_none(*addr), "{addr}");
                }
            }
            // What is left goes. Each page is met so often, and then all let go.
            for (addr, size) in oracle {
                prop_assert!(release((shadow, pages), addr, size).is_some());
            }
            for addr in met.iter().flat_map(|addr| [*addr; 65]) {
                prop_assert_eq!(release((shadow, pages), addr, 0), None);
            }
            prop_assert!(met.iter().all(|&addr| pages.has_none(addr)));
        }
    }

    #[test]
    fn threads_that_share_pages_lose_no_sample() {
        let (shadow, pages) = tables();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Pages of entries, nearly all of which have no sample, come and go meanwhile.
            scope.spawn(|| {
                thread::claim_slot();
                while !is_over.load(Relaxed) {
                    shadow.tend_at_length();
                }
            });
            let threads: [_; 4] = core::array::from_fn(|thread| {
                let thread = thread as u64;
                scope.spawn(move || {
                    thread::claim_slot();
                    let mut held = BTreeMap::new();
                    let mut state = thread;
                    for _ in 0..100_000 {
                        state = mix(state.wrapping_add(1));
                        // Blocks of its own, in two pages that all share, and two that share their cells.
                        let (far, place) = (state & 1, state >> 1 & 127);
                        let addr = (far << 28) + (place * 4 + thread) * 16;
                        match held.remove(&addr) {
                            Some(trace) => {
                                assert!(!pages.has_none(addr), "let go");
                                let taken = during(|| shadow.take_sampled(addr, pages));
                                assert_eq!(taken, Some(trace));
                            }
                            None if state >> 20 & 3 == 0 => {
                                let trace = LiveTrace { size: state >> 50, site: SiteId(3) };
                                during(|| shadow.insert_sampled(addr, trace, pages)).unwrap();
                                held.insert(addr, trace);
                            }
                            None => assert_eq!(release((shadow, pages), addr, 8), None),
                        }
                    }
                    for (addr, trace) in held {
                        assert_eq!(during(|| shadow.take_sampled(addr, pages)), Some(trace));
                    }
                })
            });
            let ends = threads.map(std::thread::ScopedJoinHandle::join);
            is_over.store(true, Relaxed);
            ends.into_iter().for_each(Result::unwrap);
        });
        for addr in [0, 1 << 12, 1 << 28, (1 << 28) + (1 << 12)] {
            assert!((0..65).all(|_| release((shadow, pages), addr, 0).is_none()));
        }
        assert!(pages.has_none(0) && pages.has_none(1 << 12));
    }

    #[test]
    fn all_cells_that_were_marked_at_once_stay_so_until_searched() {
        let (shadow, pages) = tables();
        pages.mark_all();
        assert!((0..1u64 << 16).all(|page| !pages.has_none(page << PAGE_BITS)));
        assert_eq!(shadow.take_sampled(5 << PAGE_BITS, pages), None);
        assert!(pages.has_none(5 << PAGE_BITS) && !pages.has_none(6 << PAGE_BITS));
    }
}
