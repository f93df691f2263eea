//! The arenas of this heap for its map.

use super::arena::Arena;
use super::profile::{POOLS_PER_ARENA, Profile};
use super::raw::RawBlocks;
use super::small::Small;
use crate::map::{ArenaView, Span, SpanKind};

/// The places of a heap's arenas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'h> {
    profile: Profile,
    small: &'h Small,
    raw: &'h RawBlocks,
}

impl<'h> Places<'h> {
    pub(super) fn new(profile: Profile, small: &'h Small, raw: &'h RawBlocks) -> Places<'h> {
        Places { profile, small, raw }
    }

    /// How many places there are, vacant or not.
    pub(crate) fn len(self) -> usize {
        self.small.arenas.arenas.len()
    }

    /// The blocks in no pool, and what was asked for with them in bytes.
    pub(crate) fn outside(self) -> (usize, usize) {
        (self.raw.table.len(), self.raw.requested_bytes)
    }

    /// The arena at `place`, if it is not vacant.
    pub(crate) fn view(self, place: usize) -> Option<ArenaView> {
        let arena = self.small.arenas.arenas.get(place).filter(|arena| !arena.is_vacant())?;
        let base_addr = arena.pool_addr(&self.profile, 0);
        let mut view = ArenaView::new(arena.serial, base_addr, self.profile.pool_size());
        for number in 0..arena.n_pools {
            view.push(self.span(place, arena, number)?);
        }
        Some(view)
    }

    fn span(self, place: usize, arena: &Arena, number: usize) -> Option<Span> {
        let index = place.checked_mul(POOLS_PER_ARENA)?.checked_add(number)?;
        let pool = self.small.arenas.pools.get(index)?;
        let is_dirty = number < arena.n_carved;
        let unused = Span { first_unit: number, n_units: 1, is_dirty, ..Span::default() };
        if pool.n_used == 0 {
            return Some(unused);
        }
        let (class, n_blocks_used) = (usize::from(pool.class), usize::from(pool.n_used));
        let block_size = self.profile.block_size(class);
        Some(Span {
            kind: SpanKind::Pool,
            class: Some(class),
            block_size,
            n_blocks: self.profile.blocks_per_pool(class),
            n_blocks_used,
            used_bytes: n_blocks_used.saturating_mul(block_size),
            ..unused
        })
    }
}
