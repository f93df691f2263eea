//! The map and its picture: they agree with the figures, tile the arenas, and let their reader allocate.

use std::alloc::Layout;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use memtrace_heap::python::{PythonHeap, Version};
use memtrace_heap::{
    ARENA_SIZE, ArenaView, BIG_UNIT_SIZE, Config, Heap, HeapMap, HeapStats, Model, NoMemory, Purge,
    Span, SpanKind, UNIT_SIZE, UNITS_PER_ARENA,
};
use proptest::prelude::*;

#[global_allocator]
static HEAP: Heap = Heap::new(Config::new());

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

/// The spans follow each other from the first unit to the last, and each is in itself right.
fn assert_tiles(arena: &ArenaView, n_units: usize) {
    let mut next_unit = 0;
    for span in arena.spans() {
        assert_eq!(span.first_unit, next_unit);
        assert!(span.n_units > 0);
        next_unit += span.n_units;
        assert!(span.n_blocks_used <= span.n_blocks);
        match span.kind {
            SpanKind::Unused => {
                assert_eq!((span.n_blocks, span.used_bytes, span.class), (0, 0, None));
            }
            SpanKind::Pool => {
                assert!(span.n_blocks * span.block_size <= span.n_units * arena.unit_size);
                assert_eq!(span.used_bytes, span.n_blocks_used * span.block_size);
                assert!(span.class.is_some());
            }
            _ => {
                assert_eq!(span.used_bytes, span.n_units * arena.unit_size);
                assert!(span.requested_bytes.unwrap() <= span.used_bytes);
            }
        }
    }
    assert_eq!((next_unit, arena.n_units()), (n_units, n_units));
}

fn sum(map: HeapMap<'_>, kind: SpanKind, figure: impl Fn(&ArenaView, &Span) -> usize) -> usize {
    let mut sum = 0;
    for arena in map.arenas() {
        let spans = arena.spans().iter().filter(|span| span.kind == kind);
        sum += spans.map(|span| figure(&arena, span)).sum::<usize>();
    }
    sum
}

/// What the map adds up to is what the heap counts.
fn assert_agrees(map: HeapMap<'_>, stats: &HeapStats) {
    for arena in map.arenas() {
        assert_tiles(&arena, UNITS_PER_ARENA);
        assert_eq!(arena.unit_size, if arena.is_big() { BIG_UNIT_SIZE } else { UNIT_SIZE });
    }
    let n_big = map.arenas().filter(ArenaView::is_big).count();
    assert_eq!(n_big, stats.big_arenas.n_current);
    assert_eq!(map.arenas().count(), n_big + stats.arenas.n_current);
    let numbers: BTreeSet<_> = map.arenas().map(|arena| (arena.is_big(), arena.number)).collect();
    assert_eq!(numbers.len(), map.arenas().count());

    let of_class = |index: usize, figure: fn(&Span) -> usize| {
        let figure = |_: &ArenaView, span: &Span| {
            if span.class == Some(index) { figure(span) } else { 0 }
        };
        sum(map, SpanKind::Pool, figure)
    };
    for (index, class) in stats.classes.iter().enumerate() {
        assert_eq!(of_class(index, |_| 1), class.n_pools);
        assert_eq!(of_class(index, |span| span.n_blocks_used), class.n_blocks_used);
        assert_eq!(of_class(index, |span| span.used_bytes), class.rounded_bytes());
        let n_blocks = class.n_blocks_used + class.n_blocks_free;
        assert_eq!(of_class(index, |span| span.n_blocks), n_blocks);
    }
    assert_eq!(sum(map, SpanKind::Run, |_, _| 1), stats.runs.n_current);
    assert_eq!(sum(map, SpanKind::Run, |_, span| span.used_bytes), stats.runs.mapped_bytes);
    let requested = sum(map, SpanKind::Run, |_, span| span.requested_bytes.unwrap());
    assert_eq!(requested, stats.runs.requested_bytes);
    let unused = |is_dirty: bool, is_big: bool| {
        let figure = |arena: &ArenaView, span: &Span| {
            let counts = arena.is_big() == is_big && (!is_dirty || span.is_dirty);
            if counts { span.n_units } else { 0 }
        };
        sum(map, SpanKind::Unused, figure)
    };
    for (is_big, arenas) in [(false, &stats.arenas), (true, &stats.big_arenas)] {
        assert_eq!(unused(false, is_big), arenas.n_units_unused);
        assert_eq!(unused(true, is_big), arenas.n_units_unused_dirty);
    }
}

