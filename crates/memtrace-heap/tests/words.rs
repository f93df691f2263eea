//! A word beside each block: exchanges against a map, walks beside threads, and what is given back.

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::CheckedPages;
use memtrace_heap::{
    Config, Heap, MAX_RUN_SIZE, NoMemory, PageSource, Purge, SizeClass, UNIT_SIZE,
};
use proptest::prelude::*;

const WITH_WORDS: Config = Config::new().block_words(true);

#[derive(Debug, Clone)]
enum Step {
    Alloc { size: usize, align_shift: u32 },
    Dealloc { which: usize },
    Swap { which: usize, word: u64 },
    Exchange { which: usize, is_right: bool, word: u64 },
    Purge,
}

/// Pools of every kind, runs of both scales, and direct mappings.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        60 => 1usize..600,
        30 => 600usize..66_000,
        10 => 66_000usize..400_000,
        4 => 2_000_000usize..4_000_000,
        2 => MAX_RUN_SIZE + 1..MAX_RUN_SIZE + 100_000,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let aligns = prop_oneof![6 => 0u32..5, 2 => 5u32..13, 1 => 13u32..21];
    let which = any::<usize>;
    let word = || prop_oneof![Just(0u64), any::<u64>()];
    let step = prop_oneof![
        20 => (sizes(), aligns).prop_map(|(size, align_shift)| Step::Alloc { size, align_shift }),
        12 => which().prop_map(|which| Step::Dealloc { which }),
        20 => (which(), word()).prop_map(|(which, word)| Step::Swap { which, word }),
        8 => (which(), any::<bool>(), word())
            .prop_map(|(which, is_right, word)| Step::Exchange { which, is_right, word }),
        1 => Just(Step::Purge),
    ];
    proptest::collection::vec(step, 1..200)
}

/// A heap over `P`, and the word that each block should have.
struct Checked<P: PageSource> {
    heap: Heap<P>,
    live: BTreeMap<usize, (*mut u8, Layout, u64)>,
}

impl<P: PageSource> Checked<P> {
    fn nth(&mut self, which: usize) -> Option<(usize, &mut (*mut u8, Layout, u64))> {
        let n = self.live.len().max(1);
        self.live.iter_mut().nth(which % n).map(|(addr, block)| (*addr, block))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Alloc { size, align_shift } => {
                let layout = Layout::from_size_align(size, 1 << align_shift).unwrap();
                // SAFETY: the size is not zero.
                let ptr = unsafe { self.heap.alloc(layout) };
                assert!(!ptr.is_null());
                assert_eq!(self.heap.block_word(ptr.addr()), Some(0));
                self.live.insert(ptr.addr(), (ptr, layout, 0));
            }
            Step::Dealloc { which } => {
                let Some((addr, &mut (ptr, layout, word))) = self.nth(which) else { return };
                self.live.remove(&addr);
                assert_eq!(self.heap.swap_block_word(addr, 0), Some(word));
                // SAFETY: a live block with its layout.
                unsafe { self.heap.dealloc(ptr, layout) };
            }
            Step::Swap { which, word } => {
                let Some((addr, block)) = self.nth(which) else { return };
                let before = std::mem::replace(&mut block.2, word);
                assert_eq!(self.heap.swap_block_word(addr, word), Some(before));
            }
            Step::Exchange { which, is_right, word } => {
                let Some((addr, block)) = self.nth(which) else { return };
                let held = block.2;
                let expected = if is_right { Ok(held) } else { Err(held) };
                let current = if is_right { held } else { !held };
                block.2 = if is_right { word } else { held };
                let found = self.heap.compare_exchange_block_word(addr, current, word);
                assert_eq!(found, Some(expected));
            }
            Step::Purge => drop(self.heap.purge()),
        }
    }

    fn check(&self) {
        let mut seen = BTreeMap::new();
        self.heap.for_each_block(|block| {
            let (_, layout, word) = self.live[&block.block_addr];
            assert_eq!(block.word, word);
            assert!(block.usable_bytes >= layout.size());
            assert!(seen.insert(block.block_addr, word).is_none(), "visited twice");
        });
        let set = self.live.iter().filter(|(_, block)| block.2 != 0);
        assert_eq!(seen, set.map(|(addr, block)| (*addr, block.2)).collect());
        for (&addr, &(_, layout, word)) in &self.live {
            assert_eq!(self.heap.block_word(addr), Some(word));
            // Nothing starts inside a block, nor does a word stand for it.
            for inside in [addr + 1, addr + layout.size() / 2] {
                if inside != addr && inside < addr + layout.size() {
                    assert_eq!(self.heap.block_word(inside), None);
                    assert_eq!(self.heap.swap_block_word(inside, 1), None);
                }
            }
        }
        self.check_pools();
        assert_eq!(self.heap.verify(), Ok(()));
    }

    /// Pool by pool there are the same blocks, words and free bytes as in all.
    fn check_pools(&self) {
        let (mut n_used, mut free_bytes, mut words) = (0, 0, Vec::new());
        self.heap.for_each_pool(|pool| {
            assert_eq!(pool.pool_addr() % UNIT_SIZE, 0);
            n_used += pool.n_used();
            free_bytes += pool.free_bytes();
            let mut n_words = 0;
            pool.for_each_word(|word| {
                n_words += 1;
                words.extend((word != 0).then_some(word));
            });
            assert_eq!(n_words, pool.n_used());
        });
        let classes = self.heap.stats().classes;
        assert_eq!(n_used, classes.iter().map(|class| class.n_blocks_used).sum::<usize>());
        assert_eq!(free_bytes, classes.iter().map(|class| class.free_bytes()).sum::<usize>());
        let mut expected = Vec::new();
        self.heap.for_each_block(|block| {
            let layout = self.live[&block.block_addr].1;
            expected.extend(SizeClass::of(layout).map(|_| block.word));
        });
        words.sort_unstable();
        expected.sort_unstable();
        assert_eq!(words, expected);
    }
}

