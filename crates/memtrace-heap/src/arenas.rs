//! Arenas: mapped regions cut into pools, and where the pools come from.
//!
//! # Mechanism
//! An arena is 4 MiB of address space aligned to its size, cut into 64 pools, so that the pools in
//! no use are the set bits of one word. The 64 pools' metadata is an array in another mapping: a
//! stray write through a block cannot reach it. Arenas stand in numbered slots; a table finds the
//! slot from an arena's base, which is any inner address with its low bits cleared.
//!
//! A new pool comes from the arena with the fewest unused ones (64 lists by that number, and a
//! word saying which lists are not empty), so that sparse arenas get a chance to empty. Arenas
//! wholly unused are given back, except one, which absorbs the oscillation at a boundary.
//!
//! # Invariants
//! - **A1** A slot is vacant (no memory, no pools, in the `vacant` list) or holds an arena whose
//!   base, and no other address, leads to it in `slot_by_base`.
//! - **A2** Bit `i` of `unused_pools` is set exactly if pool `i` has no block in use and is in no
//!   class's hands.
//! - **A3** An arena with `n > 0` unused pools is in list `usable[n - 1]`; one with none is in no
//!   list. Bit `i` of `usable_lists` is set exactly if `usable[i]` is not empty.
//! - **A4** At most one arena is wholly unused.
//!
//! # Cost
//! Constant for every operation, but for mapping and giving back an arena (4 MiB of address space
//! and 36 KiB of metadata; only touched pages take memory).

use crate::list::{self, Head, Id, Links, Nodes};
use crate::mapped::{Array, Region, Source};
use crate::pages::PageSource;
use crate::pool::{POOL_SIZE, Pool};
use crate::table::AddressTable;

/// The size and alignment of an arena, in bytes.
pub const ARENA_SIZE: usize = POOLS_PER_ARENA * POOL_SIZE;

/// How many pools an arena is cut into.
pub const POOLS_PER_ARENA: usize = u64::BITS as usize;

/// One arena, or a vacant slot.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    pub(crate) links: Links,
    pub(crate) memory: Region,
    pub(crate) pools: Array<Pool>,
    pub(crate) unused_pools: u64,
}

/// An arena taken out of a heap, still mapped.
#[derive(Debug)]
pub(crate) struct EmptyArena {
    /// The memory of its blocks, none of which is in use.
    pub(crate) memory: Region,
    /// Its metadata.
    pub(crate) pools: Array<Pool>,
}

/// All arenas of a heap.
#[derive(Debug)]
pub(crate) struct Arenas {
    pub(crate) slots: Array<Arena>,
    pub(crate) vacant: Head,
    pub(crate) slot_by_base: AddressTable<Option<Id>>,
    pub(crate) usable: [Head; POOLS_PER_ARENA],
    pub(crate) usable_lists: u64,
    pub(crate) n_current: usize,
    pub(crate) n_high_water: usize,
    pub(crate) n_total: u64,
    pub(crate) n_wholly_unused: usize,
}

impl Default for Arenas {
    fn default() -> Arenas {
        Arenas {
            slots: Array::default(),
            vacant: None,
            slot_by_base: AddressTable::default(),
            usable: [None; POOLS_PER_ARENA],
            usable_lists: 0,
            n_current: 0,
            n_high_water: 0,
            n_total: 0,
            n_wholly_unused: 0,
        }
    }
}

impl Nodes for Array<Arena> {
    fn links_mut(&mut self, id: Id) -> Option<&mut Links> {
        self.get_mut(id.index()).map(|arena| &mut arena.links)
    }
}

/// Pools are numbered through all slots.
impl Nodes for Arenas {
    fn links_mut(&mut self, id: Id) -> Option<&mut Links> {
        self.pool_mut(id).map(|pool| &mut pool.links)
    }
}

impl Arenas {
    /// The metadata of pool `id`.
    pub(crate) fn pool(&self, id: Id) -> Option<&Pool> {
        let arena = self.slots.get(id.index() / POOLS_PER_ARENA)?;
        arena.pools.get(id.index() % POOLS_PER_ARENA)
    }

    /// The metadata of pool `id`, to change.
    pub(crate) fn pool_mut(&mut self, id: Id) -> Option<&mut Pool> {
        let arena = self.slots.get_mut(id.index() / POOLS_PER_ARENA)?;
        arena.pools.get_mut(id.index() % POOLS_PER_ARENA)
    }

    /// The pool in which `addr` lies, and how many bytes from its start; `None` outside of all
    /// arenas.
    pub(crate) fn locate(&self, addr: usize) -> Option<(Id, usize)> {
        let offset = addr % ARENA_SIZE;
        let slot = (*self.slot_by_base.get(addr.wrapping_sub(offset))?)?;
        let pool_index = offset / POOL_SIZE;
        Some((pool_id(slot, pool_index)?, offset % POOL_SIZE))
    }

    /// The address `offset` bytes into pool `id`; null if there is no such pool.
    pub(crate) fn block_ptr(&self, id: Id, offset: usize) -> *mut u8 {
        let Some(arena) = self.slots.get(id.index() / POOLS_PER_ARENA) else {
            return core::ptr::null_mut();
        };
        let pool_offset = (id.index() % POOLS_PER_ARENA).wrapping_mul(POOL_SIZE);
        arena.memory.base().wrapping_add(pool_offset.wrapping_add(offset))
    }