/// That each element of a document ends, in the right order, and how many there are of a name.
fn n_elements(svg: &str, name: &str) -> usize {
    let (mut open, mut n) = (Vec::new(), 0);
    for tag in svg.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let tag_name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(tag_name));
        } else {
            n += usize::from(tag_name == name);
            if !tag.ends_with('/') {
                open.push(tag_name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?} do not end");
    n
}

/// A sequence of sizes and frees, as numbers that choose.
fn run(model: &Model, calls: &[(usize, usize, bool)]) {
    let mut live = Vec::new();
    for &(size, which, is_free) in calls {
        if is_free && !live.is_empty() {
            let (block, size) = live.swap_remove(which % live.len());
            model.release(block, layout(size));
        } else {
            live.push((model.allocate(layout(size)).unwrap(), size));
        }
    }
}

fn calls() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    let sizes = prop_oneof![
        12 => 1usize..1000,
        8 => 1000usize..66_000,
        4 => 66_000usize..600_000,
        1 => 600_000usize..9_000_000,
        1 => 32_000_000usize..40_000_000,
    ];
    proptest::collection::vec((sizes, any::<usize>(), any::<bool>()), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_map_of_any_heap_adds_up_to_its_figures(calls in calls(), purge in 0..3) {
        let purge = [Purge::Never, Purge::Slack, Purge::Immediate][purge as usize];
        let model = Model::new(Config::new().purge(purge));
        run(&model, &calls);
        assert_agrees(model.map(), &model.stats());
        model.purge();
        assert_agrees(model.map(), &model.stats());
        let svg = model.svg().to_string();
        // The document, and one for each arena, span, block size in the legend, and other swatch.
        let n_spans: usize = model.map().arenas().map(|arena| arena.spans().len()).sum();
        let n_classes = model.stats().classes.iter().filter(|class| class.n_pools != 0).count();
        let n_groups = model.map().arenas().count() + n_spans + n_classes + 3;
        prop_assert_eq!(n_elements(&svg, "g"), n_groups);
        prop_assert_eq!(n_elements(&svg, "svg"), 1);
    }

    #[test]
    fn the_map_of_any_python_heap_adds_up_to_its_figures(
        sizes in proptest::collection::vec((1usize..700, any::<bool>()), 1..3000),
        is_misaligned: bool,
    ) {
        let pages = NoMemory::misaligned_by(if is_misaligned { 4096 } else { 0 });
        let mut heap = PythonHeap::new(Version::V3_12.profile(), pages);
        let blocks: Vec<_> = sizes.iter().map(|&(size, _)| heap.allocate(size).unwrap()).collect();
        for (&block, _) in blocks.iter().zip(&sizes).filter(|(_, size)| size.1) {
            heap.release(block).unwrap();
        }
        let (map, stats) = (heap.map(), heap.stats());
        for arena in map.arenas() {
            assert_tiles(&arena, if is_misaligned { 63 } else { 64 });
        }
        prop_assert_eq!(map.arenas().count(), stats.n_arenas);
        let used = sum(map, SpanKind::Pool, |_, span| span.used_bytes);
        prop_assert_eq!(used, stats.parts().allocated_bytes);
        prop_assert_eq!(sum(map, SpanKind::Unused, |_, span| span.n_units), stats.n_pools_unused);
        prop_assert!(n_elements(&heap.svg().to_string(), "g") > stats.n_arenas);
    }
}

#[test]
fn a_heap_never_used_has_an_empty_map() {
    let heap = Heap::new(Config::new());
    assert_eq!(heap.map().arenas().count(), 0);
    assert_eq!(n_elements(&heap.svg().to_string(), "svg"), 1);
    assert_eq!(heap.stats().metadata_bytes, 0, "nothing was mapped for it");
}

#[test]
fn who_looks_at_the_global_heap_may_allocate_from_it() {
    let mut names = Vec::new();
    for arena in HEAP.map().arenas() {
        for span in arena.spans() {
            names.push(format!("{:#x} {:?}", arena.base_addr, span));
        }
        // A large block, which takes the heap's lock; and one that needs an arena of its own.
        names.push("-".repeat(100_000));
        names.push("-".repeat(ARENA_SIZE / 2));
    }
    assert!(names.len() > 3);
    let mut picture = String::new();
    write!(picture, "{}", HEAP.svg()).unwrap();
    assert!(n_elements(&picture, "title") > 3);
    // Also what the picture's own text has taken since the classes were counted has a colour.
    for class in picture.split("<g class=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(picture.contains(&format!(".{class}{{fill:")), "{class}");
    }
    assert!(!format!("{:?}", HEAP.map()).is_empty());
}

#[test]
fn a_map_taken_while_threads_work_still_tiles_the_arenas() {
    static IS_DONE: AtomicBool = AtomicBool::new(false);
    let workers = [0usize, 1].map(|worker| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            for round in 0.. {
                if IS_DONE.load(Ordering::Relaxed) {
                    return;
                }
                let size = 1 + (round * 7919 + worker * 104_729) % 120_000;
                kept.push(Vec::<u8>::with_capacity(size));
                if round % 97 == 96 {
                    kept.clear();
                }
            }
        })
    });
    for _ in 0..300 {
        for arena in HEAP.map().arenas() {
            assert_tiles(&arena, UNITS_PER_ARENA);
        }
        n_elements(&HEAP.svg().to_string(), "g");
    }
    IS_DONE.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(HEAP.verify(), Ok(()));
}

#[test]
fn units_given_back_are_clean_in_the_map() {
    let model = Model::new(Config::new().purge(Purge::Never));
    let block = model.allocate(layout(300_000)).unwrap();
    let unused = || {
        let arena = model.map().arenas().next().unwrap();
        let spans = arena.spans().iter().filter(|span| span.kind == SpanKind::Unused);
        spans.map(|span| (span.n_units, span.is_dirty)).collect::<Vec<_>>()
    };
    assert_eq!(unused(), [(59, false)]);
    model.release(block, layout(300_000));
    assert_eq!(unused(), [(5, true), (59, false)]);
    assert_eq!(model.purge(), 5 * UNIT_SIZE);
    assert_eq!(unused(), [(64, false)]);
}

#[test]
fn a_picture_of_very_many_arenas_says_how_many_are_left_out() {
    let model = Model::new(Config::new());
    for _ in 0..2 * 300 {
        model.allocate(layout(ARENA_SIZE / 2)).unwrap();
    }
    let svg = model.svg().to_string();
    assert!(svg.contains(">300 arenas, 1.17 GiB: 100 % in 600 blocks in use<"), "{}", &svg[..3000]);
    assert!(svg.contains(">and 44 arenas more, not drawn<"));
    assert!(svg.contains("<title>arena 255 at") && !svg.contains("<title>arena 256 at"));
    assert_eq!(svg.matches("large block of 2,097,152 bytes").count(), 512);
}