impl<P: PageSource> Drop for Checked<P> {
    fn drop(&mut self) {
        for &(ptr, layout, _) in self.live.values() {
            // SAFETY: a live block with its layout.
            unsafe { self.heap.dealloc(ptr, layout) };
        }
    }
}

fn check_steps<P: PageSource>(heap: Heap<P>, steps: Vec<Step>) {
    let mut checked = Checked { heap, live: BTreeMap::new() };
    for (at, step) in steps.into_iter().enumerate() {
        checked.step(step);
        if at % 16 == 0 {
            checked.check();
        }
    }
    checked.check();
    let mut taken: Vec<u64> = Vec::new();
    checked.heap.take_block_words(|word| taken.push(word));
    taken.sort_unstable();
    let words = checked.live.values().map(|block| block.2);
    let mut expected: Vec<u64> = words.filter(|word| *word != 0).collect();
    expected.sort_unstable();
    assert_eq!(taken, expected);
    checked.live.values_mut().for_each(|block| block.2 = 0);
    checked.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn words_are_those_of_a_map(steps in steps()) {
        check_steps(Heap::new(WITH_WORDS), steps);
    }

    #[test]
    fn words_are_those_of_a_map_where_pages_go_at_once_and_nothing_leaks(steps in steps()) {
        let pages = CheckedPages::default();
        check_steps(Heap::with_pages(WITH_WORDS.purge(Purge::Immediate), &pages), steps);
        prop_assert_eq!(pages.n_mapped_bytes(), 0);
    }

    #[test]
    fn words_are_those_of_a_map_in_a_model_without_memory(steps in steps()) {
        check_steps(Heap::with_pages(WITH_WORDS.purge(Purge::Immediate), NoMemory::new()), steps);
    }
}

fn alloc(heap: &Heap, size: usize) -> usize {
    // SAFETY: the size is not zero.
    let ptr = unsafe { heap.alloc(Layout::from_size_align(size, 8).unwrap()) };
    assert!(!ptr.is_null());
    ptr.expose_provenance()
}

fn dealloc(heap: &Heap, addr: usize, size: usize) {
    let layout = Layout::from_size_align(size, 8).unwrap();
    // SAFETY: the caller names a live block of this size.
    unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(addr), layout) };
}

