//! The blocks in pools: size classes over arenas.
//!
//! # Mechanism
//! Each class has a list of its pools that are partly used and takes blocks from the first. A pool
//! that fills leaves the list; a full pool that gets a block back becomes its first; one that empties
//! goes back to its arena.
//!
//! # Invariants
//! - **S1** A class's list holds exactly its pools with a block in use and one that is not.
//! - **S2** A class's counters are the sums over its pools with a block in use.
//!
//! # Cost
//! Constant, with one look-up and one division to find a block by its address.

use super::arenas::{Arenas, split};
use super::error::InvalidFree;
use super::memory::Memory;
use super::profile::{N_CLASSES, POOL_HEADER, Profile};
use crate::list::{self, Head, Id};
use crate::pages::PageSource;

/// One size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) partial: Head,
    /// Pools with a block in use.
    pub(super) n_pools: usize,
    /// Blocks in use.
    pub(super) n_used: usize,
}

/// A block in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) pool: Id,
    pub(super) block: usize,
    pub(super) class: usize,
}

/// All classes and their arenas.
#[derive(Debug, Default)]
pub(super) struct Small {
    pub(super) arenas: Arenas,
    pub(super) classes: [Class; N_CLASSES],
}

impl Small {
    /// Takes a block of class `class` and returns its address; `None`, with nothing changed, if the
    /// pages are not to be had.
    pub(super) fn take(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        class: usize,
    ) -> Option<usize> {
        let id = match self.classes.get(class)?.partial {
            Some(id) => id,
            None => self.open_pool(memory, profile, class)?,
        };
        let (pool, blocks) = self.arenas.get_mut(profile, id)?;
        let block = pool.take(blocks, profile.blocks_per_pool(class))?;
        let is_full = pool.is_full();
        let of_class = self.classes.get_mut(class)?;
        of_class.n_used = of_class.n_used.wrapping_add(1);
        if is_full {
            list::remove(&mut of_class.partial, &mut self.arenas.pools, id);
        }
        let (place, number) = split(id);
        let pool_addr = self.arenas.arenas.get(place)?.pool_addr(profile, number);
        let offset = usize::from(block).wrapping_mul(profile.block_size(class));
        Some(pool_addr.wrapping_add(POOL_HEADER).wrapping_add(offset))
    }

    /// The block in use at `addr`.
    pub(super) fn locate(&self, profile: &Profile, addr: usize) -> Result<Spot, InvalidFree> {
        let id = self.arenas.find(profile, addr).ok_or(InvalidFree::Foreign)?;
        let (arena, pool) = self.arenas.get(id).ok_or(InvalidFree::Foreign)?;
        let class = usize::from(pool.class);
        let number = split(id).1;
        let block_size = profile.block_size(class);
        let offset = addr.wrapping_sub(arena.pool_addr(profile, number)).checked_sub(POOL_HEADER);
        let offset = offset.ok_or(InvalidFree::Misaligned)?;
        let block = offset.checked_div(block_size).unwrap_or(usize::MAX);
        let is_start = offset.checked_rem(block_size) == Some(0);
        if !is_start || block >= profile.blocks_per_pool(class) {
            return Err(InvalidFree::Misaligned);
        }
        pool.check(arena.blocks(profile, number), block)?;
        Ok(Spot { pool: id, block, class })
    }

    /// Gives a block back that has been located.
    pub(super) fn give_back(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        spot: Spot,
    ) {
        let Spot { pool: id, block, class } = spot;
        let Some((pool, blocks)) = self.arenas.get_mut(profile, id) else { return };
        let was_full = pool.give_back(blocks, block);
        let is_empty = pool.n_used == 0;
        let Some(of_class) = self.classes.get_mut(class) else { return };
        of_class.n_used = of_class.n_used.wrapping_sub(1);
        if was_full {
            list::push_front(&mut of_class.partial, &mut self.arenas.pools, id);
        } else if is_empty {
            of_class.n_pools = of_class.n_pools.wrapping_sub(1);
            list::remove(&mut of_class.partial, &mut self.arenas.pools, id);
            self.arenas.give_back_pool(memory, profile, id);
        }
    }

    /// Makes an unused pool the first of a class's list.
    fn open_pool(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        class: usize,
    ) -> Option<Id> {
        let id = self.arenas.take_pool(memory, profile)?;
        let (pool, blocks) = self.arenas.get_mut(profile, id)?;
        pool.open(u8::try_from(class).ok()?, blocks);
        let of_class = self.classes.get_mut(class)?;
        of_class.n_pools = of_class.n_pools.wrapping_add(1);
        list::push_front(&mut of_class.partial, &mut self.arenas.pools, id);
        Some(id)
    }
}
