//! Sequences of calls against a map of ranges: no overlap, alignment, contents, exact counters.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;

use common::CheckedPages;
use memtrace_heap::{Config, Heap, PAGE_SIZE, PageSource, SizeClass, UNIT_SIZE};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Alloc { size: usize, align_shift: u32, is_zeroed: bool },
    Realloc { which: usize, new_size: usize },
    Dealloc { which: usize },
}

/// Sizes from every range: small, between the classes, around the limit to runs, runs of few and many
/// units, runs in big arenas.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        80 => 1usize..600,
        60 => 600usize..66_000,
        30 => 65_300usize..65_800,
        20 => 66_000usize..400_000,
        2 => 400_000usize..2_200_000,
        1 => 2_000_000usize..4_000_000,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let aligns = prop_oneof![6 => 0u32..5, 2 => 5u32..13, 1 => 13u32..21];
    let step = prop_oneof![
        4 => (sizes(), aligns, any::<bool>())
            .prop_map(|(size, align_shift, is_zeroed)| Step::Alloc { size, align_shift, is_zeroed }),
        2 => (any::<usize>(), sizes()).prop_map(|(which, new_size)| Step::Realloc { which, new_size }),
        3 => any::<usize>().prop_map(|which| Step::Dealloc { which }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// One live block: where, for which layout, and the byte it is filled with.
#[derive(Debug)]
struct Live {
    ptr: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Live {
    fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: a live block of at least `len` bytes, all written.
        unsafe { std::slice::from_raw_parts(self.ptr, len) }
    }

    fn is_filled(&self, len: usize) -> bool {
        is_filled(self.bytes(len), self.fill)
    }

    fn write(&self) {
        // SAFETY: a live block of this size.
        unsafe { self.ptr.write_bytes(self.fill, self.layout.size()) };
    }
}

/// Whether all bytes are `fill`: the first is, and each equals the one before it (which compares
/// memory in one go, where a closure for each byte would take most of the tests' time).
fn is_filled(bytes: &[u8], fill: u8) -> bool {
    match bytes {
        [] => true,
        [first, rest @ ..] => *first == fill && *rest == bytes[..rest.len()],
    }
}

/// A heap and what should be in it.
struct Checked<P: PageSource> {
    heap: Heap<P>,
    live: BTreeMap<usize, Live>,
    n_fills: u8,
}

impl<P: PageSource> Checked<P> {
    fn new(pages: P) -> Checked<P> {
        Checked { heap: Heap::with_pages(Config::new(), pages), live: BTreeMap::new(), n_fills: 0 }
    }

    fn pick(&mut self, which: usize) -> Option<Live> {
        let index = which % self.live.len().max(1);
        let addr = *self.live.keys().nth(index)?;
        self.live.remove(&addr)
    }

    /// Records a block, which must be aligned and overlap no other.
    fn adopt(&mut self, ptr: *mut u8, layout: Layout) {
        let addr = ptr.addr();
        assert_eq!(addr % layout.align(), 0, "{layout:?}");
        if let Some((below, block)) = self.live.range(..=addr).next_back() {
            assert!(below + block.layout.size() <= addr, "overlaps the block below");
        }
        if let Some((above, _)) = self.live.range(addr..).next() {
            assert!(addr + layout.size() <= *above, "overlaps the block above");
        }
        self.n_fills = self.n_fills.wrapping_add(1);
        let block = Live { ptr, layout, fill: self.n_fills | 1 };
        block.write();
        self.live.insert(addr, block);
    }

    /// Runs one step; `false` if the heap said it was out of memory.
    fn run(&mut self, step: &Step) -> bool {
        match *step {
            Step::Alloc { size, align_shift, is_zeroed } => {
                let layout = Layout::from_size_align(size, 1 << align_shift).unwrap();
                let ptr = if is_zeroed {
                    // SAFETY: the size is not zero.
                    unsafe { self.heap.alloc_zeroed(layout) }
                } else {
                    // SAFETY: the size is not zero.
                    unsafe { self.heap.alloc(layout) }
                };
                if ptr.is_null() {
                    return false;
                }
                if is_zeroed {
                    let block = Live { ptr, layout, fill: 0 };
                    assert!(block.is_filled(size), "{layout:?}");
                }
                self.adopt(ptr, layout);
            }
            Step::Realloc { which, new_size } => {
                let Some(old) = self.pick(which) else { return true };
                // SAFETY: a live block with its layout; the new size is not zero.
                let ptr = unsafe { self.heap.realloc(old.ptr, old.layout, new_size) };
                if ptr.is_null() {
                    // The old block is as it was.
                    self.live.insert(old.ptr.addr(), old);
                    return false;
                }
                let n_kept = old.layout.size().min(new_size);
                let moved = Live { ptr, ..old };
                assert!(moved.is_filled(n_kept));
                let layout = Layout::from_size_align(new_size, old.layout.align()).unwrap();
                self.adopt(ptr, layout);
            }
            Step::Dealloc { which } => {
                let Some(old) = self.pick(which) else { return true };
                assert!(old.is_filled(old.layout.size()));
                // SAFETY: a live block with its layout.
                unsafe { self.heap.dealloc(old.ptr, old.layout) };
            }
        }
        true
    }

    /// The counters against the record, and the heap's own recount.
    fn check(&self) {
        assert_eq!(self.heap.verify(), Ok(()));
        let stats = self.heap.stats();
        assert!(stats.identities_hold());
        assert_eq!(stats.invalid_frees.n_total(), 0);
        assert_eq!(stats.n_blocks_used(), self.live.len());
        let requested: usize = self.live.values().map(|block| block.layout.size()).sum();
        assert_eq!(stats.requested_bytes(), requested);
        for (index, class) in stats.classes.iter().enumerate() {
            let of_class =
                |block: &&Live| SizeClass::of(block.layout) == SizeClass::from_index(index);
            let blocks = self.live.values().filter(of_class);
            assert_eq!(class.n_blocks_used, blocks.clone().count());
            let requested: usize = blocks.map(|block| block.layout.size()).sum();
            assert_eq!(class.requested_bytes, requested);
        }
    }

    fn free_all(&mut self) {
        while self.pick_and_free() {}
        let stats = self.heap.stats();
        assert_eq!((stats.n_blocks_used(), stats.requested_bytes()), (0, 0));
        self.check();
        self.heap.purge();
        let stats = self.heap.stats();
        assert!(stats.arenas.n_current <= 1 && stats.big_arenas.n_current <= 1);
        assert_eq!(stats.arenas.n_units_unused_dirty, 0);
        self.check();
    }

    fn pick_and_free(&mut self) -> bool {
        let any = !self.live.is_empty();
        self.run(&Step::Dealloc { which: 0 });
        any
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_keeps_blocks_apart_and_counters_exact(steps in steps()) {
        let pages = CheckedPages::default();
        {
            let mut checked = Checked::new(&pages);
            for step in &steps {
                prop_assert!(checked.run(step));
                checked.check();
                prop_assert_eq!(checked.heap.stats().mapped_bytes(), pages.n_mapped_bytes());
            }
            checked.free_all();
            prop_assert_eq!(checked.heap.stats().mapped_bytes(), pages.n_mapped_bytes());
        }
        prop_assert_eq!(pages.n_mapped_bytes(), 0);
    }
}

/// Blocks of every kind, enough for several arenas and for both tables to grow.
fn hungry_steps() -> Vec<Step> {
    let alloc = |size, align_shift| Step::Alloc { size, align_shift, is_zeroed: size % 2 == 0 };
    let mut steps = Vec::new();
    for index in 0..420 {
        steps.push(alloc(32 * 1024 - index % 3, 0));
        if index % 4 == 0 {
            // Aligned so that it is mapped by itself.
            steps.push(alloc(PAGE_SIZE * 9 + index, 20));
            steps.push(Step::Realloc { which: index * 31, new_size: 40_000 + 100 * index });
        }
        if index % 100 == 0 {
            steps.push(alloc(2_500_000, 0));
        }
        if index % 5 == 0 {
            steps.push(alloc(1 + index, 4));
            steps.push(Step::Realloc { which: index * 17, new_size: 1 + index * 3 });
        }
    }
    steps
}

#[test]
fn a_failure_of_any_single_call_is_one_null_and_no_harm() {
    let steps = hungry_steps();
    let pages = CheckedPages::default();
    let mut checked = Checked::new(&pages);
    assert!(steps.iter().all(|step| checked.run(step)));
    checked.check();
    assert!(checked.heap.stats().arenas.n_current >= 3);
    drop(checked);
    let n_calls = pages.n_calls();
    assert!(n_calls > 120, "{n_calls} calls");

    let mut n_with_null = 0;
    for first_failing in 1..=n_calls {
        let pages = CheckedPages::failing(first_failing, 1);
        let mut checked = Checked::new(&pages);
        let n_nulls = steps.iter().filter(|step| !checked.run(step)).count();
        // A remap that fails is made up for by a copy; everything else shows as one null.
        assert!(n_nulls <= 1, "call {first_failing}: {n_nulls} nulls");
        n_with_null += n_nulls;
        checked.check();
        checked.free_all();
        drop(checked);
        assert_eq!(pages.n_mapped_bytes(), 0, "call {first_failing}");
    }
    assert!(n_with_null > 80, "{n_with_null} nulls");
}

#[test]
fn a_source_that_runs_dry_gives_nulls_until_it_recovers() {
    let steps = hungry_steps();
    for first_failing in [1, 2, 3, 4, 5, 6, 7, 20, 100] {
        let pages = CheckedPages::failing(first_failing, 30);
        let mut checked = Checked::new(&pages);
        let n_nulls = steps.iter().filter(|step| !checked.run(step)).count();
        assert!(n_nulls > 0);
        checked.check();
        checked.free_all();
        drop(checked);
        assert_eq!(pages.n_mapped_bytes(), 0);
    }
}

#[test]
fn sizes_no_memory_has_are_null() {
    let heap = Heap::new(Config::new());
    for (size, align) in
        [(isize::MAX as usize, 1), (1 << 62, 4096), (1, 1 << 62), (1 << 40, 1 << 60)]
    {
        let layout = Layout::from_size_align(size, align).unwrap();
        // SAFETY: the size is not zero.
        assert!(unsafe { heap.alloc(layout) }.is_null());
    }
    let layout = Layout::new::<[u8; 100_000]>();
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(layout) };
    // SAFETY: a live block; the new size is valid and not to be had.
    assert!(unsafe { heap.realloc(ptr, layout, isize::MAX as usize) }.is_null());
    assert_eq!(heap.stats().requested_bytes(), 100_000);
    // SAFETY: still a live block.
    unsafe { heap.dealloc(ptr, layout) };
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!(heap.stats().n_blocks_used(), 0);
}

#[test]
fn a_mapped_block_grows_by_remapping_and_shrinks_in_place() {
    let pages = CheckedPages::default();
    let heap = Heap::with_pages(Config::new(), &pages);
    let layout = |pages: usize| Layout::from_size_align(pages * PAGE_SIZE, 8).unwrap();
    // SAFETY: the size is not zero.
    let mut ptr = unsafe { heap.alloc(layout(10_000)) };
    // SAFETY: a live block of 10,000 pages.
    unsafe { ptr.write_bytes(1, 16 * PAGE_SIZE) };
    for (old, new) in [(10_000, 10_001), (10_001, 40_000), (40_000, 9_000)] {
        // SAFETY: a live block with its layout.
        ptr = unsafe { heap.realloc(ptr, layout(old), new * PAGE_SIZE) };
        assert!(!ptr.is_null());
        assert_eq!(heap.stats().mappings.mapped_bytes, new * PAGE_SIZE);
        // SAFETY: a live block of at least 9,000 pages.
        assert_eq!(unsafe { ptr.wrapping_add(16 * PAGE_SIZE - 1).read() }, 1);
    }
    assert_eq!(heap.stats().mappings.n_total, 1, "never copied");
    assert_eq!(heap.stats().mappings.mapped_bytes_high_water, 40_000 * PAGE_SIZE);
    // SAFETY: a live block with its layout.
    unsafe { heap.dealloc(ptr, layout(9_000)) };
    assert_eq!(heap.stats().mappings.mapped_bytes, 0);
}

#[test]
fn a_run_grows_into_unused_units_and_shrinks_without_moving() {
    let heap = Heap::new(Config::new());
    let layout = |units: usize| Layout::from_size_align(units * UNIT_SIZE, 8).unwrap();
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(layout(2)) };
    for (old, new) in [(2, 3), (3, 30), (30, 5), (5, 6)] {
        // SAFETY: a live block with its layout.
        assert_eq!(unsafe { heap.realloc(ptr, layout(old), new * UNIT_SIZE) }, ptr);
        assert_eq!(heap.stats().runs.mapped_bytes, new * UNIT_SIZE);
        assert_eq!(heap.verify(), Ok(()));
    }
    // SAFETY: the size is not zero.
    let behind = unsafe { heap.alloc(layout(2)) };
    // SAFETY: a live block with its layout.
    let moved = unsafe { heap.realloc(ptr, layout(6), 7 * UNIT_SIZE) };
    assert_ne!(moved, ptr, "a block stands behind it");
    for (ptr, units) in [(behind, 2), (moved, 7)] {
        // SAFETY: a live block with its layout.
        unsafe { heap.dealloc(ptr, layout(units)) };
    }
    assert_eq!((heap.stats().runs.n_current, heap.stats().runs.mapped_bytes), (0, 0));
}

#[test]
fn a_gibibyte_of_zeroes_touches_no_page() {
    let heap = Heap::new(Config::new());
    let layout = Layout::from_size_align(1 << 30, 1).unwrap();
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc_zeroed(layout) };
    assert!(!ptr.is_null());
    let mut residency = vec![0u8; layout.size() / PAGE_SIZE];
    // SAFETY: the range is mapped, and there is one byte for each page of it.
    let error = unsafe { libc::mincore(ptr.cast(), layout.size(), residency.as_mut_ptr()) };
    assert_eq!(error, 0);
    assert_eq!(residency.iter().filter(|&&page| page & 1 != 0).count(), 0);
    // SAFETY: a live block with its layout.
    unsafe { heap.dealloc(ptr, layout) };
}

#[test]
fn a_heap_that_moves_keeps_its_blocks() {
    let heap = Heap::new(Config::new());
    let layout = Layout::new::<[u64; 5]>();
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(layout) };
    let moved = Box::new(heap);
    assert_eq!(moved.stats().requested_bytes(), 40);
    // SAFETY: a live block with its layout.
    unsafe { moved.dealloc(ptr, layout) };
    assert_eq!(moved.stats().requested_bytes(), 0);
    assert!(moved.stats().is_fork_safe);
}
