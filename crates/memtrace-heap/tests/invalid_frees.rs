//! Frees of what is no block in use: each is counted by reason, and the heap is as it was.

use std::alloc::{GlobalAlloc, Layout};

use memtrace_heap::{Config, Heap, HeapStats};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn alloc(heap: &Heap, size: usize) -> *mut u8 {
    assert!(size > 0);
    // SAFETY: the size is not zero.
    unsafe { heap.alloc(layout(size)) }
}

/// The figures without the counts of refused calls, and of threads.
fn rest(stats: HeapStats) -> HeapStats {
    let mut rest = stats;
    rest.invalid_frees = Default::default();
    // A thread that has not used the heap before takes an owner, which is a record.
    (rest.n_owners, rest.metadata_bytes) = (0, 0);
    rest
}

/// One of the counts of refused calls.
type Count = fn(&HeapStats) -> u64;

/// Runs `misuse` and expects the heap to be unchanged but for one count.
fn expect_refusal(heap: &Heap, count: Count, misuse: impl FnOnce()) {
    let before = heap.stats();
    misuse();
    let after = heap.stats();
    assert_eq!(count(&after), count(&before) + 1);
    assert_eq!(after.invalid_frees.n_total(), before.invalid_frees.n_total() + 1);
    assert_eq!(rest(after), rest(before));
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn a_block_freed_twice_is_freed_once() {
    let heap = Heap::new(Config::new());
    let (kept, twice) = (alloc(&heap, 100), alloc(&heap, 100));
    // SAFETY: a live block with its layout.
    unsafe { heap.dealloc(twice, layout(100)) };
    // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
    let again = || unsafe { heap.dealloc(twice, layout(100)) };
    expect_refusal(&heap, |stats| stats.invalid_frees.n_double, again);
    let (a, b) = (alloc(&heap, 100), alloc(&heap, 100));
    assert!(a != b && a != kept && b != kept, "the free list was not corrupted");
}

#[test]
fn the_last_block_of_a_pool_freed_twice_is_seen_too() {
    let heap = Heap::new(Config::new());
    let only = alloc(&heap, 100);
    // SAFETY: a live block with its layout.
    unsafe { heap.dealloc(only, layout(100)) };
    // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
    let again = || unsafe { heap.dealloc(only, layout(100)) };
    expect_refusal(&heap, |stats| stats.invalid_frees.n_double, again);
}

#[test]
fn large_blocks_freed_twice_are_freed_once() {
    let heap = Heap::new(Config::new());
    let n_double: Count = |stats| stats.invalid_frees.n_double;
    // What was mapped by itself is foreign when it is gone.
    let n_foreign: Count = |stats| stats.invalid_frees.n_foreign;
    for (size, count) in [(100_000, n_double), (3_000_000, n_double), (40_000_000, n_foreign)] {
        let large = alloc(&heap, size);
        // SAFETY: a live block with its layout.
        unsafe { heap.dealloc(large, layout(size)) };
        // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
        let again = || unsafe { heap.dealloc(large, layout(size)) };
        expect_refusal(&heap, count, again);
    }
}

#[test]
fn foreign_misaligned_and_mislabelled_pointers_are_told_apart() {
    let heap = Heap::new(Config::new());
    let mut on_stack = [0u8; 64];
    let foreign = on_stack.as_mut_ptr();
    let (small, large) = (alloc(&heap, 48), alloc(&heap, 70_000));
    let mapped = alloc(&heap, 40_000_000);
    let (small_inner, large_inner) = (small.wrapping_add(16), large.wrapping_add(4096));
    let n_foreign: Count = |stats| stats.invalid_frees.n_foreign;
    let n_misaligned: Count = |stats| stats.invalid_frees.n_misaligned;
    let n_wrong_layout: Count = |stats| stats.invalid_frees.n_wrong_layout;
    let cases: [(*mut u8, usize, Count); 12] = [
        (std::ptr::null_mut(), 48, n_foreign),
        (std::ptr::null_mut(), 70_000, n_foreign),
        (foreign, 48, n_foreign),
        (foreign, 70_000, n_foreign),
        (large_inner, 70_000, n_misaligned),
        (large, 48, n_wrong_layout),
        (small_inner, 48, n_misaligned),
        (small, 49, n_wrong_layout),
        (large, 70_001, n_wrong_layout),
        (small, 70_000, n_wrong_layout),
        (mapped, 48, n_wrong_layout),
        (mapped, 40_000_001, n_wrong_layout),
    ];
    for (ptr, size, count) in cases {
        // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
        expect_refusal(&heap, count, || unsafe { heap.dealloc(ptr, layout(size)) });
        for new_size in [size + 1, 40, 3000, 90_000] {
            expect_refusal(&heap, count, || {
                // SAFETY: as above.
                assert!(unsafe { heap.realloc(ptr, layout(size), new_size) }.is_null());
            });
        }
    }
    assert_eq!(heap.stats().n_blocks_used(), 3);
}

#[test]
fn a_free_before_the_first_allocation_is_foreign() {
    let heap = Heap::new(Config::new());
    let mut on_stack = 0u64;
    // SAFETY: not a valid call by GlobalAlloc's contract; this heap defines it.
    unsafe { heap.dealloc((&raw mut on_stack).cast(), layout(8)) };
    assert_eq!(heap.stats().invalid_frees.n_foreign, 1);
}

#[test]
fn a_block_freed_by_its_owner_and_then_by_a_stranger_is_freed_once() {
    // In the owner's slot, in its pool, and after the owner has gone on to other words.
    for n_between in [0, 1, 63, 64, 2000] {
        let heap = Heap::new(Config::new());
        let (block, _kept) = (alloc(&heap, 64).addr(), alloc(&heap, 64));
        let between: Vec<usize> = (0..n_between).map(|_| alloc(&heap, 64).addr()).collect();
        let free = || {
            // SAFETY: the first time a live block; the second time not a valid call by GlobalAlloc's
            // contract, which this heap defines.
            unsafe { heap.dealloc(std::ptr::without_provenance_mut(block), layout(64)) }
        };
        free();
        let n_double: Count = |stats| stats.invalid_frees.n_double;
        expect_refusal(&heap, n_double, || {
            std::thread::scope(|scope| scope.spawn(free).join().unwrap());
        });
        let mut seen: Vec<usize> = (0..3000).map(|_| alloc(&heap, 64).addr()).collect();
        seen.extend(between);
        seen.sort_unstable();
        assert!(seen.is_sorted_by(|a, b| a < b), "a place was handed out twice");
        assert_eq!(heap.stats().n_blocks_used(), 3001 + n_between);
        assert_eq!(heap.verify(), Ok(()));
    }
}
