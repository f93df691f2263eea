//! A word of the embedder's choice beside each block.
//!
//! # Mechanism
//! With [`Config::block_words`](crate::Config::block_words) each arena has a second mapping, of words.
//! A unit has as many as it can have blocks: block `i` of the pool that begins at unit `u` has word
//! `i` of that unit, and a run the first word of its first unit (in a big arena, where all blocks are
//! runs, a unit has one word). So from an address to its word there is nothing to search: the
//! directory, the unit's record, a multiplication. A directly mapped block has its word in its record,
//! under the heap's lock.
//!
//! Beside the words stands, for each unit, which pages of them were ever written. Walks and sweeps read
//! those and no others. A walk leaves out words left behind at places that bitmaps show as free; a sweep
//! looks at no bitmap.
//!
//! # Invariants
//! - **B1** The words of an arena's records are mapped once and stay until the heap ends, while the
//!   records serve one arena after the other: who finds an arena may touch its words at any time.
//! - **B2** A word that is not zero lies on a page that is marked as written.
//! - **B3** The words of units that are being discarded, or of an arena that is unmapped, are made zero
//!   while nobody else can take these units; no block is in use there.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | word | exchanges (SeqCst) | exchanges, sweep (SeqCst), walk (Acquire) | what the embedder did before |
//! | `pages[u]` | exchanges (SeqCst, before the word), discarding (SeqCst, under B3) | exchanges, walk (Acquire), sweep (SeqCst) | itself |
//!
//! A sweep finds the arenas after it has held the heap's lock. An arena that it does not see was made
//! after that, by a thread that has held the lock later: to such a thread all is known that whoever
//! sweeps did before. So an embedder's flag that is stored before a sweep, and looked at after a word
//! was exchanged, both SeqCst, is seen wherever the sweep did not see the word.
//!
//! # Cost
//! An exchange: seven loads in four cache lines, a multiplication, one atomic exchange. 8 bytes a
//! block, in whole pages for each pool. A walk reads the pages that were written.
#![expect(unsafe_code, reason = "words in a mapping that stays")]

use core::slice;
use core::sync::atomic::{
    AtomicU8, AtomicU64, Ordering,
    Ordering::{Acquire, Relaxed, SeqCst},
};

use crate::arena::{
    ARENA_SIZE, Arena, BIG_WORDS_SIZE, BLOCKS_PER_UNIT, Scale, UNIT_SIZE, UNITS_PER_ARENA,
    WORDS_SIZE,
};
use crate::control::Control;
use crate::heap::Heap;
use crate::mapped::{Region, RegionCell, Source};
use crate::pages::{PAGE_SIZE, PageSource};
use crate::pool::{Kind, Pool};
use crate::runs;
use crate::shared::Shared;

const WORD_SIZE: usize = size_of::<u64>();
const WORDS_PER_PAGE: usize = PAGE_SIZE / WORD_SIZE;
/// Bits of `pages` for one unit.
const PAGES_PER_UNIT: usize = BLOCKS_PER_UNIT / WORDS_PER_PAGE;
const _: () = assert!(PAGES_PER_UNIT == u8::BITS as usize);
/// Words that a walk looks at together: as many as a word of a bitmap has bits.
const GROUP_WORDS: usize = u64::BITS as usize;
/// How many directly mapped blocks are looked at under one lock.
const N_MAPPINGS_AT_ONCE: usize = 16;

/// A block in use, with the embedder's word beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// Where it starts.
    pub block_addr: usize,
    /// What it could hold, in bytes; at least what was requested.
    pub usable_bytes: usize,
    /// Its word, not zero.
    pub word: u64,
}

/// The words of the blocks of one arena.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Words {
    region: RegionCell,
    /// For each unit, which pages of its words were ever written.
    pages: [AtomicU8; UNITS_PER_ARENA],
}

impl Words {
    /// Maps the words, unless they are there; `None` if that fails. Under the heap's lock.
    pub(crate) fn prepare<P: PageSource>(&self, source: Source<'_, P>, scale: Scale) -> Option<()> {
        if self.region.base().is_null() {
            let size = match scale {
                Scale::Small => WORDS_SIZE,
                Scale::Big => BIG_WORDS_SIZE,
            };
            let region = Region::map_records(source, size)?;
            #[cfg(target_os = "linux")]
            if P::IS_SYSTEM {
                // SAFETY: advice on a mapping of our own. Words are touched sparsely: with huge pages,
                // one would cost 2 MiB.
                unsafe {
                    libc::madvise(region.base().cast(), region.size(), libc::MADV_NOHUGEPAGE)
                };
            }
            self.region.put(region);
        }
        Some(())
    }

