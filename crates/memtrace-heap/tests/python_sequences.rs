//! Sequences of calls of Python's heap against a plain telling of its rules, step by step.

mod common;
mod python_oracle;

use std::collections::BTreeMap;

use common::CheckedPages;
use memtrace_heap::python::{InvalidFree, PythonHeap, THRESHOLD, Version};
use memtrace_heap::{NoMemory, PAGE_SIZE, PageSource, SystemPages};
use proptest::prelude::*;
use python_oracle::Oracle;

#[derive(Debug, Clone)]
enum Step {
    Allocate {
        size: usize,
        count: usize,
    },
    Resize {
        which: usize,
        size: usize,
    },
    Release {
        which: usize,
        count: usize,
    },
    /// An address near a block that may or may not be one.
    ReleaseNear {
        which: usize,
        distance: isize,
    },
}

/// Few sizes, so that pools fill, and all others now and then; a class of long pools is rare.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => prop::sample::select(vec![512usize, 480, 448, 300, 272]),
        3 => 1usize..=THRESHOLD,
        1 => prop::sample::select(vec![0usize, 513, 600, 4096, 4097, 40_000]),
    ]
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (sizes(), prop_oneof![1usize..4, 1usize..400])
            .prop_map(|(size, count)| Step::Allocate { size, count }),
        2 => (any::<usize>(), sizes()).prop_map(|(which, size)| Step::Resize { which, size }),
        4 => (any::<usize>(), prop_oneof![1usize..4, 1usize..500])
            .prop_map(|(which, count)| Step::Release { which, count }),
        1 => (any::<usize>(), prop_oneof![-40isize..40, -40_000isize..40_000])
            .prop_map(|(which, distance)| Step::ReleaseNear { which, distance }),
    ];
    proptest::collection::vec(step, 1..most)
}

fn versions() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

/// One live block: how many bytes are its caller's, its byte, and its handle in the oracle.
#[derive(Debug, Clone, Copy)]
struct Live {
    size: usize,
    fill: u8,
    handle: usize,
}

/// A heap, the oracle, and what should be in both.
struct Checked<P: PageSource> {
    heap: PythonHeap<P>,
    oracle: Oracle,
    live: BTreeMap<usize, Live>,
    /// Addresses of the live blocks, oldest first but for what was taken out.
    order: Vec<usize>,
    n_fills: u8,
}

impl<P: PageSource> Checked<P> {
    fn new(version: Version, pages: P, is_aligned: bool) -> Checked<P> {
        let heap = PythonHeap::new(version.profile(), pages);
        let oracle = Oracle::new(version, is_aligned);
        Checked { heap, oracle, live: BTreeMap::new(), order: Vec::new(), n_fills: 0 }
    }

    /// Records a block, which must overlap no other and lie where the oracle says.
    fn adopt(&mut self, addr: usize, size: usize, handle: usize) {
        if let Some((below, block)) = self.live.range(..=addr).next_back() {
            assert!(below + block.size.max(1) <= addr, "overlaps the block below");
        }
        if let Some((above, _)) = self.live.range(addr..).next() {
            assert!(addr + size.max(1) <= *above, "overlaps the block above");
        }
        assert_eq!(addr % 16, 0);
        let place = self.heap.place_of(addr);
        let place = place.map(|place| (place.arena as usize, place.pool, place.offset));
        assert_eq!(place, self.oracle.place(handle), "block of {size} bytes");
        assert!(self.heap.usable_size(addr).unwrap() >= size);
        self.n_fills = self.n_fills.wrapping_add(1);
        let block = Live { size, fill: self.n_fills, handle };
        if let Some(pointer) = self.heap.pointer(addr) {
            // SAFETY: a block in use of at least this size.
            unsafe { pointer.as_ptr().write_bytes(block.fill, size) };
        }
        self.live.insert(addr, block);
        self.order.push(addr);
    }

    fn has_contents(&self, addr: usize, len: usize, fill: u8) -> bool {
        self.heap.pointer(addr).is_none_or(|pointer| {
            // SAFETY: a block in use of at least `len` bytes, all written.
            let bytes = unsafe { std::slice::from_raw_parts(pointer.as_ptr(), len) };
            match bytes {
                [] => true,
                // Each byte equals the one before it, compared in one go.
                [first, rest @ ..] => *first == fill && *rest == bytes[..rest.len()],
            }
        })
    }

    fn forget(&mut self, index: usize) -> (usize, Live) {
        let addr = self.order.swap_remove(index);
        (addr, self.live.remove(&addr).unwrap())
    }

    /// Takes one block; `false` if the heap said it was out of memory.
    fn allocate(&mut self, size: usize) -> bool {
        let Some(addr) = self.heap.allocate(size) else { return false };
        let handle = self.oracle.allocate(size);
        self.adopt(addr, size, handle);
        true
    }

