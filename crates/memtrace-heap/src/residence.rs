//! Which of a heap's bytes are in memory, page by page.
//!
//! # Mechanism
//! The page source gives address space; a page of it takes memory from its first touch until it is
//! discarded or swapped out. The kernel is asked about the pages of each pool, run, unused unit, direct
//! mapping and record (`mincore`), and a pool's bitmap says how much of its resident pages belongs to
//! blocks in use.
//!
//! # Invariants
//! - **S1** The parts of one region sum to its resident pages, in bytes.
//!
//! # Cost
//! A system call for each pool, run and unused unit, made while the heap's lock is held for one arena
//! at a time; for each 4 MiB of a direct mapping, made without the lock.
#![expect(unsafe_code, reason = "asks the system which pages are resident")]

use core::ops::Range;
use core::ptr;

use crate::arena::{Arena, UNIT_SIZE};
use crate::class::{N_CLASSES, SizeClass};
use crate::control::Control;
use crate::directory::Leaf;
use crate::heap::Heap;
use crate::mapped::record_bytes;
use crate::owner::Owner;
use crate::pages::PageSource;
use crate::pool::{Kind, N_WORDS, Pool};
use crate::runs;
use crate::shared::Shared;

/// The bits of a bitmap's word.
const WORD_BITS: usize = 64;

/// What a heap's blocks, free places and records take in memory: resident bytes, where
/// [`HeapStats`](crate::HeapStats) tells bytes of address space.
///
/// Each figure is at most the one of the same name there, as long as no other thread is in the heap.
/// A page that is shared by blocks in use and free ones is divided among them. What is missing of
/// blocks in use, because it was never touched or is swapped out, is missing of their rounding first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Residence {
    /// Of what was asked for with all blocks in use.
    pub requested_bytes: usize,
    /// Of what is lost to rounding requests up to blocks, runs and mappings.
    pub rounding_bytes: usize,
    /// Of the free blocks of all pools.
    pub free_bytes: usize,
    /// Of what is left over at the ends of all pools.
    pub tail_bytes: usize,
    /// Of the units that serve nothing.
    pub unused_bytes: usize,
    /// Of the heap's own records.
    pub metadata_bytes: usize,
}

impl Residence {
    /// All that the heap takes in memory, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        [
            self.requested_bytes,
            self.rounding_bytes,
            self.free_bytes,
            self.tail_bytes,
            self.unused_bytes,
            self.metadata_bytes,
        ]
        .iter()
        .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Adds a block in use of its own region, with so many bytes asked for.
    fn add_large(&mut self, base: usize, n_bytes: usize, requested_bytes: usize) -> Option<()> {
        for_each_resident(base, n_bytes, |range| {
            let requested = range.end.min(requested_bytes).saturating_sub(range.start);
            add(&mut self.requested_bytes, requested);
            add(&mut self.rounding_bytes, range.len().saturating_sub(requested));
        })
    }
}

fn add(figure: &mut usize, n_bytes: usize) {
    *figure = figure.saturating_add(n_bytes);
}

impl<P: PageSource> Heap<P> {
    /// How much of the heap is in memory, and what for; all zero before the first allocation.
    ///
    /// Exact while no other thread is in the heap and the system moves no pages in or out, for a page
    /// source whose memory is private and anonymous, as that of [`SystemPages`](crate::SystemPages) is.
    /// `None` if the system does not tell, or the call interrupts its own thread in the heap.
    ///
    /// **Cost**: a system call a pool, some 40 ms a gigabyte, for which other threads wait, if they must,
    /// an arena's share (0.2 ms) at a time. It does not allocate.
    #[must_use]
    pub fn residence(&self) -> Option<Residence> {
        self.existing().map_or(Some(Residence::default()), Shared::residence)
    }
}