    /// Takes the mapping out, for a heap that ends.
    pub(crate) fn take(&self) -> Region {
        self.region.take()
    }

    /// The first byte; null if there are none.
    pub(crate) fn base(&self) -> *mut u8 {
        self.region.base()
    }

    /// The mapped size, in bytes; 0 if there are none.
    pub(crate) fn size(&self) -> usize {
        self.region.size()
    }

    /// All words; none if they are not kept.
    #[inline(always)]
    fn all(&self) -> &[AtomicU64] {
        let base = self.region.base();
        if base.is_null() {
            return &[];
        }
        let len = self.region.size() / WORD_SIZE;
        // SAFETY: B1: mapped for records with this size, zero at first, aligned to a page; only
        // reached as atomics; stays as long as the heap is borrowed.
        unsafe { slice::from_raw_parts(base.cast::<AtomicU64>(), len) }
    }

    /// Makes the words of `n` units from `first` on zero, and gives their pages back (B3).
    pub(crate) fn discard<P: PageSource>(&self, source: Source<'_, P>, first: usize, n: usize) {
        let units = || self.pages.iter().enumerate().skip(first).take(n);
        // Acquire pairs with the store of the mark.
        if self.region.size() != WORDS_SIZE || units().all(|(_, marks)| marks.load(Acquire) == 0) {
            return;
        }
        let unit_size = BLOCKS_PER_UNIT.wrapping_mul(WORD_SIZE);
        let base = self.region.base().wrapping_add(first.wrapping_mul(unit_size));
        let size = n.wrapping_mul(unit_size);
        // SAFETY: whole pages of one mapping, of which nobody relies on the contents (B3).
        let is_done = P::HAS_MEMORY && unsafe { source.discard(base, size) };
        for (unit, marks) in units() {
            if !is_done {
                let words = self.all().iter().skip(unit.wrapping_mul(BLOCKS_PER_UNIT));
                words.take(BLOCKS_PER_UNIT).for_each(|word| word.store(0, SeqCst));
            }
            marks.store(0, SeqCst);
        }
    }

    /// How many pages were ever written.
    fn n_written_pages(&self) -> usize {
        // Relaxed: a figure.
        let pages = self.pages.iter().map(|marks| marks.load(Relaxed).count_ones() as usize).sum();
        if self.region.size() == WORDS_SIZE { pages } else { pages.min(1) }
    }
}

/// The word of one block.
struct Place<'h> {
    word: &'h AtomicU64,
    marks: &'h AtomicU8,
    /// The bit of `marks` that stands for the word's page.
    page: u8,
}