#[test]
fn a_heap_without_words_has_none() {
    let heap = Heap::new(Config::new());
    assert_eq!(heap.block_word(4096), None);
    for size in [100, 100_000, 3_000_000, MAX_RUN_SIZE + 1] {
        let addr = alloc(&heap, size);
        assert_eq!(heap.block_word(addr), None);
        assert_eq!(heap.swap_block_word(addr, 1), None);
        assert_eq!(heap.compare_exchange_block_word(addr, 0, 1), None);
        dealloc(&heap, addr, size);
    }
    heap.for_each_block(|block| panic!("{block:?}"));
    heap.take_block_words(|word| panic!("{word}"));
    assert_eq!(heap.block_word_bytes(), 0);
}

#[test]
fn words_that_were_left_behind_are_taken_with_the_others() {
    let heap = Heap::new(WITH_WORDS);
    for size in [100, 100_000, 3_000_000, MAX_RUN_SIZE + 1, 2 * MAX_RUN_SIZE] {
        let blocks: Vec<usize> = (0..40).map(|_| alloc(&heap, size)).collect();
        for (&addr, word) in blocks.iter().zip(1..) {
            assert_eq!(heap.swap_block_word(addr, word), Some(0));
        }
        // Some are in use yet.
        blocks[..30].iter().for_each(|&addr| dealloc(&heap, addr, size));
        let mut taken = Vec::new();
        heap.take_block_words(|word| taken.push(word));
        taken.sort_unstable();
        assert_eq!(taken, (1..=40).collect::<Vec<u64>>(), "{size}");
        heap.take_block_words(|word| panic!("{word} again"));
        blocks[30..].iter().for_each(|&addr| dealloc(&heap, addr, size));
        assert_eq!(heap.verify(), Ok(()));
    }
}

/// Mappings come, go, grow and move into each other's places, and leave their words.
#[test]
fn no_word_is_lost_of_mappings_that_take_each_others_places() {
    let heap = Heap::new(WITH_WORDS);
    let (mut live, mut set, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = 1u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (random >> 33) as usize % n
    };
    for step in 1..=3000u64 {
        let size = MAX_RUN_SIZE + 4096 * (1 + below(3));
        match below(5) {
            0 | 1 => {
                let addr = alloc(&heap, size);
                taken.extend(heap.swap_block_word(addr, step));
                set.push(step);
                live.push((addr, size));
            }
            2 if !live.is_empty() => {
                let (addr, size) = live.swap_remove(below(live.len()));
                dealloc(&heap, addr, size);
            }
            3 if !live.is_empty() => {
                let which = below(live.len());
                let (addr, old_size) = live[which];
                let block = std::ptr::with_exposed_provenance_mut(addr);
                let layout = Layout::from_size_align(old_size, 16).unwrap();
                // SAFETY: the live block, with its layout.
                let block = unsafe { heap.realloc(block, layout, size) };
                live[which] = (block.expose_provenance(), size);
            }
            _ if step % 50 == 0 => heap.take_block_words(|word| taken.push(word)),
            _ => {}
        }
        assert_eq!(heap.verify(), Ok(()), "{step}");
    }
    heap.take_block_words(|word| taken.push(word));
    taken.retain(|&word| word != 0);
    taken.sort_unstable();
    assert_eq!(taken, set);
    live.into_iter().for_each(|(addr, size)| dealloc(&heap, addr, size));
}

#[test]
fn a_block_finds_the_word_that_was_left_where_it_is() {
    let heap = Heap::new(WITH_WORDS);
    for size in [100, 100_000, 3_000_000, MAX_RUN_SIZE + 1] {
        let addr = alloc(&heap, size);
        heap.swap_block_word(addr, 5);
        dealloc(&heap, addr, size);
        let next = alloc(&heap, size);
        let expected = if next == addr { 5 } else { 0 };
        assert_eq!(heap.swap_block_word(next, 0), Some(expected), "{size}");
        dealloc(&heap, next, size);
        let n_left = u32::from(next != addr);
        let mut n_taken = 0;
        heap.take_block_words(|_| n_taken += 1);
        assert_eq!(n_taken, n_left, "{size}");
    }
}