    fn resize(&mut self, which: usize, size: usize) -> bool {
        if self.order.is_empty() {
            return true;
        }
        let index = which % self.order.len();
        let Some(now_at) = self.heap.resize(self.order[index], size).unwrap() else {
            let addr = self.order[index];
            let Live { size, fill, .. } = self.live[&addr];
            assert!(self.has_contents(addr, size, fill));
            return false;
        };
        let (addr, old) = self.forget(index);
        assert!(self.has_contents(now_at, old.size.min(size), old.fill));
        let handle = self.oracle.resize(old.handle, size);
        let is_pooled = self.oracle.place(handle).is_some();
        assert!(!is_pooled || (addr == now_at) == (handle == old.handle));
        self.adopt(now_at, size, handle);
        true
    }

    fn release(&mut self, which: usize) {
        if self.order.is_empty() {
            return;
        }
        let (addr, block) = self.forget(which % self.order.len());
        assert!(self.has_contents(addr, block.size, block.fill));
        assert_eq!(self.heap.release(addr), Ok(()));
        self.oracle.release(block.handle);
        let second = self.heap.release(addr);
        assert!(matches!(second, Err(InvalidFree::Double | InvalidFree::Foreign)), "{second:?}");
        assert_eq!(self.heap.resize(addr, 16), second.map(|()| None));
    }

    fn release_near(&mut self, which: usize, distance: isize) {
        if self.order.is_empty() {
            return;
        }
        let addr = self.order[which % self.order.len()].wrapping_add_signed(distance);
        if !self.live.contains_key(&addr) {
            let before = self.heap.stats();
            assert!(self.heap.release(addr).is_err());
            assert!(self.heap.resize(addr, 100).is_err());
            assert_eq!((self.heap.place_of(addr), self.heap.pointer(addr)), (None, None));
            assert_eq!(self.heap.stats(), before);
        }
    }

    /// Runs one step; returns how often the heap said it was out of memory.
    fn run(&mut self, step: &Step) -> usize {
        match *step {
            Step::Allocate { size, count } => (0..count).filter(|_| !self.allocate(size)).count(),
            Step::Resize { which, size } => usize::from(!self.resize(which, size)),
            Step::Release { which, count } => {
                (0..count).for_each(|_| self.release(which));
                0
            }
            Step::ReleaseNear { which, distance } => {
                self.release_near(which, distance);
                0
            }
        }
    }

    /// The figures against the oracle's, and the heap's own recount.
    fn check(&self) {
        assert_eq!(self.heap.verify(), Ok(()));
        let stats = self.heap.stats();
        assert!(stats.identity_holds());
        assert_eq!(stats.allocated_blocks(), self.live.len());
        let oracle = &self.oracle;
        let arenas = (stats.n_arenas_total as usize, stats.n_arenas_high_water, stats.n_arenas);
        assert_eq!(arenas, oracle.arena_counts());
        assert_eq!(stats.n_pools_unused, oracle.n_pools_unused());
        for (index, class) in stats.classes.iter().enumerate() {
            assert_eq!((class.n_pools, class.n_blocks_used), oracle.class_counts(index));
        }
    }

