//! From an address to the records of its arena and unit.
//!
//! # Mechanism
//! A tree of two levels over the 47 bits of a user address: 4096 leaves of 32 GiB, each with a link
//! for each arena-sized piece. Any address may be asked for; what is in no arena leads to no record.
//!
//! # Invariants
//! - **T1** A link leads to an arena exactly while it is mapped at that address.
//!
//! # Cost
//! Two loads. A leaf takes 64 KiB of address space, of which a page holds the links of 2 GiB.

use crate::arena::{ARENA_SIZE, Arena, UNIT_SIZE};
use crate::cells::Link;
use crate::mapped::{Source, map_record};
use crate::pages::PageSource;
use crate::pool::Pool;

const ARENA_BITS: u32 = ARENA_SIZE.trailing_zeros();
const LEAF_BITS: u32 = 13;
const ROOT_BITS: u32 = 47 - LEAF_BITS - ARENA_BITS;

/// The links of 32 GiB.
#[derive(Debug)]
pub(crate) struct Leaf([Link<Arena>; 1 << LEAF_BITS]);

/// All arenas of a heap by address.
#[derive(Debug)]
pub(crate) struct Directory([Link<Leaf>; 1 << ROOT_BITS]);

impl Directory {
    /// The records of the arena and the unit in which `addr` lies, if the arena is a small one. For an
    /// address in a big one the unit is any of it; those have no owner.
    #[inline]
    pub(crate) fn find(&self, addr: usize) -> Option<(&Arena, &Pool)> {
        let arena = self.link(addr)?.get_published()?;
        Some((arena, arena.pool(addr % ARENA_SIZE / UNIT_SIZE)?))
    }

    /// The records of the arena and the unit in which `addr` lies, whatever the arena.
    pub(crate) fn find_any(&self, addr: usize) -> Option<(&Arena, &Pool)> {
        let (arena, _) = self.find(addr)?;
        Some((arena, arena.pool_at(addr)?))
    }

    #[inline]
    fn link(&self, addr: usize) -> Option<&Link<Arena>> {
        let leaf = self.0.get(addr.wrapping_shr(ARENA_BITS.wrapping_add(LEAF_BITS)))?;
        let at = addr.wrapping_shr(ARENA_BITS) & (1usize.wrapping_shl(LEAF_BITS).wrapping_sub(1));
        leaf.get_published()?.0.get(at)
    }

    /// Makes a place for an arena at `base`; `None` if there is no memory for it, or no place above
    /// 47 bits. To be called under the heap's lock.
    pub(crate) fn reserve(&self, source: Source<'_, impl PageSource>, base: usize) -> Option<()> {
        let leaf = self.0.get(base.wrapping_shr(ARENA_BITS.wrapping_add(LEAF_BITS)))?;
        if leaf.get().is_none() {
            leaf.publish(Some(map_record(source)?));
        }
        Some(())
    }

    /// Links the `size` bytes at `base` to `arena`, or to none.
    pub(crate) fn set(&self, base: usize, size: usize, arena: Option<&Arena>) {
        for offset in (0..size).step_by(ARENA_SIZE) {
            if let Some(link) = self.link(base.wrapping_add(offset)) {
                link.publish(arena);
            }
        }
    }

    /// How many leaves there are.
    pub(crate) fn n_leaves(&self) -> usize {
        self.leaves().count()
    }

    /// Each leaf.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Leaf> {
        self.0.iter().filter_map(Link::get)
    }
}