impl<P: PageSource> Shared<'_, P> {
    fn residence(self) -> Option<Residence> {
        let mut sum = Residence::default();
        let mut used_bytes = [0usize; N_CLASSES];
        for arenas in self.control.all_arenas() {
            let mut next = {
                let _guard = self.lock()?;
                arenas.latest()
            };
            while let Some(arena) = next {
                let _guard = self.lock()?;
                next = arena.older.get();
                let words = (arena.words.base().addr(), arena.words.size());
                let records = (ptr::from_ref(arena).addr(), record_bytes::<Arena>());
                for (base, n_bytes) in [words, records] {
                    add(&mut sum.metadata_bytes, resident_bytes(base, n_bytes)?);
                }
                if P::HAS_MEMORY && arena.is_mapped() {
                    look_at_arena(arena, &mut sum, &mut used_bytes)?;
                }
            }
        }
        if P::HAS_MEMORY {
            self.look_at_mappings(&mut sum)?;
        }
        add(&mut sum.metadata_bytes, self.resident_records()?);
        // What of a class's blocks in use is resident and was asked for.
        let stats = self.stats();
        for (class, used_bytes) in stats.classes.iter().zip(used_bytes) {
            let requested_bytes = class.requested_bytes.min(used_bytes);
            add(&mut sum.requested_bytes, requested_bytes);
            add(&mut sum.rounding_bytes, used_bytes.saturating_sub(requested_bytes));
        }
        Some(sum)
    }

    fn look_at_mappings(self, sum: &mut Residence) -> Option<()> {
        // There are few, each of 32 MiB or more but for rare alignments: so the lock is taken for each,
        // and not held while the kernel looks.
        for index in 0.. {
            let (base, n_bytes, requested_bytes) = {
                let guard = self.lock()?;
                let Some((base, mapping)) = guard.mappings.table.iter().nth(index) else { break };
                (base, mapping.region.size(), mapping.requested_bytes)
            };
            sum.add_large(base, n_bytes, requested_bytes)?;
        }
        Some(())
    }

    /// The records that are not an arena's.
    fn resident_records(self) -> Option<usize> {
        let Control { owners, directory, .. } = self.control;
        let mut sum =
            resident_bytes(ptr::from_ref(self.control).addr(), record_bytes::<Control>())?;
        for owner in owners.iter() {
            add(&mut sum, resident_bytes(ptr::from_ref(owner).addr(), record_bytes::<Owner>())?);
        }
        let guard = self.lock()?;
        for leaf in directory.leaves() {
            add(&mut sum, resident_bytes(ptr::from_ref(leaf).addr(), record_bytes::<Leaf>())?);
        }
        // Written to from end to end when it was mapped.
        add(&mut sum, guard.mappings.table.n_bytes());
        add(&mut sum, guard.mappings.left_words.n_bytes());
        Some(sum)
    }
}

fn look_at_arena(
    arena: &Arena,
    sum: &mut Residence,
    used_bytes: &mut [usize; N_CLASSES],
) -> Option<()> {
    let unit_size = arena.scale().unit_size();
    for pool in &arena.pools {
        let base = pool.base().addr();
        match pool.kind() {
            Kind::Inner(_) => {}
            Kind::Unused => add(&mut sum.unused_bytes, resident_bytes(base, unit_size)?),
            Kind::Run => {
                let n_bytes = runs::bytes_of(pool, u32::from(pool.n_run_units.get()));
                sum.add_large(base, n_bytes, pool.run_bytes.get())?;
            }
            Kind::Pool(class) => {
                let found = look_at_pool(pool, class)?;
                add(&mut sum.free_bytes, found.free_bytes);
                add(&mut sum.tail_bytes, found.tail_bytes);
                if let Some(to) = used_bytes.get_mut(class.index()) {
                    add(to, found.used_bytes);
                }
            }
        }
    }
    Some(())
}

/// The parts of a pool's resident pages, in bytes.
#[derive(Debug, Default)]
struct PoolParts {
    used_bytes: usize,
    free_bytes: usize,
    tail_bytes: usize,
}

fn look_at_pool(pool: &Pool, class: SizeClass) -> Option<PoolParts> {
    let mut used = UsedBlocks { words: [0; N_WORDS], block_size: class.block_size() };
    for (to, bits) in used.words.iter_mut().zip(pool.used_bits()) {
        *to = bits;
    }
    let blocks_end = class.blocks_per_pool().saturating_mul(class.block_size());
    let mut parts = PoolParts::default();
    let n_bytes = class.units_per_pool().saturating_mul(UNIT_SIZE);
    for_each_resident(pool.base().addr(), n_bytes, |range| {
        let in_blocks = range.end.min(blocks_end).saturating_sub(range.start);
        let n_used = used.bytes_below(range.end).saturating_sub(used.bytes_below(range.start));
        add(&mut parts.used_bytes, n_used);
        add(&mut parts.free_bytes, in_blocks.saturating_sub(n_used));
        add(&mut parts.tail_bytes, range.len().saturating_sub(in_blocks));
    })?;
    Some(parts)
}

