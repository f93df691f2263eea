//! One pool: 64 KiB cut into blocks of one size, with its occupancy kept outside of it.
//!
//! # Mechanism
//! A pool's blocks stand at multiples of the block size from its start. Which of them are free is a
//! bitmap of at most 4096 bits in 64 words, and a summary word says which of those words have a
//! free block: the lowest free block is found with two count-zeros instructions. Nothing is ever
//! written inside a free block, so a use after free corrupts no list and a double free is just a
//! bit that is already set.
//!
//! Lowest first keeps a pool dense and its upper pages untouched; `n_dirty_bytes` remembers how far
//! blocks have ever been handed out since the memory was mapped, above which all is still zero.
//!
//! # Invariants
//! - **P1** Bit `i` of `free` is set exactly if block `i < n_blocks` is not in use; higher bits are
//!   clear.
//! - **P2** Bit `w` of `open_words` is set exactly if `free[w] != 0`.
//! - **P3** `n_used` plus the number of set bits of `free` is `n_blocks`.
//! - **P4** Bytes of the pool at `n_dirty_bytes` and beyond were never part of a block handed out.
//! - **P5** A pool without blocks in use may be given to another class; one with blocks may not.
//!
//! # Cost
//! Constant for taking and giving back; 64 words written when a pool changes its class.

use crate::class::SizeClass;
use crate::list::Links;
use crate::stats::InvalidFree;

/// The size and alignment of a pool, in bytes.
pub const POOL_SIZE: usize = 64 * 1024;

const N_WORDS: usize = 64;
const WORD_BITS: usize = 64;

/// Where in a pool a block was found free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Bytes from the pool's start.
    pub(crate) offset: usize,
    /// Whether the block's bytes are zero because nobody ever had them.
    pub(crate) is_zero: bool,
}

/// The metadata of one pool.
#[derive(Debug)]
pub(crate) struct Pool {
    /// Neighbours in the class's list of partly used pools.
    pub(crate) links: Links,
    class: Option<SizeClass>,
    block_size: u32,
    n_blocks: u32,
    n_used: u32,
    n_dirty_bytes: u32,
    open_words: u64,
    free: [u64; N_WORDS],
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            links: Links::default(),
            class: None,
            block_size: 0,
            n_blocks: 0,
            n_used: 0,
            n_dirty_bytes: 0,
            open_words: 0,
            free: [0; N_WORDS],
        }
    }
}

/// How many blocks of `class` a pool holds.
pub(crate) fn blocks_per_pool(class: SizeClass) -> usize {
    // C1: no block size is zero.
    POOL_SIZE.checked_div(class.block_size()).unwrap_or(0)
}

impl Pool {
    /// Makes a pool without blocks in use serve `class`. A pool that served it before keeps its
    /// bitmap, which is right as it stands.
    pub(crate) fn assign(&mut self, class: SizeClass) {
        if self.class == Some(class) {
            return;
        }
        let n_blocks = blocks_per_pool(class);
        self.class = Some(class);
        self.block_size = class.block_size() as u32;
        self.n_blocks = n_blocks as u32;
        self.open_words = 0;
        for (word_index, word) in self.free.iter_mut().enumerate() {
            *word = valid_bits(n_blocks, word_index);
            self.open_words |= u64::from(*word != 0).wrapping_shl(word_index as u32);
        }
    }

    /// The class last served; `None` for a pool never used.
    pub(crate) fn class(&self) -> Option<SizeClass> {
        self.class
    }

    /// How many blocks are in use.
    pub(crate) fn n_used(&self) -> usize {
        self.n_used as usize
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open_words == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.n_used == 0
    }

    /// Takes the lowest free block; `None` when the pool is full.
    pub(crate) fn take(&mut self) -> Option<Taken> {
        let word_index = self.open_words.trailing_zeros();
        let word = self.free.get_mut(word_index as usize)?;
        let bit = word.trailing_zeros();
        // P2: the word is not zero, so its lowest bit can be cleared so.
        *word &= word.wrapping_sub(1);
        if *word == 0 {
            self.open_words &= self.open_words.wrapping_sub(1);
        }
        // The block lies in the pool, so no sum or product exceeds POOL_SIZE.
        let block_index = word_index.wrapping_mul(WORD_BITS as u32).wrapping_add(bit);
        let offset = block_index.wrapping_mul(self.block_size);
        let is_zero = offset >= self.n_dirty_bytes;
        self.n_dirty_bytes = self.n_dirty_bytes.max(offset.wrapping_add(self.block_size));
        self.n_used = self.n_used.wrapping_add(1);
        Some(Taken { offset: offset as usize, is_zero })
    }