    fn free_all(&mut self) {
        while !self.order.is_empty() {
            self.release(0);
        }
        self.check();
        let n_kept = usize::from(self.heap.profile().keeps_last_arena());
        assert!(self.heap.stats().n_arenas <= n_kept);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_places_blocks_by_the_rules(
        version in versions(),
        is_aligned in any::<bool>(),
        steps in steps(60),
    ) {
        let pages = NoMemory::misaligned_by(if is_aligned { 0 } else { PAGE_SIZE });
        let mut checked = Checked::new(version, pages, is_aligned);
        for step in &steps {
            prop_assert_eq!(checked.run(step), 0);
            checked.check();
        }
        checked.free_all();
    }

    #[test]
    fn any_sequence_keeps_contents_over_real_memory_and_unmaps_all_of_it(
        version in versions(),
        steps in steps(40),
    ) {
        let pages = CheckedPages::default();
        {
            let mut checked = Checked::new(version, &pages, true);
            for step in &steps {
                prop_assert_eq!(checked.run(step), 0);
                checked.check();
            }
        }
        prop_assert_eq!(pages.n_mapped_bytes(), 0, "dropped with blocks in use");
    }
}

/// Enough for several arenas (more than there are places for at first, where they are small), for
/// all tables to grow, and for arenas to go and come.
fn hungry_steps(version: Version) -> Vec<Step> {
    let arena_size = version.profile().arena_size();
    let n_arenas = if arena_size < 1 << 20 { 9 } else { 2 };
    let mut steps = vec![Step::Allocate { size: 512, count: n_arenas * arena_size / 512 }];
    steps.extend((0..70).map(|index| Step::Allocate { size: 600 + index * 500, count: 1 }));
    let resizes = (0..60).map(|index| (index * 97, 10 + index * 379 % 2000));
    steps.extend(resizes.map(|(which, size)| Step::Resize { which, size }));
    steps.push(Step::Release { which: 17, count: (n_arenas - 1) * arena_size / 512 });
    steps.push(Step::Allocate { size: 300, count: arena_size / 300 });
    steps
}

#[test]
fn a_failure_of_any_single_call_is_one_none_and_no_harm() {
    for version in [Version::V3_6, Version::V3_9, Version::V3_10] {
        let steps = hungry_steps(version);
        let pages = CheckedPages::default();
        let mut checked = Checked::new(version, &pages, true);
        assert!(steps.iter().all(|step| checked.run(step) == 0));
        checked.check();
        drop(checked);
        let n_calls = pages.n_calls();
        assert!(n_calls > 90, "{n_calls} calls");

        let mut n_with_none = 0;
        for first_failing in 1..=n_calls {
            let pages = CheckedPages::failing(first_failing, 1);
            let mut checked = Checked::new(version, &pages, true);
            let n_nones: usize = steps.iter().map(|step| checked.run(step)).sum();
            // A remap that fails is made up for by a copy; everything else shows as one `None`.
            assert!(n_nones <= 1, "{version}, call {first_failing}: {n_nones}");
            n_with_none += n_nones;
            checked.check();
            checked.free_all();
            drop(checked);
            assert_eq!(pages.n_mapped_bytes(), 0, "{version}, call {first_failing}");
        }
        assert!(n_with_none > 80, "{n_with_none} of {n_calls}");
    }
}

#[test]
fn a_call_that_fails_changes_no_figure() {
    for version in Version::ALL {
        for first_failing in 1..12 {
            let pages = CheckedPages::failing(first_failing, 1);
            let mut heap = PythonHeap::new(version.profile(), &pages);
            let mut n_nones = 0;
            for size in [512, 0, 16, 5000, 64] {
                let mut before = heap.stats();
                if heap.allocate(size).is_none() {
                    n_nones += 1;
                    // Tables that have grown stay so, and the tree may have a node.
                    let now = heap.stats();
                    before.record_bytes = now.record_bytes;
                    before.n_map_middle_nodes = now.n_map_middle_nodes;
                    before.n_map_bottom_nodes = now.n_map_bottom_nodes;
                    assert_eq!(now, before);
                    assert_eq!(heap.verify(), Ok(()));
                    assert!(heap.allocate(size).is_some());
                }
            }
            assert!(n_nones <= 1);
        }
    }
}

#[test]
fn addresses_that_are_no_blocks_are_told_apart() {
    let mut heap = PythonHeap::new(Version::V3_11.profile(), SystemPages);
    assert_eq!(heap.release(0), Err(InvalidFree::Foreign));
    let block = heap.allocate(100).unwrap();
    let raw = heap.allocate(1000).unwrap();
    for (addr, reason) in [
        (block + 1, InvalidFree::Misaligned),
        (block + 16, InvalidFree::Misaligned),
        (block - 48, InvalidFree::Misaligned),
        // The next block, which the free list holds, and one never carved.
        (block + 112, InvalidFree::Double),
        (block + 50 * 112, InvalidFree::Double),
        // The tail of the pool, the next pool, which is not carved, and inside a raw block.
        (block - 48 + 16384 - 16, InvalidFree::Misaligned),
        (block - 48 + 16384, InvalidFree::Foreign),
        (raw + 16, InvalidFree::Foreign),
        (usize::MAX, InvalidFree::Foreign),
    ] {
        assert_eq!(heap.release(addr), Err(reason), "{:#x}", addr.wrapping_sub(block));
        assert_eq!(heap.resize(addr, 8), Err(reason));
        assert_eq!(heap.place_of(addr), None);
    }
    assert_eq!(heap.verify(), Ok(()));
    assert_eq!((heap.release(block), heap.release(raw)), (Ok(()), Ok(())));
    assert_eq!(heap.release(block), Err(InvalidFree::Double));
    assert_eq!(heap.release(raw), Err(InvalidFree::Foreign));
}

#[test]
fn sizes_no_memory_has_are_none() {
    let mut heap = PythonHeap::new(Version::V3_13.profile(), SystemPages);
    assert_eq!(heap.allocate(usize::MAX), None);
    assert_eq!(heap.allocate(1 << 62), None);
    for size in [100, 1000] {
        let block = heap.allocate(size).unwrap();
        assert_eq!(heap.resize(block, usize::MAX), Ok(None));
        assert_eq!(heap.resize(block, 1 << 62), Ok(None));
        assert_eq!(heap.release(block), Ok(()));
    }
    assert_eq!(heap.verify(), Ok(()));
}