#[test]
fn a_block_given_back_has_no_word_and_one_word_takes_a_page() {
    let heap = Heap::new(WITH_WORDS);
    let kept = alloc(&heap, 48);
    let addr = alloc(&heap, 48);
    assert_eq!(heap.block_word(addr), Some(0));
    assert_eq!(heap.block_word_bytes(), 0);
    assert_eq!(heap.swap_block_word(addr, 7), Some(0));
    assert_eq!(heap.block_word_bytes(), 4096);
    assert_eq!(heap.block_word(addr), Some(7));
    assert_eq!(heap.swap_block_word(addr, 0), Some(7));
    dealloc(&heap, addr, 48);
    dealloc(&heap, kept, 48);
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn pages_of_words_go_back_with_those_of_their_blocks() {
    let heap = Heap::new(WITH_WORDS.purge(Purge::Never));
    let blocks: Vec<usize> = (0..1_000_000).map(|_| alloc(&heap, 16)).collect();
    for &addr in &blocks {
        assert_eq!(heap.swap_block_word(addr, addr as u64), Some(0));
    }
    assert!((8_000_000..8_200_000).contains(&heap.block_word_bytes()));
    for &addr in &blocks {
        assert_eq!(heap.swap_block_word(addr, 0), Some(addr as u64));
        dealloc(&heap, addr, 16);
    }
    heap.purge();
    assert_eq!(heap.block_word_bytes(), 0);
    let again: Vec<usize> = (0..1_000_000).map(|_| alloc(&heap, 16)).collect();
    assert!(again.iter().all(|&addr| heap.block_word(addr) == Some(0)));
    again.into_iter().for_each(|addr| dealloc(&heap, addr, 16));
}

#[test]
fn words_lie_close_together_whatever_the_sizes_of_blocks() {
    // Blocks of like and of very different sizes, as many pools of each.
    for sizes in [&[64][..], &[256], &[4096], &[8000], &[40_000], &[16, 100, 300, 1000, 3000, 9000]]
    {
        let heap = Heap::new(WITH_WORDS);
        let mut blocks = Vec::new();
        for i in 0..40_000_000 / sizes.iter().sum::<usize>() {
            let size = sizes[i % sizes.len()];
            blocks.push((alloc(&heap, size), size));
        }
        for &(addr, _) in &blocks {
            assert_eq!(heap.swap_block_word(addr, addr as u64), Some(0));
        }
        // A page for each of ten arenas may be there for a few words only, and a pool for each size.
        let least = blocks.len() * 8;
        let most = least * 5 / 4 + 10 * 4096 + sizes.len() * 4096;
        let found = heap.block_word_bytes();
        assert!((least..=most).contains(&found), "{sizes:?}: {found} for {}", blocks.len());
        for (addr, size) in blocks {
            assert_eq!(heap.swap_block_word(addr, 0), Some(addr as u64));
            dealloc(&heap, addr, size);
        }
        assert_eq!(heap.verify(), Ok(()));
        heap.purge();
        assert_eq!(heap.block_word_bytes(), 0);
    }
}

#[test]
fn words_left_behind_are_found_by_a_sweep_or_by_blocks_to_come() {
    let heap = Heap::new(WITH_WORDS.purge(Purge::Immediate));
    let (mut n_left, mut n_found, mut last) = (0, 0, 0u64);
    for size in [48, 64, 16, 4096, 600, 16, 20_000, 48, 100_000, 3_000_000, 48] {
        let blocks: Vec<usize> =
            (0..400_000_usize.div_ceil(size)).map(|_| alloc(&heap, size)).collect();
        for &addr in &blocks {
            last += 1;
            n_left += 1;
            n_found += usize::from(heap.swap_block_word(addr, last) != Some(0));
        }
        // Given back with their words, and all pages that can be.
        blocks.into_iter().for_each(|addr| dealloc(&heap, addr, size));
        heap.purge();
        heap.for_each_block(|block| panic!("{block:?} is free"));
    }
    heap.take_block_words(|_| n_found += 1);
    assert_eq!(n_found, n_left);
    heap.take_block_words(|word| panic!("{word}"));
    heap.purge();
    assert_eq!(heap.block_word_bytes(), 0);
}

#[test]
fn a_visitor_may_use_the_heap() {
    let heap = Heap::new(WITH_WORDS);
    for size in [100, 100_000, 3_000_000, MAX_RUN_SIZE + 1] {
        for _ in 0..20 {
            heap.swap_block_word(alloc(&heap, size), 1);
        }
    }
    let mut n_blocks = 0;
    heap.for_each_block(|_| {
        n_blocks += 1;
        for size in [100, 100_000, MAX_RUN_SIZE + 1] {
            let addr = alloc(&heap, size);
            dealloc(&heap, addr, size);
        }
    });
    assert_eq!(n_blocks, 80);
}

#[test]
fn blocks_that_live_through_walks_are_visited_once_each_while_others_come_and_go() {
    const SIZES: [usize; 8] = [16, 48, 64, 200, 1000, 5000, 40_000, 100_000];
    let heap = Heap::new(WITH_WORDS.purge(Purge::Immediate));
    let kept: Vec<usize> = (0..4000).map(|i| alloc(&heap, SIZES[i % SIZES.len()])).collect();
    for (i, &addr) in kept.iter().enumerate() {
        heap.swap_block_word(addr, (addr as u64) << 8 | (i % SIZES.len()) as u64);
    }
    let is_done = AtomicBool::new(false);
    let started = Barrier::new(4);
    thread::scope(|scope| {
        for t in 0..3usize {
            let (heap, is_done, started) = (&heap, &is_done, &started);
            scope.spawn(move || {
                started.wait();
                let mut size_index = t;
                while !is_done.load(Ordering::Relaxed) {
                    size_index += 1;
                    let size = SIZES[size_index % SIZES.len()];
                    let n = 1 + 400_000 / size;
                    let blocks: Vec<usize> = (0..n).map(|_| alloc(heap, size)).collect();
                    for &addr in &blocks {
                        let word = (addr as u64) << 8 | 0x80;
                        assert_eq!(heap.swap_block_word(addr, word), Some(0));
                    }
                    for &addr in &blocks {
                        let word = (addr as u64) << 8 | 0x80;
                        assert_eq!(heap.swap_block_word(addr, 0), Some(word));
                        dealloc(heap, addr, size);
                    }
                }
            });
        }
        started.wait();
        let mut wrong = None;
        for _ in 0..300 {
            let mut seen = BTreeMap::new();
            heap.for_each_block(|block| {
                if block.word >> 8 != block.block_addr as u64 {
                    wrong = Some(block);
                }
                if block.word & 0x80 == 0 {
                    *seen.entry(block.block_addr).or_insert(0) += 1;
                }
            });
            if seen.len() != kept.len() || seen.values().any(|n| *n != 1) {
                is_done.store(true, Ordering::Relaxed);
                panic!("{} of {} blocks were seen", seen.len(), kept.len());
            }
        }
        is_done.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
    for (i, &addr) in kept.iter().enumerate() {
        dealloc(&heap, addr, SIZES[i % SIZES.len()]);
    }
    assert_eq!(heap.verify(), Ok(()));
}

#[test]
fn a_sweep_or_a_look_at_the_flag_finds_every_word() {
    let heap = Heap::new(WITH_WORDS);
    let is_on = AtomicBool::new(true);
    let n_threads = 3;
    let barrier = Barrier::new(n_threads + 1);
    thread::scope(|scope| {
        for t in 0..n_threads {
            let (heap, is_on, barrier) = (&heap, &is_on, &barrier);
            scope.spawn(move || {
                for round in 0..300usize {
                    barrier.wait();
                    let size = 16 << ((t + round) % 8);
                    let blocks: Vec<usize> = (0..50).map(|_| alloc(heap, size)).collect();
                    for &addr in &blocks {
                        heap.swap_block_word(addr, addr as u64);
                        if !is_on.load(Ordering::SeqCst) {
                            let _ = heap.compare_exchange_block_word(addr, addr as u64, 0);
                        }
                    }
                    barrier.wait();
                    // Until the words were looked at.
                    barrier.wait();
                    blocks.into_iter().for_each(|addr| dealloc(heap, addr, size));
                }
            });
        }
        let mut left = None;
        for round in 0..300u32 {
            is_on.store(true, Ordering::SeqCst);
            barrier.wait();
            (0..round * 10).for_each(|_| std::hint::spin_loop());
            is_on.store(false, Ordering::SeqCst);
            heap.take_block_words(|_| {});
            barrier.wait();
            heap.for_each_block(|block| left = Some(block));
            barrier.wait();
        }
        assert_eq!(left, None);
    });
}