impl<'h> Place<'h> {
    /// Word `index` of a unit, which has so many.
    #[inline(always)]
    fn new(arena: &'h Arena, unit: usize, index: usize, n_words: usize) -> Option<Place<'h>> {
        let word = arena.words.all().get(unit.wrapping_mul(n_words).wrapping_add(index))?;
        let marks = arena.words.pages.get(unit)?;
        // An index is below `BLOCKS_PER_UNIT`, or there is no word.
        Some(Place { word, marks, page: 1u8.wrapping_shl((index / WORDS_PER_PAGE) as u32) })
    }

    #[inline]
    fn is_written(&self) -> bool {
        // Acquire puts the mark of another thread before this thread's word as well.
        self.marks.load(Acquire) & self.page != 0
    }

    #[inline]
    fn mark(&self) {
        if !self.is_written() {
            self.marks.fetch_or(self.page, SeqCst);
        }
    }

    fn get(&self) -> u64 {
        if self.is_written() { self.word.load(SeqCst) } else { 0 }
    }

    #[inline]
    fn swap(&self, word: u64) -> u64 {
        if word != 0 {
            self.mark();
        // Blocks without a word are common: their pages stay untouched, and their words unwritten.
        // Relaxed: see `swap_block_word`.
        } else if !self.is_written() || self.word.load(Relaxed) == 0 {
            return 0;
        }
        self.word.swap(word, SeqCst)
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        if new != 0 {
            self.mark();
        } else if !self.is_written() {
            return if current == 0 { Ok(0) } else { Err(0) };
        }
        self.word.compare_exchange(current, new, SeqCst, SeqCst)
    }
}

/// How many words a unit has.
fn n_words_of(arena: &Arena) -> usize {
    match arena.scale() {
        Scale::Small => BLOCKS_PER_UNIT,
        Scale::Big => 1,
    }
}

/// The blocks whose words are a unit's: where the first starts, what each takes, and how many there are.
fn blocks_of(first: &Pool, kind: Kind) -> Option<(usize, usize, usize)> {
    let base = first.base().addr();
    match kind {
        Kind::Pool(class) => Some((base, class.block_size(), class.blocks_per_pool())),
        Kind::Run => {
            let size = runs::bytes_of(first, u32::from(first.n_run_units.get()));
            Some((base, size, 1))
        }
        Kind::Unused | Kind::Inner(_) => None,
    }
}

impl Pool {
    /// The words of the unit's blocks; none if there are none that were ever written.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        let Some(arena) = self.arena() else { return &[] };
        let unit = self.unit() as usize;
        // Acquire pairs with the store of the mark.
        let is_written = |marks: &AtomicU8| marks.load(Acquire) != 0;
        if !arena.words.pages.get(unit).is_some_and(is_written) {
            return &[];
        }
        arena.words.all().chunks(n_words_of(arena)).nth(unit).unwrap_or(&[])
    }
}

impl Control {
    /// The place of the word of the block that starts at `addr`, in use or not, if it is in the first
    /// unit of a pool.
    #[inline(always)]
    fn near_place(&self, addr: usize) -> Option<Place<'_>> {
        let (arena, pool) = self.directory.find(addr)?;
        if arena.scale() == Scale::Big || pool.class().is_none() {
            return None;
        }
        let index = pool.index_at(addr % UNIT_SIZE)? as usize;
        Place::new(arena, addr % ARENA_SIZE / UNIT_SIZE, index, BLOCKS_PER_UNIT)
    }

    /// The place of the word of the block that starts at `addr`, in use or not, if it is of an arena.
    fn place(&self, addr: usize) -> Option<Place<'_>> {
        let (arena, unit) = self.directory.find_any(addr)?;
        let first = arena.first_of(unit)?;
        let offset = addr.wrapping_sub(first.base().addr());
        let index = match first.kind() {
            Kind::Pool(_) => first.index_at(offset)? as usize,
            Kind::Run if offset == 0 => 0,
            _ => return None,
        };
        Place::new(arena, first.unit() as usize, index, n_words_of(arena))
    }

    /// Calls `visit` with every written page of words: its unit, the index of the first there, and the
    /// words.
    fn for_each_page<'h>(
        &'h self,
        ordering: Ordering,
        mut visit: impl FnMut(&'h Pool, usize, &'h [AtomicU64]),
    ) {
        // So that all arenas are seen that were made before this; a signal handler that does not get
        // the lock sees those that its own thread has.
        drop(self.lock.lock());
        for arena in self.all_arenas().into_iter().flat_map(|arenas| arenas.records()) {
            let words = arena.words.all();
            let units = words.chunks(n_words_of(arena)).zip(&arena.words.pages).zip(&arena.pools);
            for ((words, marks), unit) in units {
                let marks = marks.load(ordering);
                if marks == 0 {
                    continue;
                }
                for (page, words) in words.chunks(WORDS_PER_PAGE).enumerate() {
                    if marks.wrapping_shr(page as u32) & 1 != 0 {
                        visit(unit, page.wrapping_mul(WORDS_PER_PAGE), words);
                    }
                }
            }
        }
    }
}

