//! The model places as the heap does.

use std::alloc::{GlobalAlloc, Layout};

use memtrace_heap::{
    ArenaView, Config, Heap, HeapMap, Model, PageSource, Purge, SystemPages, UNIT_SIZE,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Allocate { size: usize, align_shift: u32 },
    Resize { which: usize, new_size: usize },
    Release { which: usize },
    Purge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = || {
        prop_oneof![
            12 => 1usize..1000,
            8 => 1000usize..66_000,
            6 => 66_000usize..900_000,
            2 => 900_000usize..9_000_000,
        ]
    };
    let aligns = prop_oneof![6 => 0u32..5, 2 => 5u32..13, 1 => 13u32..17];
    let step = prop_oneof![
        20 => (sizes(), aligns).prop_map(|(size, align_shift)| Step::Allocate { size, align_shift }),
        8 => (any::<usize>(), sizes()).prop_map(|(which, new_size)| Step::Resize { which, new_size }),
        14 => any::<usize>().prop_map(|which| Step::Release { which }),
        1 => Just(Step::Purge),
    ];
    proptest::collection::vec(step, 1..150)
}

/// The system's pages without its clock.
struct Clockless;

// SAFETY: every result is one of SystemPages.
unsafe impl PageSource for Clockless {
    fn map(&self, size: usize, align: usize) -> *mut u8 {
        SystemPages.map(size, align)
    }

    unsafe fn unmap(&self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.unmap(ptr, size) }
    }

    unsafe fn discard(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.discard(ptr, size) }
    }
}

/// Where a block is, apart from where the arenas are: whether its arena is big, the arena's number, and
/// the distance from its base in bytes.
type Place = (bool, u64, usize);

fn place_of(map: HeapMap<'_>, addr: usize) -> Option<Place> {
    let holds =
        |arena: &ArenaView| (arena.base_addr..arena.base_addr + arena.n_bytes()).contains(&addr);
    let arena = map.arenas().find(holds)?;
    Some((arena.is_big(), arena.number, addr - arena.base_addr))
}

/// Runs the same steps on both and compares where the blocks are.
fn compare<P: PageSource>(heap: &Heap<P>, model: &Model, steps: &[Step]) {
    let mut live: Vec<(*mut u8, usize, Layout)> = Vec::new();
    for step in steps {
        match *step {
            Step::Allocate { size, align_shift } => {
                let layout = Layout::from_size_align(size, 1 << align_shift).unwrap();
                // SAFETY: the size is not zero.
                let real = unsafe { heap.alloc(layout) };
                assert!(!real.is_null());
                live.push((real, model.allocate(layout).unwrap(), layout));
            }
            Step::Resize { which, new_size } if !live.is_empty() => {
                let index = which % live.len();
                let (real, modelled, layout) = live[index];
                // SAFETY: a live block with its layout; the new size is not zero.
                let real = unsafe { heap.realloc(real, layout, new_size) };
                assert!(!real.is_null());
                let modelled = model.resize(modelled, layout, new_size).unwrap();
                let layout = Layout::from_size_align(new_size, layout.align()).unwrap();
                live[index] = (real, modelled, layout);
            }
            Step::Release { which } if !live.is_empty() => {
                let (real, modelled, layout) = live.swap_remove(which % live.len());
                // SAFETY: a live block with its layout.
                unsafe { heap.dealloc(real, layout) };
                model.release(modelled, layout);
            }
            Step::Purge => assert_eq!(heap.purge(), model.purge()),
            Step::Resize { .. } | Step::Release { .. } => {}
        }
        for &(real, modelled, layout) in &live {
            let place = place_of(model.map(), modelled);
            assert_eq!(place_of(heap.map(), real.addr()), place, "{layout:?} after {step:?}");
            assert!(place.is_some());
        }
    }
    // All figures are the same, as long as nothing is in a table by address.
    let (real, modelled) = (heap.stats(), model.stats());
    assert_eq!(real.classes, modelled.classes);
    assert_eq!((real.arenas, real.big_arenas), (modelled.arenas, modelled.big_arenas));
    assert_eq!(real.runs, modelled.runs);
    assert_eq!(model.verify(), Ok(()));
    for (real, _, layout) in live {
        // SAFETY: a live block with its layout.
        unsafe { heap.dealloc(real, layout) };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_model_places_every_block_where_the_heap_does(steps in steps()) {
        let config = Config::new().purge(Purge::Never);
        compare(&Heap::new(config), &Model::new(config), &steps);
    }

    #[test]
    fn so_it_does_when_pages_go_back_by_their_number(steps in steps(), is_immediate: bool) {
        let purge = if is_immediate { Purge::Immediate } else { Purge::Slack };
        let config = Config::new().purge(purge);
        compare(&Heap::with_pages(config, Clockless), &Model::new(config), &steps);
    }
}

#[test]
fn a_purge_reaches_what_the_thread_holds_also_after_it_has_used_another_heap() {
    let (first, second, layout) = (Model::default(), Model::default(), Layout::new::<u64>());
    for model in [&first, &second] {
        model.release(model.allocate(layout).unwrap(), layout);
    }
    for model in [&first, &second] {
        // The pool from which the thread would take its next block.
        assert_eq!(model.purge(), UNIT_SIZE);
    }
}

#[test]
fn what_is_no_block_is_refused_and_counted() {
    let (model, layout) = (Model::default(), Layout::new::<[u8; 40]>());
    let block = model.allocate(layout).unwrap();
    for addr in [0, 1, block + 8, usize::MAX] {
        model.release(addr, layout);
        assert_eq!(model.resize(addr, layout, 4000), None);
    }
    model.release(block, layout);
    model.release(block, layout);
    let invalid = model.stats().invalid_frees;
    assert_eq!((invalid.n_foreign, invalid.n_misaligned, invalid.n_double), (6, 2, 1));
    assert_eq!(model.verify(), Ok(()));
}

#[test]
fn a_terabyte_is_no_more_work_than_a_kilobyte() {
    let (model, layout) = (Model::default(), Layout::new::<[u8; 1 << 40]>());
    let block = model.allocate(layout).unwrap();
    assert_eq!(model.stats().mappings.mapped_bytes, 1 << 40);
    let larger = model.resize(block, layout, 1 << 41).unwrap();
    assert_ne!(larger, block);
    assert_eq!(model.allocate(Layout::new::<[u8; 1 << 47]>()), None);
}