/// The blocks of one pool that are in use.
struct UsedBlocks {
    words: [u64; N_WORDS],
    block_size: usize,
}

impl UsedBlocks {
    /// How many bytes before `offset` belong to blocks in use.
    fn bytes_below(&self, offset: usize) -> usize {
        let index = offset.checked_div(self.block_size).unwrap_or(0);
        let (at, bit) = (index / WORD_BITS, (index % WORD_BITS) as u32);
        let whole = self.words.iter().take(at).map(|word| word.count_ones() as usize);
        let last = self.words.get(at).copied().unwrap_or(0);
        let n_before = (last & 1u64.wrapping_shl(bit).wrapping_sub(1)).count_ones() as usize;
        let n_blocks = whole.fold(n_before, usize::saturating_add);
        let is_used = last & 1u64.wrapping_shl(bit) != 0;
        let of_last = if is_used { offset.checked_rem(self.block_size).unwrap_or(0) } else { 0 };
        n_blocks.saturating_mul(self.block_size).saturating_add(of_last)
    }
}

/// The resident bytes of a mapped range that begins with a page.
fn resident_bytes(base: usize, n_bytes: usize) -> Option<usize> {
    let mut sum = 0;
    for_each_resident(base, n_bytes, |range| add(&mut sum, range.len()))?;
    Some(sum)
}

/// Calls `each` with the resident parts of a range that begins with a page, as offsets, in order; `None`
/// if the system does not tell. What is not mapped is not resident.
fn for_each_resident(
    base: usize,
    n_bytes: usize,
    mut each: impl FnMut(Range<usize>),
) -> Option<()> {
    /// How many pages are asked about at once.
    const N_PAGES: usize = 1024;
    let page_size = page_size()?;
    let mut flags = [0u8; N_PAGES];
    let mut chunk = 0usize;
    while chunk < n_bytes {
        let chunk_bytes = n_bytes.saturating_sub(chunk).min(N_PAGES.saturating_mul(page_size));
        let start = base.wrapping_add(chunk);
        if is_any_mapped(start, chunk_bytes, &mut flags)? {
            let n_pages = chunk_bytes.div_ceil(page_size);
            let mut offset = chunk;
            for pages in flags.get(..n_pages)?.chunk_by(|a, b| a & 1 == b & 1) {
                let end = offset.saturating_add(pages.len().saturating_mul(page_size)).min(n_bytes);
                if pages.first().is_some_and(|flag| flag & 1 != 0) {
                    each(offset..end);
                }
                offset = end;
            }
        }
        chunk = chunk.saturating_add(chunk_bytes);
    }
    Some(())
}

/// Writes a flag for each page from `start` on, whose lowest bit says whether it is resident; `false` if
/// some are not mapped.
#[cfg(target_os = "linux")]
fn is_any_mapped(start: usize, n_bytes: usize, flags: &mut [u8; 1024]) -> Option<bool> {
    // SAFETY: `flags` has room for a byte a page, of which there are 1024 at most; the range is only
    // asked about.
    let result =
        unsafe { libc::mincore(ptr::without_provenance_mut(start), n_bytes, flags.as_mut_ptr()) };
    if result == 0 {
        return Some(true);
    }
    // SAFETY: takes nothing, and returns where the calling thread's errno is.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: valid for as long as this thread runs, and no other thread's.
    let errno = unsafe { *errno };
    (errno == libc::ENOMEM).then_some(false)
}

#[cfg(not(target_os = "linux"))]
fn is_any_mapped(_: usize, _: usize, _: &mut [u8; 1024]) -> Option<bool> {
    None
}