    /// Marks the block at `offset` as free.
    pub(crate) fn give_back(&mut self, offset: usize, class: SizeClass) -> Result<(), InvalidFree> {
        let block_index = self.block_in_use(offset, class)?;
        let word_index = block_index / WORD_BITS;
        if let Some(word) = self.free.get_mut(word_index) {
            *word |= bit_of(block_index);
        }
        self.open_words |= bit_of(word_index);
        // P3: the block was in use, so the count is not zero.
        self.n_used = self.n_used.wrapping_sub(1);
        Ok(())
    }

    /// The index of the block of `class` in use at `offset`, or what is wrong with such a claim.
    pub(crate) fn block_in_use(
        &self,
        offset: usize,
        class: SizeClass,
    ) -> Result<usize, InvalidFree> {
        // Told apart in this order so that an unused pool, which still has its old class, reports
        // what most probably happened: the block was freed before.
        if self.n_used == 0 {
            return Err(InvalidFree::Double);
        }
        if self.class != Some(class) {
            return Err(InvalidFree::WrongLayout);
        }
        let block_size = class.block_size();
        let block_index = offset.checked_div(block_size).unwrap_or(usize::MAX);
        if !offset.is_multiple_of(block_size) || block_index >= self.n_blocks as usize {
            return Err(InvalidFree::Misaligned);
        }
        match self.free.get(block_index / WORD_BITS) {
            Some(word) if word & bit_of(block_index) == 0 => Ok(block_index),
            _ => Err(InvalidFree::Double),
        }
    }

    /// Whether P1 to P3 hold, by recounting from the bitmap.
    pub(crate) fn is_consistent(&self) -> bool {
        let Some(class) = self.class else { return self.n_used == 0 && self.open_words == 0 };
        let n_blocks = blocks_per_pool(class);
        let words = || self.free.iter().enumerate();
        let no_bits_beyond =
            words().all(|(word_index, word)| word & !valid_bits(n_blocks, word_index) == 0);
        let summary_holds = words()
            .all(|(word_index, word)| (self.open_words & bit_of(word_index) != 0) == (*word != 0));
        let n_free: u32 = self.free.iter().map(|word| word.count_ones()).sum();
        no_bits_beyond
            && summary_holds
            && self.n_blocks as usize == n_blocks
            && self.block_size as usize == class.block_size()
            && self.n_used.checked_add(n_free) == Some(self.n_blocks)
    }
}

/// The bit of block or word `index` within its word.
const fn bit_of(index: usize) -> u64 {
    1u64.wrapping_shl(index as u32)
}

/// The bits of word `word_index` that stand for one of `n_blocks` blocks.
const fn valid_bits(n_blocks: usize, word_index: usize) -> u64 {
    let n_before = word_index.wrapping_mul(WORD_BITS);
    let n_here = n_blocks.saturating_sub(n_before);
    if n_here >= WORD_BITS { u64::MAX } else { bit_of(n_here).wrapping_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::N_CLASSES;

    fn class(index: usize) -> SizeClass {
        SizeClass::from_index(index).unwrap()
    }

    #[test]
    fn every_class_fills_and_empties_a_pool_lowest_first() {
        let mut pool = Pool::default();
        let mut n_dirty = 0;
        for index in 0..N_CLASSES {
            let class = class(index);
            pool.assign(class);
            for block in 0..blocks_per_pool(class) {
                let offset = block * class.block_size();
                assert_eq!(pool.take(), Some(Taken { offset, is_zero: offset >= n_dirty }));
            }
            n_dirty = n_dirty.max(blocks_per_pool(class) * class.block_size());
            assert!(pool.is_full() && pool.is_consistent());
            assert_eq!(pool.take(), None);
            for block in (0..blocks_per_pool(class)).rev() {
                pool.give_back(block * class.block_size(), class).unwrap();
            }
            assert!(pool.is_empty() && pool.is_consistent());
        }
    }

    #[test]
    fn each_wrong_free_is_told_apart_and_changes_nothing() {
        let mut pool = Pool::default();
        assert_eq!(pool.give_back(0, class(2)), Err(InvalidFree::Double));
        pool.assign(class(2));
        let first = pool.take().unwrap().offset;
        let second = pool.take().unwrap().offset;
        assert_eq!(pool.give_back(first + 16, class(2)), Err(InvalidFree::Misaligned));
        assert_eq!(pool.give_back(POOL_SIZE - 16, class(2)), Err(InvalidFree::Misaligned));
        assert_eq!(pool.give_back(first, class(3)), Err(InvalidFree::WrongLayout));
        assert_eq!(pool.give_back(2 * second, class(2)), Err(InvalidFree::Double));
        assert_eq!(pool.give_back(first, class(2)), Ok(()));
        assert_eq!(pool.give_back(first, class(2)), Err(InvalidFree::Double));
        assert_eq!(pool.n_used(), 1);
        assert!(pool.is_consistent());
    }
}
