//! The table of live blocks that the recorder uses: the words of a pooled heap, if the program's
//! allocator is one, and a page shadow for everything else.
//!
//! # Mechanism
//!
//! With [`Alloc::pooled`](crate::Alloc::pooled) the heap keeps a word for each of its blocks, beside its
//! own records. The trace of a block stands there, in the form of a flat shadow's word: 8 bytes a block, and
//! nothing is searched. What has no such word goes into the [page shadow](crate::page_shadow): blocks that
//! are not of that heap, traces of 4 GiB and more, and all details, which are found by address there as
//! ever. Without such a heap the page shadow is all there is.
//!
//! The trace of a block that was given back unseen stays in its word, and is taken out of the totals when the next
//! block is recorded or released that has the word, or by the sweep of a stop.
//!
//! # Invariants
//!
//! - **I1** A block has a trace in one of the two at most.
//! - **I2** The heap is chosen while `start` probes the hook, before any trace is inserted, and stays.
//! - **I3** A word of the heap is zero or a small head of the flat shadow's.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `heap` | `use_words_of` (Release) | all (Acquire) | nothing: the heap was there before |
//! | word of a block | exchanges of the heap (SeqCst) | `for_each` (Acquire), `clear` (SeqCst) | its detail |
//!
//! With details a scan loads word, detail, and the word again, as that of the flat shadow does.
//!
//! # Cost
//!
//! Beside the page shadow's: none where there is no such heap, whose directory is withheld where there is one
//! ([`PageShadow::refuse_quickly`]); some loads and branches where there is.
#![expect(unsafe_code, reason = "follows the pointer to a heap that lives for ever")]

use crate::flat_shadow::{FlatShadow, small_head, trace_of_small_head};
use crate::lifetime::Birth;
use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};
use crate::operation::during;
use crate::pace::Pace;
use crate::page_shadow::{AtHome, PageShadow, while_fruitful};
use crate::recorder::RECORDER;
use crate::site::SiteId;
use crate::thread;
use crate::thread_slot::Work;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use memtrace_heap::Heap;

/// Asks the one or the other.
macro_rules! ask {
    ($blocks:expr, $table:ident => $ask:expr) => {
        match $blocks.beside() {
            None => {
                let $table = &$blocks.shadow;
                $ask
            }
            Some($table) => $ask,
        }
    };
}

/// All live blocks.
pub(crate) struct LiveBlocks {
    /// Null, or a heap that keeps words.
    heap: AtomicPtr<Heap>,
    shadow: PageShadow,
    /// Times in the place of details: when each block was born, while lifetimes are counted. By address, whoever has the
    /// traces.
    births: FlatShadow,
    /// When details, and times, of blocks that are gone are given back.
    pace: Pace,
}

impl LiveBlocks {
    pub(crate) const fn new() -> Self {
        Self {
            heap: AtomicPtr::new(ptr::null_mut()),
            shadow: PageShadow::new(),
            births: FlatShadow::new(),
            pace: Pace::new(Work::Details),
        }
    }

    /// Maps the first tables; `false` if that fails. Not to be called by two threads at once.
    pub(crate) fn prepare(&self) -> bool {
        let is_prepared = self.shadow.prepare();
        if self.beside().is_some() {
            self.shadow.refuse_quickly();
        }
        is_prepared
    }

    /// Maps what there must be before the first birth is noted; `false` if that fails. Not to be called by two threads
    /// at once.
    pub(crate) fn prepare_births(&self) -> bool {
        self.births.prepare()
    }