    /// Takes an unused pool, mapping an arena if there is none; `None` if that fails.
    pub(crate) fn take_pool(&mut self, source: Source<'_, impl PageSource>) -> Option<Id> {
        if self.usable_lists == 0 {
            self.add_arena(source)?;
        }
        let slot = (*self.usable.get(self.usable_lists.trailing_zeros() as usize)?)?;
        let unused_pools = self.slots.get(slot.index())?.unused_pools;
        let id = pool_id(slot, unused_pools.trailing_zeros() as usize)?;
        self.set_unused_pools(slot, unused_pools & unused_pools.wrapping_sub(1));
        Some(id)
    }

    /// Takes back pool `id`, which has no block in use and is in no list; returns its arena for
    /// unmapping if that is not needed any more.
    pub(crate) fn give_back_pool(&mut self, id: Id) -> Option<EmptyArena> {
        let slot = Id::new(id.index() / POOLS_PER_ARENA)?;
        let bit = 1u64.wrapping_shl((id.index() % POOLS_PER_ARENA) as u32);
        let unused_pools = self.slots.get(slot.index())?.unused_pools | bit;
        self.set_unused_pools(slot, unused_pools);
        if unused_pools != u64::MAX || self.n_wholly_unused <= 1 {
            return None;
        }
        self.remove_arena(slot)
    }

    /// Maps an arena into a vacant slot. The memory comes last, so that nothing but metadata ever
    /// needs undoing.
    fn add_arena(&mut self, source: Source<'_, impl PageSource>) -> Option<()> {
        if self.vacant.is_none() {
            self.add_slots(source)?;
        }
        let slot = self.vacant?;
        if !self.slot_by_base.reserve(source) {
            return None;
        }
        let pools = Array::new(source, POOLS_PER_ARENA)?;
        let Some(memory) = Region::map(source, ARENA_SIZE, ARENA_SIZE) else {
            pools.unmap(source);
            return None;
        };
        list::remove(&mut self.vacant, &mut self.slots, slot);
        self.slot_by_base.insert(memory.base().addr(), Some(slot));
        if let Some(arena) = self.slots.get_mut(slot.index()) {
            arena.memory = memory;
            arena.pools = pools;
        }
        self.set_unused_pools(slot, u64::MAX);
        self.n_current = self.n_current.wrapping_add(1);
        self.n_high_water = self.n_high_water.max(self.n_current);
        self.n_total = self.n_total.wrapping_add(1);
        Some(())
    }

    fn add_slots(&mut self, source: Source<'_, impl PageSource>) -> Option<()> {
        let n_old = self.slots.len();
        let n_new = n_old.checked_mul(2)?.max(32);
        // The pools of every slot need ids.
        Id::new(n_new.checked_mul(POOLS_PER_ARENA)?)?;
        if !self.slots.grow(source, n_new) {
            return None;
        }
        for index in (n_old..n_new).rev() {
            list::push_front(&mut self.vacant, &mut self.slots, Id::new(index)?);
        }
        Some(())
    }

    fn remove_arena(&mut self, slot: Id) -> Option<EmptyArena> {
        self.set_unused_pools(slot, 0);
        let arena = self.slots.get_mut(slot.index())?;
        let memory = core::mem::take(&mut arena.memory);
        let pools = core::mem::take(&mut arena.pools);
        self.slot_by_base.remove(memory.base().addr());
        list::push_front(&mut self.vacant, &mut self.slots, slot);
        self.n_current = self.n_current.wrapping_sub(1);
        Some(EmptyArena { memory, pools })
    }

    /// Sets which pools of `slot` are unused and moves it to the list for their number (A3).
    fn set_unused_pools(&mut self, slot: Id, unused_pools: u64) {
        let Some(arena) = self.slots.get_mut(slot.index()) else { return };
        let before = core::mem::replace(&mut arena.unused_pools, unused_pools);
        if let Some(index) = usable_index(before)
            && let Some(head) = self.usable.get_mut(index)
        {
            list::remove(head, &mut self.slots, slot);
            if head.is_none() {
                self.usable_lists &= !1u64.wrapping_shl(index as u32);
            }
        }
        if let Some(index) = usable_index(unused_pools)
            && let Some(head) = self.usable.get_mut(index)
        {
            list::push_front(head, &mut self.slots, slot);
            self.usable_lists |= 1u64.wrapping_shl(index as u32);
        }
        if before == u64::MAX {
            self.n_wholly_unused = self.n_wholly_unused.wrapping_sub(1);
        }
        if unused_pools == u64::MAX {
            self.n_wholly_unused = self.n_wholly_unused.wrapping_add(1);
        }
    }

    /// The mapped metadata, in bytes.
    pub(crate) fn metadata_bytes(&self) -> usize {
        let pools: usize = self.slots.iter().map(|arena| arena.pools.n_bytes()).sum();
        pools.wrapping_add(self.slots.n_bytes()).wrapping_add(self.slot_by_base.n_bytes())
    }

    /// Unmaps all metadata, handing the memory of each arena to `release`.
    pub(crate) fn unmap(
        mut self,
        source: Source<'_, impl PageSource>,
        mut release: impl FnMut(Region),
    ) {
        for arena in self.slots.iter_mut() {
            core::mem::take(&mut arena.pools).unmap(source);
            release(core::mem::take(&mut arena.memory));
        }
        self.slots.unmap(source);
        self.slot_by_base.unmap(source, drop);
    }
}

/// The list for arenas with these unused pools.
pub(crate) fn usable_index(unused_pools: u64) -> Option<usize> {
    unused_pools.count_ones().checked_sub(1).map(|index| index as usize)
}

/// The id of pool `pool_index` of the arena in `slot`.
pub(crate) fn pool_id(slot: Id, pool_index: usize) -> Option<Id> {
    Id::new(slot.index().checked_mul(POOLS_PER_ARENA)?.checked_add(pool_index)?)
}