/// Visits the blocks in use of a unit among the `words` from the `start`th on, which is a multiple of 64.
#[inline(always)]
fn visit_blocks(
    first: &Pool,
    start: usize,
    words: &[AtomicU64],
    visit: &mut impl FnMut(Block),
) -> Option<()> {
    let kind = first.kind();
    let (base, usable_bytes, n_blocks) = blocks_of(first, kind)?;
    let words = words.get(..n_blocks.checked_sub(start)?.min(words.len()))?;
    for (group, words) in words.chunks(GROUP_WORDS).enumerate() {
        // Which words are set is found without a branch for each, and then each of those is looked at.
        let mut set = 0u64;
        for (i, word) in words.iter().enumerate() {
            set |= u64::from(word.load(Acquire) != 0).wrapping_shl(i as u32);
        }
        let start = group.wrapping_mul(GROUP_WORDS).wrapping_add(start);
        if matches!(kind, Kind::Pool(_)) {
            // A block's bit is set in neither bitmap while it is in use.
            set &= !first.free_bits_outside((start / GROUP_WORDS) as u32);
        }
        while set != 0 {
            let i = set.trailing_zeros() as usize;
            set &= set.wrapping_sub(1);
            let word = words.get(i)?.load(Acquire);
            // If what the unit serves has changed, the block was given back, and its word taken out.
            if word != 0 && first.kind() == kind {
                let offset = start.wrapping_add(i).wrapping_mul(usable_bytes);
                visit(Block { block_addr: base.wrapping_add(offset), usable_bytes, word });
            }
        }
    }
    Some(())
}

impl<P: PageSource> Shared<'_, P> {
    /// Does `change` with the word of the directly mapped block at `addr`.
    #[cold]
    #[inline(never)]
    fn with_mapping_word<R>(self, addr: usize, change: impl FnOnce(&mut u64) -> R) -> Option<R> {
        if !self.config.has_block_words() {
            return None;
        }
        self.lock()?.mappings.table.get_mut(addr).map(|mapping| change(&mut mapping.word))
    }

    /// Visits the directly mapped blocks with a word by ascending address.
    fn for_each_mapping(self, mut visit: impl FnMut(Block)) {
        let vacant = Block { block_addr: usize::MAX, usable_bytes: 0, word: 0 };
        let mut next_addr = 0usize;
        loop {
            let mut batch = [vacant; N_MAPPINGS_AT_ONCE];
            let Some(guard) = self.lock() else { return };
            for (block_addr, mapping) in guard.mappings.table.iter() {
                if block_addr < next_addr || mapping.word == 0 {
                    continue;
                }
                let usable_bytes = mapping.region.size();
                let mut entering = Block { block_addr, usable_bytes, word: mapping.word };
                for place in &mut batch {
                    if entering.block_addr < place.block_addr {
                        core::mem::swap(place, &mut entering);
                    }
                }
            }
            drop(guard);
            for &block in batch.iter().take_while(|block| block.word != 0) {
                visit(block);
            }
            let Some(last) = batch.last().filter(|block| block.word != 0) else { return };
            next_addr = last.block_addr.wrapping_add(1);
        }
    }

    /// Takes the words of all directly mapped blocks.
    fn take_mapping_words(self, mut taken: impl FnMut(u64)) {
        loop {
            let mut batch = [0u64; N_MAPPINGS_AT_ONCE];
            let Some(mut guard) = self.lock() else { return };
            let words = guard.mappings.table.values_mut().map(|mapping| &mut mapping.word);
            for (place, word) in batch.iter_mut().zip(words.filter(|word| **word != 0)) {
                core::mem::swap(place, word);
            }
            drop(guard);
            batch.iter().filter(|word| **word != 0).for_each(|&word| taken(word));
            if batch.last() == Some(&0) {
                return;
            }
        }
    }
}

/// # A word beside each block
/// With [`Config::block_words`](crate::Config::block_words) an embedder can keep 64 bits for each block,
/// found by the block's address: a number of who allocated it, for instance.
///
/// The word belongs to the *place*. That of a new block is what was left there: zero at first, so
/// zero as long as whoever gives a block back takes its word out before. The heap writes no word
/// itself, but makes those zero whose units go back to the system. A block that is resized where it lies
/// keeps its word. One that moves leaves it behind if it was copied, and takes it along if its pages
/// were remapped: so whoever resizes takes the word out first and sets it afterwards.
///
/// All exchanges are sequentially consistent.
impl<P: PageSource> Heap<P> {
    /// Returns the word of the block that starts at `block_addr`; `None` if there is none in use, as far
    /// as this thread can see, or words are not kept.
    #[must_use]
    pub fn block_word(&self, block_addr: usize) -> Option<u64> {
        let shared = self.existing()?;
        let Some(place) = shared.control.place(block_addr) else {
            return shared.with_mapping_word(block_addr, |word| *word);
        };
        let (arena, unit) = shared.control.directory.find_any(block_addr)?;
        let first = arena.first_of(unit)?;
        let offset = block_addr.wrapping_sub(first.base().addr());
        let is_free = matches!(first.kind(), Kind::Pool(_))
            && first.index_at(offset).is_some_and(|index| first.is_free_outside(index));
        (!is_free).then(|| place.get())
    }