    /// Takes the locks for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.shadow.before_fork();
        self.births.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.births.after_fork();
        self.shadow.after_fork();
    }

    /// Notes when the block was born that the caller is about to insert at an address, in the same operation.
    pub(crate) fn set_birth(&self, block_addr: u64, birth: Birth) -> Result<(), NoRoom> {
        self.births.set_detail(block_addr, Detail::from_word(birth.to_word()))
    }

    /// When a block was born that has a trace; what was noted of others may have gone.
    pub(crate) fn birth(&self, block_addr: u64) -> Birth {
        Birth::from_word(self.births.detail(block_addr).to_word())
    }

    /// Keeps traces in the words of `heap` from now on, if it has any and no other was chosen.
    pub(crate) fn use_words_of(&self, heap: &'static Heap) {
        if heap.config().has_block_words() {
            let heap = ptr::from_ref(heap).cast_mut();
            // Whoever was first is the one (I2).
            let _ = self.heap.compare_exchange(ptr::null_mut(), heap, Release, Relaxed);
            self.shadow.refuse_quickly();
        }
    }

    /// Gives memory of details back if it is the calling thread's turn. To be called outside of operations.
    #[inline]
    pub(crate) fn tend_details_now_and_then(&self) {
        if let Some(slot) = thread::slot()
            && let Some(now_ms) = self.pace.begin_now_and_then(slot)
        {
            self.tend_details(now_ms);
        }
    }

    #[cold]
    #[inline(never)]
    fn tend_details(&self, now_ms: u64) {
        let is_more = !thread::holds_lock() && self.give_back_details() && self.give_back_details();
        self.pace.end(now_ms, is_more);
    }

    /// Gives back some pages of details, and of times, of blocks that have no trace. Whether there is likely to be
    /// more.
    fn give_back_details(&self) -> bool {
        let is_live_beside = |addr: u64| {
            let word = self.beside().and_then(|beside| beside.heap.block_word(addr as usize));
            word.is_some_and(|word| word != 0)
        };
        let is_more = self.shadow.give_back_details(is_live_beside);
        // In an operation, as there.
        let is_live = |addr| is_live_beside(addr) || self.shadow.get(addr).is_some();
        during(|| self.births.give_back_details(is_live)) || is_more
    }

    /// Gives memory back to the system, if it is time to, and if there is some that traces and details need no more.
    pub(crate) fn tend_if_due(&self) {
        self.shadow.tend_if_due();
        if thread::slot().is_some()
            && let Some(now_ms) = self.pace.begin()
        {
            self.tend_details(now_ms);
        }
    }

    /// Gives back all that can be, after traces were forgotten.
    pub(crate) fn tend_at_length(&self) {
        self.shadow.tend_at_length();
        if !thread::holds_lock() {
            while_fruitful(|| self.give_back_details());
        }
    }

    /// What the heap's words take, in resident bytes.
    pub(crate) fn word_bytes(&self) -> u64 {
        self.beside().map_or(0, |beside| beside.heap.block_word_bytes() as u64)
    }

    /// The way to traces where no heap keeps them; where one does, its [`AtHome`]
    /// is unknown for every block.
    #[inline(always)]
    pub(crate) fn shadow(&self) -> &PageShadow {
        &self.shadow
    }

    /// Takes the trace of a block if it stands where it is likeliest to, which is nowhere where a heap keeps traces.
    #[inline(always)]
    pub(crate) fn take_at_home(&self, block_addr: u64) -> Option<LiveTrace> {
        let slot = thread::slot()?;
        match self.shadow.take_at_home(slot, block_addr) {
            AtHome::Done(trace) => {
                slot.end();
                Some(trace)
            }
            AtHome::Not(_) => {
                slot.end();
                None
            }
            AtHome::Unknown => self.shadow.take_alone(block_addr),
        }
    }

    #[inline(never)]
    fn take_at_length(&self, block_addr: u64) -> Option<LiveTrace> {
        ask!(self, table => table.take(block_addr))
    }

    /// The way to traces beside the blocks of a heap, if that is where they are kept.
    #[inline(always)]
    pub(crate) fn beside(&self) -> Option<Beside<'_>> {
        // SAFETY: null, or a reference that lives for ever.
        let heap = unsafe { self.heap.load(Acquire).as_ref() }?;
        Some(Beside { heap, shadow: &self.shadow })
    }
}

/// Returns the heap beside whose blocks the traces stand, if tracing was ever started and there is one.
pub fn pooled_heap() -> Option<&'static Heap> {
    RECORDER.live.beside().map(|beside| beside.heap)
}

/// Returns the site of the block beside which a word of [`pooled_heap`] stands; `None` if the block has no
/// trace.
pub fn site_of_word(word: u64) -> Option<SiteId> {
    trace_of_small_head(word).map(|trace| trace.site)
}

