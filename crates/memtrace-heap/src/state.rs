//! Everything under the heap's lock, and the walk that recounts it.
//!
//! # Mechanism
//! The small blocks, the large ones and the count of refused calls. What a layout is served from,
//! a class or a mapping, follows from the layout alone ([`SizeClass::of`]), so a block is always
//! looked for where it was made.
//!
//! # Cost
//! [`State::stats`] is linear in the number of classes and arena slots; [`State::verify`] in all
//! pools and mappings, a few microseconds an arena.

use crate::arenas::{POOLS_PER_ARENA, pool_id, usable_index};
use crate::class::{N_CLASSES, SizeClass};
use crate::classes::Classes;
use crate::fork;
use crate::list::{Head, Id, Links};
use crate::mapped::{Region, Source};
use crate::mappings::Mappings;
use crate::pages::PageSource;
use crate::pool::blocks_per_pool;
use crate::stats::{ArenaStats, ClassStats, HeapStats, InvalidFrees, MappingStats};
use crate::violation::Violation;

/// The state of a heap.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) small: Classes,
    pub(crate) large: Mappings,
    pub(crate) invalid_frees: InvalidFrees,
}

/// What a recount of one class's pools comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Recount {
    n_pools: usize,
    n_used: usize,
    n_partial: usize,
}

impl State {
    /// A copy of all figures. `own_bytes` is what the mapping of the state itself takes.
    pub(crate) fn stats(&self, own_bytes: usize) -> HeapStats {
        let mut stats = HeapStats { is_fork_safe: fork::is_installed(), ..HeapStats::default() };
        for (index, (to, from)) in stats.classes.iter_mut().zip(&self.small.classes).enumerate() {
            let Some(class) = SizeClass::from_index(index) else { continue };
            let n_blocks = from.n_pools.saturating_mul(blocks_per_pool(class));
            *to = ClassStats {
                block_size: class.block_size(),
                n_pools: from.n_pools,
                n_blocks_used: from.n_used,
                n_blocks_free: n_blocks.saturating_sub(from.n_used),
                n_blocks_total: from.n_total,
                requested_bytes: from.requested_bytes,
            };
        }
        let arenas = &self.small.arenas;
        let unused = arenas.slots.iter().map(|arena| arena.unused_pools.count_ones() as usize);
        stats.arenas = ArenaStats {
            n_current: arenas.n_current,
            n_high_water: arenas.n_high_water,
            n_total: arenas.n_total,
            n_pools_unused: unused.sum(),
        };
        stats.mappings = MappingStats {
            n_current: self.large.table.len(),
            n_total: self.large.n_total,
            requested_bytes: self.large.requested_bytes,
            mapped_bytes: self.large.mapped_bytes,
            mapped_bytes_high_water: self.large.mapped_bytes_high_water,
        };
        stats.metadata_bytes = arenas
            .metadata_bytes()
            .wrapping_add(self.large.table.n_bytes())
            .wrapping_add(own_bytes);
        stats.invalid_frees = self.invalid_frees;
        stats
    }

    /// Recounts everything from the bitmaps and the table and compares it with the counters.
    pub(crate) fn verify(&self) -> Result<(), Violation> {
        let recounts = self.verify_pools()?;
        for (index, recount) in recounts.iter().enumerate() {
            self.verify_class(index, recount)?;
        }
        self.verify_arenas()?;
        self.verify_mappings()?;
        if self.stats(0).identities_hold() { Ok(()) } else { Err(Violation::Identities) }
    }

    /// P1 to P3, A1 and A2; returns the counts that K1 and K2 speak of.
    fn verify_pools(&self) -> Result<[Recount; N_CLASSES], Violation> {
        let mut recounts = [Recount::default(); N_CLASSES];
        for arena in self.small.arenas.slots.iter() {
            for (pool_index, pool) in arena.pools.iter().enumerate() {
                if !pool.is_consistent() {
                    return Err(Violation::PoolBitmap);
                }
                let is_unused = arena.unused_pools >> pool_index & 1 != 0;
                if is_unused != pool.is_empty() {
                    return Err(Violation::UnusedPools);
                }
                let of_class = pool.class().and_then(|class| recounts.get_mut(class.index()));
                if let Some(recount) = of_class.filter(|_| !is_unused) {
                    recount.n_pools = recount.n_pools.wrapping_add(1);
                    recount.n_used = recount.n_used.wrapping_add(pool.n_used());
                    recount.n_partial =
                        recount.n_partial.wrapping_add(usize::from(!pool.is_full()));
                }
            }
        }
        Ok(recounts)
    }