fn page_size() -> Option<usize> {
    // SAFETY: asks for a constant of the system.
    let n_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(n_bytes).ok().filter(|n_bytes| *n_bytes > 0)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::alloc::{GlobalAlloc, Layout};
    use core::sync::atomic::{AtomicBool, Ordering};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::{Config, NoMemory, PAGE_SIZE};

    proptest! {
        #[test]
        fn bytes_below_an_offset_are_those_that_counting_finds(
            words in prop::collection::vec(any::<u64>(), 4),
            block_size in 1usize..40,
            offset in 0usize..5000,
        ) {
            let mut used = UsedBlocks { words: [0; N_WORDS], block_size: block_size * 16 };
            used.words[..4].copy_from_slice(&words);
            let is_used = |at: usize| {
                let index = at / used.block_size;
                used.words[index / 64] >> (index % 64) & 1 != 0
            };
            let counted = (0..offset).filter(|at| is_used(*at)).count();
            prop_assert_eq!(used.bytes_below(offset), counted);
        }
    }

    /// Allocates `n` blocks and writes to each.
    fn fill(heap: &Heap, layout: Layout, n: usize) -> Vec<*mut u8> {
        let block = |_| {
            // SAFETY: the size is not zero.
            let block = unsafe { heap.alloc(layout) };
            // SAFETY: a block of this size.
            unsafe { block.write_bytes(1, layout.size()) };
            block
        };
        (0..n).map(block).collect()
    }

    #[test]
    fn touched_blocks_are_resident_and_every_second_freed_is_free_in_its_pool() {
        const N: usize = 16_384;
        let heap = Heap::new(Config::new());
        assert_eq!(heap.residence(), Some(Residence::default()));
        let layout = Layout::from_size_align(1000, 8).unwrap();
        let blocks = fill(&heap, layout, N);
        let before = heap.residence().unwrap();
        assert_eq!(before.requested_bytes, N * 1000);
        assert_eq!(before.rounding_bytes, heap.stats().rounding_bytes());
        for block in blocks.iter().step_by(2) {
            // SAFETY: a block of this heap, in use, freed once.
            unsafe { heap.dealloc(*block, layout) };
        }
        let after = heap.residence().unwrap();
        assert_eq!(after.requested_bytes, N / 2 * 1000);
        assert!(after.free_bytes >= before.free_bytes + N / 2 * 1000);
        assert!(after.total_bytes() >= before.total_bytes() - (64 << 10));
        assert!(after.metadata_bytes > 0 && after.metadata_bytes <= heap.stats().metadata_bytes);
    }

    #[test]
    fn untouched_pages_of_large_blocks_are_not_counted() {
        let heap = Heap::new(Config::new());
        for n_bytes in [1 << 20, 8 << 20, 64 << 20] {
            let layout = Layout::from_size_align(n_bytes + 100, 8).unwrap();
            let before = heap.residence().unwrap();
            // SAFETY: the size is not zero.
            let block = unsafe { heap.alloc(layout) };
            for page in 0..3 {
                // SAFETY: inside the block.
                unsafe { block.wrapping_add(2 * page * PAGE_SIZE).write(1) };
            }
            // SAFETY: the last byte of the block.
            unsafe { block.wrapping_add(n_bytes + 99).write(1) };
            let after = heap.residence().unwrap();
            let requested = after.requested_bytes - before.requested_bytes;
            let rounding = after.rounding_bytes - before.rounding_bytes;
            assert_eq!((requested, rounding), (3 * PAGE_SIZE + 100, PAGE_SIZE - 100), "{n_bytes}");
            // SAFETY: in use, freed once.
            unsafe { heap.dealloc(block, layout) };
        }
    }

    #[test]
    fn it_can_be_asked_while_threads_take_and_give_back_blocks_of_all_kinds() {
        let heap = Heap::new(Config::new());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let (heap, is_over) = (&heap, &is_over);
                scope.spawn(move || {
                    for round in seed.. {
                        for n_bytes in [16, 700, 40_000, 300_000, 5 << 20, 40 << 20] {
                            let layout = Layout::from_size_align(n_bytes + round % 16, 8).unwrap();
                            // SAFETY: the size is not zero.
                            let block = unsafe { heap.alloc(layout) };
                            // SAFETY: the first byte of a block in use.
                            unsafe { block.write(1) };
                            // SAFETY: in use, freed once.
                            unsafe { heap.dealloc(block, layout) };
                        }
                        // Relaxed: it publishes nothing.
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            for _ in 0..300 {
                let found = heap.residence().unwrap();
                assert!(found.total_bytes() < 64 << 20, "{found:?}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(heap.residence().unwrap().requested_bytes, 0);
        assert_eq!(heap.verify(), Ok(()));
    }

    #[test]
    fn a_model_has_records_and_no_blocks_in_memory() {
        let heap = Heap::with_pages(Config::new(), NoMemory::new());
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: the size is not zero, and nothing is read or written.
        assert!(!unsafe { heap.alloc(layout) }.is_null());
        let found = heap.residence().unwrap();
        assert!(found.metadata_bytes > 0);
        assert_eq!(found.total_bytes(), found.metadata_bytes);
    }
}