/// Traces beside the blocks of a heap, and those that have no word there in a page shadow.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    heap: &'static Heap,
    shadow: &'a PageShadow,
}

impl Beside<'_> {
    /// Records a block in its word, and returns what was recorded there, if it has one and the trace fits it.
    #[inline(always)]
    pub(crate) fn insert_beside(
        self,
        block_addr: u64,
        trace: LiveTrace,
    ) -> Option<Option<LiveTrace>> {
        let replaced = self.heap.swap_block_word(block_addr as usize, small_head(trace)?)?;
        Some(trace_of_small_head(replaced))
    }

    /// Takes the trace that stands in the block's word, if there is one.
    #[inline(always)]
    pub(crate) fn take_beside(self, block_addr: u64) -> Option<LiveTrace> {
        match self.heap.swap_block_word(block_addr as usize, 0) {
            None | Some(0) => None,
            Some(word) => trace_of_small_head(word),
        }
    }

    #[cold]
    #[inline(never)]
    fn insert_apart(self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        self.shadow.insert(block_addr, trace)
    }

    #[cold]
    #[inline(never)]
    fn take_apart(self, block_addr: u64) -> Option<LiveTrace> {
        self.shadow.take(block_addr)
    }
}

impl LiveTable for Beside<'_> {
    #[inline]
    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        match self.insert_beside(block_addr, trace) {
            Some(replaced) => Ok(replaced),
            None => self.insert_apart(block_addr, trace),
        }
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        self.shadow.set_detail(block_addr, detail)
    }

    fn detail(&self, block_addr: u64) -> Detail {
        self.shadow.detail(block_addr)
    }

    #[inline]
    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        self.take_beside(block_addr).or_else(|| self.take_apart(block_addr))
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        let word = self.heap.block_word(block_addr as usize);
        word.and_then(trace_of_small_head).or_else(|| self.shadow.get(block_addr))
    }

    fn for_each<const HAS_DETAILS: bool>(&self, mut visit: impl FnMut(u64, LiveTrace, Detail)) {
        self.heap.for_each_block(|block| {
            let addr = block.block_addr as u64;
            if !HAS_DETAILS {
                if let Some(trace) = trace_of_small_head(block.word) {
                    visit(addr, trace, Detail::UNKNOWN);
                }
                return;
            }
            let mut held = block.word;
            // Comes to an end: each time round, another block has been recorded at this address.
            while let Some(trace) = trace_of_small_head(held) {
                let detail = self.shadow.detail(addr);
                let now = self.heap.block_word(block.block_addr).unwrap_or(0);
                if now == held {
                    return visit(addr, trace, detail);
                }
                held = now;
            }
        });
        self.shadow.for_each::<HAS_DETAILS>(visit);
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        self.heap.take_block_words(|word| {
            if let Some(trace) = trace_of_small_head(word) {
                forgotten(trace);
            }
        });
        self.shadow.clear(forgotten);
    }
}

