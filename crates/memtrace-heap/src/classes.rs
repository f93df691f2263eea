//! The small blocks: for each size class, its pools with room and its counters.
//!
//! # Mechanism
//! A class takes blocks from the first pool of its list of partly used pools; when there is none it
//! takes a pool from the arenas. A pool that fills leaves the list, one that gets a block back
//! while full returns to the front, one that empties goes back to its arena.
//!
//! Requested bytes are accounted from the layouts of `alloc` and `dealloc`, which must agree by the
//! contract of `GlobalAlloc`; no block stores its size. A caller that frees with a size of another
//! class is found out; one that errs within the class skews `requested_bytes` and nothing else.
//!
//! # Invariants
//! - **K1** `n_pools` and `n_used` are the pools in the class's hands and their blocks in use.
//! - **K2** `partial` holds exactly those of its pools that are not full; none of them is empty.
//! - **K3** `requested_bytes` is at most `n_used * block_size`.
//!
//! # Cost
//! Constant, plus a hash look-up for the arena when a block is given back.

use crate::arenas::{Arenas, EmptyArena};
use crate::class::{N_CLASSES, SizeClass};
use crate::list::{self, Head};
use crate::mapped::Source;
use crate::pages::PageSource;
use crate::stats::InvalidFree;

/// One class's pools and counters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Class {
    pub(crate) partial: Head,
    pub(crate) n_pools: usize,
    pub(crate) n_used: usize,
    pub(crate) n_total: u64,
    pub(crate) requested_bytes: usize,
}

/// A block just taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) ptr: *mut u8,
    /// Whether all its bytes are zero already.
    pub(crate) is_zero: bool,
}

/// All classes, and the arenas under them.
#[derive(Debug)]
pub(crate) struct Classes {
    pub(crate) classes: [Class; N_CLASSES],
    pub(crate) arenas: Arenas,
}

impl Default for Classes {
    fn default() -> Classes {
        Classes { classes: [Class::default(); N_CLASSES], arenas: Arenas::default() }
    }
}

impl Classes {
    /// Takes a block of `class` for a request of `size` bytes; `None` if no arena can be mapped.
    pub(crate) fn take(
        &mut self,
        source: Source<'_, impl PageSource>,
        class: SizeClass,
        size: usize,
    ) -> Option<Block> {
        let of_class = self.classes.get_mut(class.index())?;
        let id = match of_class.partial {
            Some(id) => id,
            None => {
                let id = self.arenas.take_pool(source)?;
                self.arenas.pool_mut(id)?.assign(class);
                list::push_front(&mut of_class.partial, &mut self.arenas, id);
                of_class.n_pools = of_class.n_pools.wrapping_add(1);
                id
            }
        };
        let pool = self.arenas.pool_mut(id)?;
        let taken = pool.take()?;
        if pool.is_full() {
            list::remove(&mut of_class.partial, &mut self.arenas, id);
        }
        of_class.n_used = of_class.n_used.wrapping_add(1);
        of_class.n_total = of_class.n_total.wrapping_add(1);
        of_class.requested_bytes = of_class.requested_bytes.wrapping_add(size);
        Some(Block { ptr: self.arenas.block_ptr(id, taken.offset), is_zero: taken.is_zero })
    }

    /// Gives back the block of `class` at `addr`, requested with `size` bytes; returns an arena
    /// that is not needed any more. What is not such a block changes nothing.
    pub(crate) fn give_back(
        &mut self,
        addr: usize,
        class: SizeClass,
        size: usize,
    ) -> Result<Option<EmptyArena>, InvalidFree> {
        let (id, offset) = self.arenas.locate(addr).ok_or(InvalidFree::Foreign)?;
        let pool = self.arenas.pool_mut(id).ok_or(InvalidFree::Foreign)?;
        let was_full = pool.is_full();
        pool.give_back(offset, class)?;
        let is_empty = pool.is_empty();
        let Some(of_class) = self.classes.get_mut(class.index()) else { return Ok(None) };
        of_class.n_used = of_class.n_used.wrapping_sub(1);
        // Saturating, so that a caller whose sizes disagree does not wrap the figure.
        of_class.requested_bytes = of_class.requested_bytes.saturating_sub(size);
        match (was_full, is_empty) {
            (true, false) => list::push_front(&mut of_class.partial, &mut self.arenas, id),
            (false, true) => list::remove(&mut of_class.partial, &mut self.arenas, id),
            (false, false) => {}
            // A pool of one block would go from no list to no list; no class has such pools.
            (true, true) => {}
        }
        if !is_empty {
            return Ok(None);
        }
        of_class.n_pools = of_class.n_pools.wrapping_sub(1);
        Ok(self.arenas.give_back_pool(id))
    }

    /// Whether a block of `class` in use starts at `addr`.
    pub(crate) fn check(&self, addr: usize, class: SizeClass) -> Result<(), InvalidFree> {
        let (id, offset) = self.arenas.locate(addr).ok_or(InvalidFree::Foreign)?;
        let pool = self.arenas.pool(id).ok_or(InvalidFree::Foreign)?;
        pool.block_in_use(offset, class).map(|_| ())
    }

    /// Accounts the block of `class` at `addr` with `new_size` bytes instead of `old_size`.
    pub(crate) fn resize(
        &mut self,
        addr: usize,
        class: SizeClass,
        old_size: usize,
        new_size: usize,
    ) -> Result<(), InvalidFree> {
        self.check(addr, class)?;
        if let Some(of_class) = self.classes.get_mut(class.index()) {
            of_class.requested_bytes =
                of_class.requested_bytes.saturating_sub(old_size).wrapping_add(new_size);
        }
        Ok(())
    }
}
