//! The arenas: where pools come from, fullest arena first.
//!
//! # Mechanism
//! Arenas with unused pools stand in lists by how many those are; one after the other, ascending,
//! the lists are CPython's list of usable arenas. There an arena whose count rises slides right to
//! just before the first with as many: here it goes to the front of the next list. Records stand in
//! places that are used again; pools are numbered by place, [`POOLS_PER_ARENA`] for each.
//!
//! # Invariants
//! - **U1** An arena is in list `n_unused`, or in none if that is zero.
//! - **U2** At most one arena is wholly free, and none if the version keeps none.
//! - **U3** The table holds the carved pools of live arenas, by address, and nothing else.
//!
//! # Cost
//! Constant, but for the search of a list that is not empty (65 at most), and for arenas that come
//! and go.

use core::mem;

use super::arena::Arena;
use super::map::ArenaMap;
use super::memory::Memory;
use super::pool::Pool;
use super::profile::{POOLS_PER_ARENA, Profile};
use crate::list::{self, Head, Id, Links, Nodes};
use crate::mapped::Array;
use crate::pages::PageSource;
use crate::table::AddressTable;

/// All arenas.
#[derive(Debug)]
pub(super) struct Arenas {
    pub(super) arenas: Array<Arena>,
    pub(super) pools: Array<Pool>,
    /// Lists of arenas by their number of unused pools; the first stays empty.
    pub(super) usable: [Head; POOLS_PER_ARENA + 1],
    /// Places for arenas to come.
    vacant: Head,
    pub(super) table: AddressTable<u32>,
    pub(super) map: ArenaMap,
    pub(super) counts: ArenaCounts,
}

/// The counters of arenas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ArenaCounts {
    pub(super) n_total: u64,
    pub(super) n_current: usize,
    pub(super) n_high_water: usize,
    /// Arenas, of the current ones, that do not begin at a multiple of the pool size.
    pub(super) n_misaligned: usize,
    /// Pools of the current arenas without a block in use.
    pub(super) n_pools_unused: usize,
}

impl Default for Arenas {
    fn default() -> Arenas {
        Arenas {
            arenas: Array::default(),
            pools: Array::default(),
            usable: [None; POOLS_PER_ARENA + 1],
            vacant: None,
            table: AddressTable::default(),
            map: ArenaMap::default(),
            counts: ArenaCounts::default(),
        }
    }
}

impl Nodes for Array<Arena> {
    fn links_mut(&mut self, id: Id) -> Option<&mut Links> {
        self.get_mut(id.index()).map(|arena| &mut arena.links)
    }
}

impl Nodes for Array<Pool> {
    fn links_mut(&mut self, id: Id) -> Option<&mut Links> {
        self.get_mut(id.index()).map(|pool| &mut pool.links)
    }
}

/// The place of a pool's arena, and the pool's number in it.
pub(super) fn split(pool: Id) -> (usize, usize) {
    (pool.index() / POOLS_PER_ARENA, pool.index() % POOLS_PER_ARENA)
}

/// The pools of the arena at place `place`.
fn of_arena(pools: &mut [Pool], place: usize) -> &mut [Pool] {
    pools.chunks_exact_mut(POOLS_PER_ARENA).nth(place).unwrap_or_default()
}

impl Arenas {
    /// The arena and the record of `pool`.
    pub(super) fn get(&self, pool: Id) -> Option<(&Arena, &Pool)> {
        Some((self.arenas.get(split(pool).0)?, self.pools.get(pool.index())?))
    }

    /// The links of the blocks, and the record, of `pool`, to change.
    pub(super) fn get_mut(
        &mut self,
        profile: &Profile,
        pool: Id,
    ) -> Option<(&mut Pool, &mut [u16])> {
        let (place, number) = split(pool);
        let blocks = self.arenas.get_mut(place)?.blocks_mut(profile, number);
        Some((self.pools.get_mut(pool.index())?, blocks))
    }

    /// The carved pool that `addr` lies in.
    pub(super) fn find(&self, profile: &Profile, addr: usize) -> Option<Id> {
        let pool_addr = addr & !profile.pool_size().wrapping_sub(1);
        Id::new(usize::try_from(*self.table.get(pool_addr)?).ok()?)
    }

    /// Takes an unused pool from the fullest arena, or from a new one; `None`, with nothing
    /// changed, if the pages are not to be had.
    pub(super) fn take_pool(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
    ) -> Option<Id> {
        let usable = self.usable.iter().find_map(|head| *head);
        let arena = usable.and_then(|id| self.arenas.get(id.index()));
        if arena.is_none_or(Arena::is_carving) && !self.table.reserve(memory.source()) {
            return None;
        }
        let id = match usable {
            Some(id) => id,
            None => self.add_arena(memory, profile)?,
        };
        let place = id.index();
        let arena = self.arenas.get_mut(place)?;
        let (n_before, n_carved) = (arena.n_unused, arena.n_carved);
        let number = arena.take_pool(of_arena(&mut self.pools, place))?;
        let (n_now, is_carved) = (arena.n_unused, arena.n_carved != n_carved);
        let pool_addr = arena.pool_addr(profile, number);
        let index = place.checked_mul(POOLS_PER_ARENA)?.checked_add(number)?;
        if is_carved {
            self.table.insert(pool_addr, u32::try_from(index).ok()?);
        }
        self.relist(id, n_before, n_now);
        self.counts.n_pools_unused = self.counts.n_pools_unused.wrapping_sub(1);
        Id::new(index)
    }

