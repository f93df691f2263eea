//! A pool: blocks of one class, taken last-freed first.
//!
//! # Mechanism
//! Each block has a link of 16 bits outside of it: the next block of the free list, the end of it,
//! or a mark that the block is in use. Blocks join the list when they are freed, and one at a time
//! by *carving* when it runs out; so the list is empty only when the pool is full.
//!
//! # Invariants
//! - **P1** The free list holds each carved block that is not in use, once.
//! - **P2** The free list is empty exactly if all blocks of the class are carved and in use.
//! - **P3** A pool that was never carved has class [`NO_CLASS`].
//!
//! # Cost
//! Constant for both operations.

use core::mem;

use super::error::InvalidFree;
use crate::list::Links;

/// The class of a pool that never had one.
pub(super) const NO_CLASS: u8 = u8::MAX;

/// The link of a block in use.
const IN_USE: u16 = u16::MAX;

/// The link of the last block of a free list.
const END: u16 = u16::MAX - 1;

/// One pool's record.
#[derive(Debug)]
pub(super) struct Pool {
    /// Neighbours in the class's list of pools that are partly used.
    pub(super) links: Links,
    pub(super) class: u8,
    /// The pool below in the arena's stack of emptied pools.
    pub(super) next_unused: u8,
    pub(super) n_used: u16,
    /// Blocks carved so far, from the lowest address on.
    pub(super) n_carved: u16,
    first_free: u16,
}

impl Default for Pool {
    fn default() -> Pool {
        Pool {
            links: Links::default(),
            class: NO_CLASS,
            next_unused: 0,
            n_used: 0,
            n_carved: 0,
            first_free: END,
        }
    }
}

impl Pool {
    /// Makes an unused pool one of `class`. One that was of this class before keeps its free list
    /// and the place up to which it is carved.
    pub(super) fn open(&mut self, class: u8, blocks: &mut [u16]) {
        if self.class == class {
            return;
        }
        self.class = class;
        self.n_carved = 0;
        self.carve(blocks);
    }

    /// Takes a block; `None` if the pool is full.
    pub(super) fn take(&mut self, blocks: &mut [u16], n_blocks: usize) -> Option<u16> {
        let taken = self.first_free;
        self.first_free = mem::replace(blocks.get_mut(usize::from(taken))?, IN_USE);
        self.n_used = self.n_used.wrapping_add(1);
        if self.is_full() && usize::from(self.n_carved) < n_blocks {
            self.carve(blocks);
        }
        Some(taken)
    }

    /// Whether block `block` is in use.
    pub(super) fn check(&self, blocks: &[u16], block: usize) -> Result<(), InvalidFree> {
        let is_carved = block < usize::from(self.n_carved);
        match blocks.get(block) {
            Some(&IN_USE) if is_carved => Ok(()),
            _ => Err(InvalidFree::Double),
        }
    }

    /// Gives block `block` back, which is in use; returns whether the pool was full.
    pub(super) fn give_back(&mut self, blocks: &mut [u16], block: usize) -> bool {
        let was_full = self.is_full();
        if let (Some(link), Ok(number)) = (blocks.get_mut(block), u16::try_from(block)) {
            *link = mem::replace(&mut self.first_free, number);
            self.n_used = self.n_used.wrapping_sub(1);
        }
        was_full
    }

    /// Whether no block is left.
    pub(super) fn is_full(&self) -> bool {
        self.first_free == END
    }

    /// P1 and P2, recounted.
    pub(super) fn is_consistent(&self, blocks: &[u16], n_blocks: usize) -> bool {
        let Some(carved) = blocks.get(..usize::from(self.n_carved)) else { return false };
        let n_used = carved.iter().filter(|&&link| link == IN_USE).count();
        let (mut n_free, mut at) = (0usize, self.first_free);
        // A list with a loop in it is longer than there are blocks.
        while let Some(&link) = carved.get(usize::from(at))
            && link != IN_USE
            && n_free < carved.len()
        {
            n_free = n_free.wrapping_add(1);
            at = link;
        }
        let is_whole = at == END && n_used.wrapping_add(n_free) == carved.len();
        let is_exhausted = n_used == n_blocks && carved.len() == n_blocks;
        let is_virgin = self.class == NO_CLASS && carved.is_empty();
        let counts = carved.len() <= n_blocks && n_used == usize::from(self.n_used);
        is_whole && counts && (is_virgin || self.is_full() == is_exhausted)
    }

    /// Makes the next untouched block the whole free list.
    fn carve(&mut self, blocks: &mut [u16]) {
        if let Some(link) = blocks.get_mut(usize::from(self.n_carved)) {
            *link = END;
            self.first_free = self.n_carved;
            self.n_carved = self.n_carved.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_last_freed_first_and_then_in_ascending_order() {
        let (mut pool, mut blocks) = (Pool::default(), [0; 4]);
        assert!(pool.is_consistent(&blocks, 4));
        pool.open(3, &mut blocks);
        for expected in 0..3 {
            assert_eq!(pool.take(&mut blocks, 4), Some(expected));
        }
        assert!(!pool.give_back(&mut blocks, 0));
        assert!(!pool.give_back(&mut blocks, 2));
        assert_eq!(pool.check(&blocks, 2), Err(InvalidFree::Double));
        for expected in [2, 0, 3] {
            assert!(pool.is_consistent(&blocks, 4));
            assert_eq!(pool.take(&mut blocks, 4), Some(expected));
        }
        assert!(pool.is_full());
        assert_eq!(pool.take(&mut blocks, 4), None);
        assert!(pool.give_back(&mut blocks, 1));
        assert!(pool.is_consistent(&blocks, 4));
    }

    #[test]
    fn a_pool_of_the_same_class_keeps_its_list_and_one_of_another_starts_anew() {
        let (mut pool, mut blocks) = (Pool::default(), [0; 8]);
        pool.open(3, &mut blocks);
        for _ in 0..3 {
            pool.take(&mut blocks, 8);
        }
        for block in [1, 0, 2] {
            pool.give_back(&mut blocks, block);
        }
        pool.open(3, &mut blocks);
        assert_eq!(pool.take(&mut blocks, 8), Some(2));
        pool.give_back(&mut blocks, 2);
        pool.open(4, &mut blocks);
        assert_eq!(pool.take(&mut blocks, 6), Some(0));
        assert_eq!((pool.n_carved, pool.n_used), (2, 1));
    }
}