impl LiveTable for LiveBlocks {
    #[inline]
    fn insert_quickly(&self, block_addr: u64, trace: LiveTrace) -> bool {
        ask!(self, table => table.insert_quickly(block_addr, trace))
    }

    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        ask!(self, table => table.insert(block_addr, trace))
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        // By address either way.
        self.shadow.set_detail(block_addr, detail)
    }

    fn detail(&self, block_addr: u64) -> Detail {
        self.shadow.detail(block_addr)
    }

    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        self.take_at_home(block_addr).or_else(|| self.take_at_length(block_addr))
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        ask!(self, table => table.get(block_addr))
    }

    #[inline(always)]
    fn for_each<const HAS_DETAILS: bool>(&self, visit: impl FnMut(u64, LiveTrace, Detail)) {
        ask!(self, table => table.for_each::<HAS_DETAILS>(visit));
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        ask!(self, table => table.clear(forgotten));
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::alloc::{GlobalAlloc, Layout};
    use memtrace_heap::Config;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    fn table() -> (LiveBlocks, &'static Heap) {
        let heap: &'static Heap = Box::leak(Box::new(Heap::new(Config::new().block_words(true))));
        let table = LiveBlocks::new();
        assert!(table.prepare());
        table.use_words_of(heap);
        (table, heap)
    }

    fn alloc(heap: &Heap, size: usize) -> u64 {
        // SAFETY: the size is not zero.
        let block = unsafe { heap.alloc(Layout::from_size_align(size, 16).unwrap()) };
        assert!(!block.is_null());
        block.addr() as u64
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert { which: usize, size: u64, site: u32 },
        Take { which: usize },
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let which = || 0usize..16;
        // On both sides of the limit of a heap's words.
        let size = prop_oneof![0u64..100_000, u64::from(u32::MAX) - 2..(1 << 33), Just(1 << 50)];
        let step = prop_oneof![
            10 => (which(), size, 0u32..1 << 30)
                .prop_map(|(which, size, site)| Step::Insert { which, size, site }),
            6 => which().prop_map(|which| Step::Take { which }),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 1..100)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn it_agrees_with_a_map(steps in steps()) {
            let (table, heap) = table();
            // Blocks of pools, of runs, directly mapped ones, and ones that are not of the heap.
            let addrs: Vec<u64> = [8, 100, 5000, 60_000, 70_000, 3 << 20, 33 << 20, 34 << 20]
                .into_iter()
                .map(|size| alloc(heap, size))
                .chain((1..=8).map(|i| i * 65_536))
                .collect();
            let mut oracle = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert { which, size, site } => {
                        let trace = LiveTrace { size, site: SiteId(site) };
                        // The hook never finds a trace where it inserts one.
                        let addr = addrs[which];
                        prop_assert_eq!(table.take(addr), oracle.insert(addr, trace));
                        prop_assert_eq!(table.insert(addr, trace), Ok(None));
                    }
                    Step::Take { which } => {
                        prop_assert_eq!(table.take(addrs[which]), oracle.remove(&addrs[which]));
                    }
                    Step::Clear => {
                        let mut n_bytes = 0u64;
                        table.clear(&mut |trace| n_bytes += trace.size);
                        prop_assert_eq!(n_bytes, oracle.values().map(|trace| trace.size).sum());
                        oracle.clear();
                    }
                }
                for &addr in &addrs {
                    prop_assert_eq!(table.get(addr), oracle.get(&addr).copied());
                }
                let mut seen = BTreeMap::new();
                table.for_each::<false>(|addr, trace, _| assert!(seen.insert(addr, trace).is_none()));
                prop_assert_eq!(&seen, &oracle);
            }
        }
    }

    #[test]
    fn a_small_trace_stands_beside_its_block_and_maps_no_chunk() {
        let (table, heap) = table();
        let addr = alloc(heap, 40);
        let trace = LiveTrace { size: 33, site: SiteId(9) };
        assert_eq!(table.insert(addr, trace), Ok(None));
        assert_eq!(heap.block_word(addr as usize), small_head(trace));
        assert_eq!(table.shadow.get(addr), None);
        assert_eq!(table.word_bytes(), 4096);
    }

    #[test]
    fn a_heap_without_words_is_not_used() {
        let heap: &'static Heap = Box::leak(Box::new(Heap::new(Config::new())));
        let table = LiveBlocks::new();
        table.use_words_of(heap);
        assert!(table.beside().is_none());
    }

    #[test]
    fn a_detail_is_that_of_the_trace_it_was_stored_for() {
        let (table, heap) = table();
        let (addr, other) = (alloc(heap, 40), alloc(heap, 40));
        for (addr, n) in [(addr, 1u32), (other, 2)] {
            let trace = LiveTrace { size: n.into(), site: SiteId(n) };
            table.set_detail(addr, Detail { thread: n, birth: n }).unwrap();
            table.insert(addr, trace).unwrap();
        }
        let mut n_seen = 0;
        table.for_each::<true>(|addr, trace, detail| {
            n_seen += 1;
            assert_eq!((detail.thread, detail.birth), (trace.site.0, trace.site.0));
            assert_eq!(table.detail(addr), detail);
        });
        assert_eq!(n_seen, 2);
    }
}