    /// Takes `pool` back, which has just been emptied, and unmaps its arena if that is wholly free
    /// and not to be kept.
    pub(super) fn give_back_pool(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        pool: Id,
    ) {
        let (place, number) = split(pool);
        let Some(id) = Id::new(place) else { return };
        let Some(arena) = self.arenas.get_mut(place) else { return };
        let n_before = arena.n_unused;
        arena.give_back_pool(of_arena(&mut self.pools, place), number);
        let (n_now, is_free) = (arena.n_unused, arena.is_free());
        // Last before it slides: nothing behind it in its list, and nothing in those after.
        let mut after = self.usable.iter().skip(n_now);
        let is_last = arena.links.next.is_none() && after.all(Option::is_none);
        self.counts.n_pools_unused = self.counts.n_pools_unused.wrapping_add(1);
        self.relist(id, n_before, n_now);
        if is_free && !(is_last && profile.keeps_last_arena()) {
            self.remove_arena(memory, profile, id);
        }
    }

    /// The mapped size of all records, in bytes.
    pub(super) fn n_record_bytes(&self) -> usize {
        let of_all = self.arenas.n_bytes().wrapping_add(self.pools.n_bytes());
        let of_tables = self.table.n_bytes().wrapping_add(self.map.n_record_bytes());
        let of_arenas = self.arenas.iter().map(Arena::n_record_bytes);
        of_arenas.fold(of_all.wrapping_add(of_tables), usize::wrapping_add)
    }

    /// Gives all memory back.
    pub(super) fn unmap(&mut self, memory: &Memory<impl PageSource>) {
        let Arenas { mut arenas, pools, table, map, .. } = mem::take(self);
        for arena in arenas.iter_mut().filter(|arena| !arena.is_vacant()) {
            arena.unmap(memory);
        }
        arenas.unmap(memory.source());
        pools.unmap(memory.source());
        table.unmap(memory.source(), drop);
        map.unmap(memory);
    }

    /// Moves an arena from list `n_before` to the front of list `n_now`; list zero is none.
    fn relist(&mut self, id: Id, n_before: usize, n_now: usize) {
        if let Some(head) = self.usable.get_mut(n_before).filter(|_| n_before != 0) {
            list::remove(head, &mut self.arenas, id);
        }
        if let Some(head) = self.usable.get_mut(n_now).filter(|_| n_now != 0) {
            list::push_front(head, &mut self.arenas, id);
        }
    }

    /// Maps an arena and lists it.
    fn add_arena(&mut self, memory: &Memory<impl PageSource>, profile: &Profile) -> Option<Id> {
        if self.vacant.is_none() {
            self.add_places(memory)?;
        }
        let id = self.vacant?;
        let mut arena = Arena::map(memory, profile, self.counts.n_total)?;
        if !self.map.mark(memory, profile, arena.region.base().addr()) {
            arena.unmap(memory);
            return None;
        }
        list::remove(&mut self.vacant, &mut self.arenas, id);
        of_arena(&mut self.pools, id.index()).fill_with(Pool::default);
        let counts = &mut self.counts;
        counts.n_total = counts.n_total.wrapping_add(1);
        counts.n_current = counts.n_current.wrapping_add(1);
        counts.n_high_water = counts.n_high_water.max(counts.n_current);
        counts.n_misaligned = counts.n_misaligned.wrapping_add(usize::from(!arena.is_aligned()));
        counts.n_pools_unused = counts.n_pools_unused.wrapping_add(arena.n_unused);
        let n_unused = arena.n_unused;
        *self.arenas.get_mut(id.index())? = arena;
        self.relist(id, 0, n_unused);
        Some(id)
    }

    /// Forgets a wholly free arena and unmaps it.
    fn remove_arena(&mut self, memory: &Memory<impl PageSource>, profile: &Profile, id: Id) {
        let Some(arena) = self.arenas.get(id.index()) else { return };
        for number in 0..arena.n_carved {
            self.table.remove(arena.pool_addr(profile, number));
        }
        let (n_unused, is_misaligned) = (arena.n_unused, !arena.is_aligned());
        self.relist(id, n_unused, 0);
        if let Some(arena) = self.arenas.get_mut(id.index()) {
            arena.unmap(memory);
        }
        list::push_front(&mut self.vacant, &mut self.arenas, id);
        let counts = &mut self.counts;
        counts.n_current = counts.n_current.wrapping_sub(1);
        counts.n_misaligned = counts.n_misaligned.wrapping_sub(usize::from(is_misaligned));
        counts.n_pools_unused = counts.n_pools_unused.wrapping_sub(n_unused);
    }

    /// Makes places for more arenas; `None`, with nothing changed, if the pages are not to be had.
    fn add_places(&mut self, memory: &Memory<impl PageSource>) -> Option<()> {
        let n_before = self.arenas.len();
        let n_now = n_before.saturating_mul(2).max(8);
        let n_pools = n_now.checked_mul(POOLS_PER_ARENA)?;
        // Pools first: a place is one only with room for its pools.
        let has_pools = self.pools.len() >= n_pools || self.pools.grow(memory.source(), n_pools);
        if !has_pools || !self.arenas.grow(memory.source(), n_now) {
            return None;
        }
        for id in (n_before..n_now).rev().filter_map(Id::new) {
            list::push_front(&mut self.vacant, &mut self.arenas, id);
        }
        Some(())
    }
}
