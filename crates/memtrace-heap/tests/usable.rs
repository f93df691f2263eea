//! Blocks given back by their address alone.

use std::alloc::{GlobalAlloc, Layout};

use memtrace_heap::{Config, Heap, SystemPages};

#[test]
fn every_block_is_given_back_by_its_address_alone() {
    let heap = Heap::new(Config::new());
    for size in [1, 16, 100, 513, 8192, 65_536, 65_537, 3_000_000, 40_000_000] {
        for shift in [0, 4, 5, 12, 16, 17, 20, 22] {
            let asked = Layout::from_size_align(size, 1 << shift).unwrap();
            let taken = Heap::<SystemPages>::usable_layout(asked);
            assert!(taken.size() >= size);
            // SAFETY: the size is not zero.
            let block = unsafe { heap.alloc(taken) };
            assert_eq!(block.addr() % asked.align(), 0);
            let found = heap.layout_of(block).unwrap();
            assert_eq!(found.size(), taken.size(), "{asked:?}");
            assert_eq!(heap.layout_of(block.wrapping_add(1)), None);
            // SAFETY: a block in use with a layout of it.
            unsafe { heap.dealloc(block, found) };
            assert_eq!(heap.layout_of(block), None, "{asked:?}");
            let stats = heap.stats();
            assert_eq!(stats.invalid_frees.n_total(), 0, "{asked:?} as {found:?}");
            assert_eq!((stats.n_blocks_used(), stats.requested_bytes()), (0, 0));
        }
    }
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn every_block_is_resized_by_its_address_alone() {
    let heap = Heap::new(Config::new());
    let sizes = [1, 100, 60_000, 70_000, 3_000_000, 40_000_000, 2_500_000, 65_537, 17];
    let usable = |size| {
        let asked = Layout::from_size_align(size, 16).unwrap();
        Heap::<SystemPages>::usable_layout(asked)
    };
    // SAFETY: the size is not zero.
    let mut block = unsafe { heap.alloc(usable(sizes[0])) };
    for (round, size) in sizes.into_iter().enumerate().skip(1) {
        let old = heap.layout_of(block).unwrap();
        // SAFETY: a block of at least one byte.
        unsafe { block.write(round as u8) };
        // SAFETY: a block in use with a layout of it; the new size is not zero.
        block = unsafe { heap.realloc(block, old, usable(size).size()) };
        // SAFETY: as above.
        assert_eq!(unsafe { block.read() }, round as u8);
        assert_eq!(heap.usable_size(block), Some(usable(size).size()));
        assert_eq!(heap.stats().requested_bytes(), usable(size).size());
    }
    let last = heap.layout_of(block).unwrap();
    // SAFETY: a block in use with a layout of it.
    unsafe { heap.dealloc(block, last) };
    assert_eq!(heap.stats().n_blocks_used(), 0);
    assert_eq!(heap.stats().invalid_frees.n_total(), 0);
    assert_eq!(heap.verify(), Ok(()));
}