    /// K1 and K2.
    fn verify_class(&self, index: usize, recount: &Recount) -> Result<(), Violation> {
        let class = self.small.classes.get(index).ok_or(Violation::ClassCounts)?;
        if class.n_pools != recount.n_pools || class.n_used != recount.n_used {
            return Err(Violation::ClassCounts);
        }
        let pool_of = |id| self.small.arenas.pool(id);
        let belongs = |id| {
            pool_of(id).is_some_and(|pool| {
                !pool.is_empty()
                    && !pool.is_full()
                    && pool.class().map(SizeClass::index) == Some(index)
            })
        };
        let links_of = |id| pool_of(id).map(|pool| pool.links);
        match list_len(class.partial, recount.n_partial, links_of, belongs) {
            Some(n_partial) if n_partial == recount.n_partial => Ok(()),
            _ => Err(Violation::ClassList),
        }
    }

    /// A1, A3 and A4.
    fn verify_arenas(&self) -> Result<(), Violation> {
        let arenas = &self.small.arenas;
        let (mut n_current, mut n_wholly_unused, mut n_usable) = (0usize, 0usize, 0usize);
        for (index, arena) in arenas.slots.iter().enumerate() {
            let base = arena.memory.base();
            if base.is_null() {
                if arena.unused_pools != 0 || !arena.pools.is_empty() {
                    return Err(Violation::ArenaIndex);
                }
                continue;
            }
            n_current = n_current.wrapping_add(1);
            n_wholly_unused =
                n_wholly_unused.wrapping_add(usize::from(arena.unused_pools == u64::MAX));
            n_usable = n_usable.wrapping_add(usize::from(arena.unused_pools != 0));
            let slot = Id::new(index);
            let is_found = arenas.slot_by_base.get(base.addr()) == Some(&slot);
            let has_ids = slot.and_then(|slot| pool_id(slot, POOLS_PER_ARENA.wrapping_sub(1)));
            if !is_found || has_ids.is_none() || arena.pools.len() != POOLS_PER_ARENA {
                return Err(Violation::ArenaIndex);
            }
        }
        if n_current != arenas.n_current || n_current != arenas.slot_by_base.len() {
            return Err(Violation::ArenaIndex);
        }
        if n_wholly_unused != arenas.n_wholly_unused || n_wholly_unused > 1 {
            return Err(Violation::WhollyUnusedArenas);
        }
        let links_of = |id: Id| arenas.slots.get(id.index()).map(|arena| arena.links);
        let mut n_listed = 0usize;
        for (index, head) in arenas.usable.iter().enumerate() {
            let belongs = |id: Id| {
                let arena = arenas.slots.get(id.index());
                arena.and_then(|arena| usable_index(arena.unused_pools)) == Some(index)
            };
            let n_here =
                list_len(*head, n_usable, links_of, belongs).ok_or(Violation::ArenaLists)?;
            if (arenas.usable_lists >> index & 1 != 0) != (n_here != 0) {
                return Err(Violation::ArenaLists);
            }
            n_listed = n_listed.wrapping_add(n_here);
        }
        let n_vacant = list_len(arenas.vacant, arenas.slots.len(), links_of, |id| {
            arenas.slots.get(id.index()).is_some_and(|arena| arena.memory.base().is_null())
        });
        let n_slots_left = arenas.slots.len().wrapping_sub(n_current);
        if n_listed != n_usable || n_vacant != Some(n_slots_left) {
            return Err(Violation::ArenaLists);
        }
        Ok(())
    }

    /// D1 and D2.
    fn verify_mappings(&self) -> Result<(), Violation> {
        let (mut mapped_bytes, mut requested_bytes, mut n_mappings) = (0usize, 0usize, 0usize);
        for (addr, mapping) in self.large.table.iter() {
            let size = mapping.region.size();
            if mapping.region.base().addr() != addr || mapping.requested_bytes > size {
                return Err(Violation::Mappings);
            }
            mapped_bytes = mapped_bytes.wrapping_add(size);
            requested_bytes = requested_bytes.wrapping_add(mapping.requested_bytes);
            n_mappings = n_mappings.wrapping_add(1);
        }
        let holds = mapped_bytes == self.large.mapped_bytes
            && requested_bytes == self.large.requested_bytes
            && n_mappings == self.large.table.len();
        if holds { Ok(()) } else { Err(Violation::Mappings) }
    }

    /// Unmaps all metadata, handing every region that holds blocks to `release`.
    pub(crate) fn unmap(
        self,
        source: Source<'_, impl PageSource>,
        mut release: impl FnMut(Region),
    ) {
        self.small.arenas.unmap(source, &mut release);
        self.large.table.unmap(source, |mapping| release(mapping.region));
    }
}

/// The number of nodes in a list, if each belongs there, its links agree with its neighbour's, and
/// there are at most `n_max`.
fn list_len(
    head: Head,
    n_max: usize,
    links_of: impl Fn(Id) -> Option<Links>,
    belongs: impl Fn(Id) -> bool,
) -> Option<usize> {
    let (mut n_nodes, mut prev, mut at) = (0usize, None, head);
    while let Some(id) = at {
        let links = links_of(id)?;
        if links.prev != prev || !belongs(id) || n_nodes >= n_max {
            return None;
        }
        n_nodes = n_nodes.wrapping_add(1);
        (prev, at) = (at, links.next);
    }
    Some(n_nodes)
}
