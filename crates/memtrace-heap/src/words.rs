//! A word of the embedder's choice beside each block.
//!
//! # Mechanism
//! With [`Config::block_words`](crate::Config::block_words) each arena has a second mapping, of words, of
//! which a pool has as many as it can have blocks and a run one
//! ([`word_space`](crate::word_space)). So from an address to its word there is nothing to search: the
//! directory, the unit's record, a multiplication. A directly mapped block has its word in its record,
//! under the heap's lock; if it was not taken out when the block is given back, in a table of such words.
//!
//! A walk goes from pool to pool and reads words on pages that were ever written. It leaves out words left
//! behind at places that bitmaps show as free. A sweep looks at all such pages, and at no bitmap.
//!
//! # Atomics
//! Those of [`word_space`](crate::word_space).
//!
//! A sweep finds the arenas after it has held the heap's lock. An arena that it does not see was made
//! after that, by a thread that has held the lock later: to such a thread all is known that whoever
//! sweeps did before. So an embedder's flag that is stored before a sweep, and looked at after a word
//! was exchanged, both SeqCst, is seen wherever the sweep did not see the word.
//!
//! # Cost
//! An exchange: a dozen loads in seven cache lines, of which all but the word's serve a pool or more, a
//! multiplication, one atomic exchange. 8 bytes a block, as far as pools are full. A walk reads the pages that were written.

use core::sync::atomic::Ordering::{Acquire, SeqCst};

use crate::arena::{Arena, Scale, UNIT_SIZE, UNITS_PER_ARENA};
use crate::control::Control;
use crate::heap::Heap;
use crate::pages::{PAGE_SIZE, PageSource};
use crate::pool::Kind;
use crate::runs;
use crate::shared::Shared;
use crate::word_space::Place;

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

impl Control {
    /// The place of the word of the block that starts at `addr`, in use or not, if it is in the first
    /// unit of a pool.
    #[inline(always)]
    fn near_place(&self, addr: usize) -> Option<Place<'_>> {
        let (arena, pool) = self.directory.find(addr)?;
        if arena.scale() == Scale::Big || pool.class().is_none() {
            return None;
        }
        let index = pool.index_at(addr % UNIT_SIZE)?;
        arena.words.place(pool.first_word.get().wrapping_add(index) as usize)
    }

    /// The place of the word of the block that starts at `addr`, in use or not, if it is of an arena.
    fn place(&self, addr: usize) -> Option<Place<'_>> {
        let (arena, unit) = self.directory.find_any(addr)?;
        let first = arena.first_of(unit)?;
        let offset = addr.wrapping_sub(first.base().addr());
        let index = match first.kind() {
            Kind::Pool(_) => first.index_at(offset)?,
            Kind::Run if offset == 0 => 0,
            _ => return None,
        };
        arena.words.place(first.first_word.get().wrapping_add(index) as usize)
    }

    /// Every arena's records. So that all are seen that were made before this, the lock is waited for; a
    /// signal handler that does not get it sees those that its own thread has.
    fn known_arenas(&self) -> impl Iterator<Item = &Arena> {
        drop(self.lock.lock());
        self.all_arenas().into_iter().flat_map(|arenas| arenas.records())
    }
}

/// Visits the blocks in use, with a word, of what begins in a unit of an arena.
#[inline(always)]
fn visit_blocks(arena: &Arena, unit: u8, visit: &mut impl FnMut(Block)) -> Option<()> {
    // By its number here: a unit that begins anew may not have been told yet which it is.
    let (first, span) = (arena.pool(unit.into())?, arena.words.of(unit)?);
    let base = first.base().addr();
    for (group, words) in span.words.chunks(GROUP_WORDS).enumerate() {
        let start = group.wrapping_mul(GROUP_WORDS);
        if !span.is_written(start, words.len()) {
            continue;
        }
        // Which words are set is found without a branch for each, and then each of those is looked at.
        let mut set = 0u64;
        for (i, word) in words.iter().enumerate() {
            set |= u64::from(word.load(Acquire) != 0).wrapping_shl(i as u32);
        }
        if matches!(span.kind, Kind::Pool(_)) {
            // A block's bit is set in neither bitmap while it is in use.
            set &= !first.free_bits_outside(group as u32);
        }
        while set != 0 {
            let i = set.trailing_zeros() as usize;
            set &= set.wrapping_sub(1);
            let word = words.get(i)?.load(Acquire);
            // If what the unit serves has changed, the block was given back, and its word taken out.
            if word == 0 || !span.are_still() {
                continue;
            }
            let usable_bytes = match span.kind {
                Kind::Pool(class) => class.block_size(),
                _ => runs::bytes_of(first, u32::from(first.n_run_units.get())),
            };
            let offset = start.wrapping_add(i).wrapping_mul(usable_bytes);
            visit(Block { block_addr: base.wrapping_add(offset), usable_bytes, word });
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

    /// Takes the words of all directly mapped blocks, and those that such blocks have left behind.
    fn take_mapping_words(self, mut taken: impl FnMut(u64)) {
        loop {
            let mut batch = [0u64; N_MAPPINGS_AT_ONCE];
            let Some(mut guard) = self.lock() else { return };
            let mappings = &mut guard.mappings;
            let words = mappings.table.values_mut().map(|mapping| &mut mapping.word);
            let words = words.chain(mappings.left_words.values_mut());
            for (place, word) in batch.iter_mut().zip(words.filter(|word| **word != 0)) {
                core::mem::swap(place, word);
            }
            let is_last = batch.last() == Some(&0);
            if is_last {
                core::mem::take(&mut mappings.left_words).unmap(self.source, drop);
            }
            drop(guard);
            batch.iter().filter(|word| **word != 0).for_each(|&word| taken(word));
            if is_last {
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
/// zero as long as whoever gives a block back takes its word out before. (What directly mapped blocks leave behind is kept in
/// a table, 16 bytes each, until a block is there again or [`take_block_words`](Heap::take_block_words) is called.) The heap
/// writes no word itself. Which words are a pool's is decided when it begins: one that was left behind may be found by a block
/// elsewhere. A block that is resized where it lies
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
        for arena in shared.control.known_arenas() {
            for unit in 0..UNITS_PER_ARENA as u8 {
                let _ = visit_blocks(arena, unit, &mut visit);
            }
        }
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
        for word in shared.control.known_arenas().flat_map(|arena| arena.words.written()) {
            if word.load(SeqCst) != 0 {
                let held = word.swap(0, SeqCst);
                if held != 0 {
                    taken(held);
                }
            }
        }
        shared.take_mapping_words(taken);
    }

    /// What the words take, in resident bytes: the pages that were ever written and not given back.
    #[must_use]
    pub fn block_word_bytes(&self) -> usize {
        let Some(shared) = self.existing() else { return 0 };
        let arenas = shared.control.known_arenas();
        let n_pages: usize = arenas.map(|arena| arena.words.n_written_pages()).sum();
        n_pages.saturating_mul(PAGE_SIZE)
    }
}