    /// Replaces the word of the block that starts at `block_addr` and returns what it was; `None`, with
    /// nothing done, if no block can start there or words are not kept.
    ///
    /// Whether the block is in use is not looked at: the caller has it, or it is about to be given back.
    /// Zero is not written where this thread sees zero already.
    ///
    /// **Cost**: 8 ns where the block's records are in the cache, of which the atomic exchange takes 2;
    /// 25 ns at random among a million blocks. For a directly mapped block, above
    /// [`MAX_RUN_SIZE`](crate::MAX_RUN_SIZE), the heap's lock.
    #[inline]
    pub fn swap_block_word(&self, block_addr: usize, word: u64) -> Option<u64> {
        if let Some(control) = self.control.get_published()
            && let Some(place) = control.near_place(block_addr)
        {
            return Some(place.swap(word));
        }
        self.swap_farther(block_addr, word)
    }

    #[inline(never)]
    fn swap_farther(&self, block_addr: usize, word: u64) -> Option<u64> {
        let shared = self.existing()?;
        match shared.control.place(block_addr) {
            Some(place) => Some(place.swap(word)),
            None => shared.with_mapping_word(block_addr, |place| core::mem::replace(place, word)),
        }
    }

    /// Replaces the word of the block that starts at `block_addr` if it is `current`; returns what it was,
    /// as `Ok` if it was replaced. `None`, with nothing done, as for
    /// [`swap_block_word`](Self::swap_block_word).
    pub fn compare_exchange_block_word(
        &self,
        block_addr: usize,
        current: u64,
        new: u64,
    ) -> Option<Result<u64, u64>> {
        let shared = self.existing()?;
        let Some(place) = shared.control.place(block_addr) else {
            return shared.with_mapping_word(block_addr, |word| {
                let held = *word;
                if held != current {
                    return Err(held);
                }
                *word = new;
                Ok(held)
            });
        };
        Some(place.compare_exchange(current, new))
    }

    /// Visits every block in use whose word is not zero, while other threads take and give back.
    ///
    /// A block that lives through the walk, not resized, and has a word set before it, is visited exactly
    /// once, with a word that it had during the walk. A word that is zero throughout is not visited. Of
    /// blocks and words that come or go meanwhile, either may happen.
    ///
    /// No lock is held while `visit` runs: it may take blocks from this heap and give them back.
    ///
    /// **Cost**: reads the words, 8 bytes a block, and two bitmaps of each pool: 2 ms for a million
    /// blocks.
    pub fn for_each_block(&self, mut visit: impl FnMut(Block)) {
        let Some(shared) = self.existing() else { return };
        shared.control.for_each_page(Acquire, |first, start, words| {
            let _ = visit_blocks(first, start, words, &mut visit);
        });
        shared.for_each_mapping(visit);
    }

    /// Makes every word zero that is not, and tells of each.
    ///
    /// Whoever sets a word and then looks at a flag of the embedder's, which was stored before this call
    /// (both sequentially consistent), sees the flag, or the word is among those taken here.
    ///
    /// **Cost**: as [`for_each_block`](Self::for_each_block), and an atomic exchange a word.
    pub fn take_block_words(&self, mut taken: impl FnMut(u64)) {
        let Some(shared) = self.existing() else { return };
        shared.control.for_each_page(SeqCst, |_, _, words| {
            for word in words.iter().filter(|word| word.load(SeqCst) != 0) {
                let held = word.swap(0, SeqCst);
                if held != 0 {
                    taken(held);
                }
            }
        });
        shared.take_mapping_words(taken);
    }

    /// What the words take, in resident bytes: the pages that were ever written and not given back.
    #[must_use]
    pub fn block_word_bytes(&self) -> usize {
        let Some(shared) = self.existing() else { return 0 };
        drop(shared.lock());
        let arenas = shared.control.all_arenas().into_iter().flat_map(|arenas| arenas.records());
        let n_pages: usize = arenas.map(|arena| arena.words.n_written_pages()).sum();
        n_pages.saturating_mul(PAGE_SIZE)
    }
}
