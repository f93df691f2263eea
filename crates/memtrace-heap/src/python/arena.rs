//! An arena: one mapping cut into pools, and which of them are unused.
//!
//! # Mechanism
//! Pools are carved in ascending order; those that empty are stacked, and taken from the stack first.
//! The links of all blocks stand in one array next to the mapping, a run of it for each pool.
//!
//! # Invariants
//! - **A1** `n_unused` is the height of the stack plus the pools not carved yet.
//! - **A2** Carved pools are the first `n_carved`; those on the stack have no block in use, all
//!   others have.
//!
//! # Cost
//! Constant, but for mapping: two mappings, and an eighth of the arena's size written.

use core::mem;

use super::memory::Memory;
use super::pool::Pool;
use super::profile::{ALIGNMENT, POOLS_PER_ARENA, Profile};
use crate::list::Links;
use crate::mapped::{Array, Region};
use crate::pages::PageSource;

/// The number of no pool.
pub(super) const NO_POOL: u8 = u8::MAX;

/// One arena's record, or a vacant place for one.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// Neighbours in the list of arenas with as many unused pools, or of vacant places.
    pub(super) links: Links,
    pub(super) region: Region,
    /// The links of blocks: `pool_size / ALIGNMENT` for each pool.
    blocks: Array<u16>,
    /// How many arenas there were before this one.
    pub(super) serial: u64,
    pub(super) first_pool_addr: usize,
    pub(super) n_pools: usize,
    pub(super) n_unused: usize,
    pub(super) n_carved: usize,
    /// The top of the stack of emptied pools.
    pub(super) first_unused: u8,
}

impl Arena {
    /// Maps an arena; `None`, with nothing left behind, if the pages are not to be had.
    pub(super) fn map(
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        serial: u64,
    ) -> Option<Arena> {
        let (size, pool_size) = (profile.arena_size(), profile.pool_size());
        let blocks = Array::new(memory.source(), size / ALIGNMENT)?;
        let Some(region) = Region::map(memory.source(), size, pool_size) else {
            blocks.unmap(memory.source());
            return None;
        };
        let base = region.base().addr();
        let mask = pool_size.wrapping_sub(1);
        let first_pool_addr = base.wrapping_add(mask) & !mask;
        let is_aligned = first_pool_addr == base;
        let n_pools = if is_aligned { POOLS_PER_ARENA } else { POOLS_PER_ARENA - 1 };
        Some(Arena {
            links: Links::default(),
            region,
            blocks,
            serial,
            first_pool_addr,
            n_pools,
            n_unused: n_pools,
            n_carved: 0,
            first_unused: NO_POOL,
        })
    }

    /// Makes the place vacant and gives the memory back; no pool is in use.
    pub(super) fn unmap(&mut self, memory: &Memory<impl PageSource>) {
        let Arena { region, blocks, .. } = mem::take(self);
        memory.unmap(region);
        blocks.unmap(memory.source());
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.region.base().is_null()
    }

    /// Whether the next pool it gives is one that was never carved.
    pub(super) fn is_carving(&self) -> bool {
        self.first_unused == NO_POOL
    }

    /// Whether no pool is in use.
    pub(super) fn is_free(&self) -> bool {
        self.n_unused == self.n_pools
    }

    pub(super) fn is_aligned(&self) -> bool {
        self.n_pools == POOLS_PER_ARENA
    }

    /// Takes an unused pool, by its number; `pools` are this arena's. `None` if there is none.
    pub(super) fn take_pool(&mut self, pools: &[Pool]) -> Option<usize> {
        let number = if self.is_carving() {
            let number = self.n_carved;
            self.n_carved = Some(number).filter(|&number| number < self.n_pools)?.wrapping_add(1);
            number
        } else {
            let number = usize::from(self.first_unused);
            self.first_unused = pools.get(number)?.next_unused;
            number
        };
        self.n_unused = self.n_unused.wrapping_sub(1);
        Some(number)
    }

    /// Stacks pool `number`, which has just been emptied.
    pub(super) fn give_back_pool(&mut self, pools: &mut [Pool], number: usize) {
        if let (Some(pool), Ok(top)) = (pools.get_mut(number), u8::try_from(number)) {
            pool.next_unused = mem::replace(&mut self.first_unused, top);
            self.n_unused = self.n_unused.wrapping_add(1);
        }
    }

    /// The address of pool `number`.
    pub(super) fn pool_addr(&self, profile: &Profile, number: usize) -> usize {
        self.first_pool_addr.wrapping_add(number.wrapping_mul(profile.pool_size()))
    }

    /// The links of the blocks of pool `number`.
    pub(super) fn blocks(&self, profile: &Profile, number: usize) -> &[u16] {
        let len = profile.pool_size() / ALIGNMENT;
        let start = number.wrapping_mul(len);
        self.blocks.get(start..start.wrapping_add(len)).unwrap_or_default()
    }

    /// The links of the blocks of pool `number`, to change.
    pub(super) fn blocks_mut(&mut self, profile: &Profile, number: usize) -> &mut [u16] {
        let len = profile.pool_size() / ALIGNMENT;
        let start = number.wrapping_mul(len);
        self.blocks.get_mut(start..start.wrapping_add(len)).unwrap_or_default()
    }

    /// The mapped size of its records, in bytes.
    pub(super) fn n_record_bytes(&self) -> usize {
        self.blocks.n_bytes()
    }

    /// A1 and A2, recounted.
    pub(super) fn is_consistent(&self, pools: &[Pool]) -> bool {
        let Some(carved) = pools.get(..self.n_carved) else { return false };
        let (mut height, mut at) = (0usize, self.first_unused);
        while let Some(pool) = carved.get(usize::from(at))
            && pool.n_used == 0
            && height < carved.len()
        {
            height = height.wrapping_add(1);
            at = pool.next_unused;
        }
        let n_empty = carved.iter().filter(|pool| pool.n_used == 0).count();
        let n_virgin = self.n_pools.saturating_sub(self.n_carved);
        at == NO_POOL && height == n_empty && self.n_unused == n_empty.wrapping_add(n_virgin)
    }
}
