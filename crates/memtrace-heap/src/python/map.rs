//! The tree in which CPython, from 3.10 on, looks up whether an address lies in an arena: its size
//! only.
//!
//! # Mechanism
//! The tree has a root, middle nodes and bottom nodes, each for a range of addresses, made when the
//! first arena begins or ends in the range and never given back. Here they are the keys of two
//! tables; the look-up itself is done otherwise.
//!
//! # Invariants
//! - **G1** A node is recorded exactly if an arena, mapped now or before, needs it.
//!
//! # Cost
//! Two look-ups an arena, four for one not aligned to its size.

use super::memory::Memory;
use super::profile::{MapShape, Profile};
use crate::pages::{PAGE_SIZE, PageSource};
use crate::table::AddressTable;

/// The nodes of the tree.
#[derive(Debug, Default)]
pub(super) struct ArenaMap {
    middle: AddressTable<()>,
    bottom: AddressTable<()>,
}

impl ArenaMap {
    /// Makes the nodes for an arena at `base`; `false`, with nothing to undo, if that cannot be.
    pub(super) fn mark(
        &mut self,
        memory: &Memory<impl PageSource>,
        profile: &Profile,
        base: usize,
    ) -> bool {
        let Some(shape) = profile.map() else { return true };
        let is_aligned = base & profile.arena_size().wrapping_sub(1) == 0;
        let end = if is_aligned { base } else { base.wrapping_add(profile.arena_size()) };
        self.mark_addr(memory, shape, base) && self.mark_addr(memory, shape, end)
    }

    /// Middle and bottom nodes.
    pub(super) fn n_nodes(&self) -> (usize, usize) {
        (self.middle.len(), self.bottom.len())
    }

    pub(super) fn n_record_bytes(&self) -> usize {
        self.middle.n_bytes().wrapping_add(self.bottom.n_bytes())
    }

    pub(super) fn unmap(self, memory: &Memory<impl PageSource>) {
        self.middle.unmap(memory.source(), drop);
        self.bottom.unmap(memory.source(), drop);
    }

    fn mark_addr(
        &mut self,
        memory: &Memory<impl PageSource>,
        shape: MapShape,
        addr: usize,
    ) -> bool {
        let mark = |table: &mut AddressTable<()>, shift: u32| {
            // The table hashes page numbers and has no key zero.
            let number = addr.checked_shr(shift).unwrap_or(0).wrapping_add(1);
            let key = number.wrapping_mul(PAGE_SIZE);
            if table.get(key).is_some() {
                return true;
            }
            table.reserve(memory.source()) && table.insert(key, ())
        };
        mark(&mut self.middle, shape.middle_shift) && mark(&mut self.bottom, shape.bottom_shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::NoMemory;
    use crate::python::Version;

    #[test]
    fn an_arena_across_a_border_needs_the_nodes_of_both_sides() {
        let memory = Memory::new(NoMemory::new());
        for (version, middle_shift, bottom_shift) in
            [(Version::V3_10, 38, 28), (Version::V3_11, 49, 34), (Version::V3_13, 49, 34)]
        {
            let (profile, mut map) = (version.profile(), ArenaMap::default());
            let aligned = (1 << middle_shift) - profile.arena_size();
            assert!(map.mark(&memory, &profile, aligned));
            assert_eq!(map.n_nodes(), (1, 1));
            assert!(map.mark(&memory, &profile, aligned + PAGE_SIZE));
            assert_eq!(map.n_nodes(), (2, 2));
            assert!(map.mark(&memory, &profile, (1 << middle_shift) + (1 << bottom_shift)));
            assert_eq!(map.n_nodes(), (2, 3));
            map.unmap(&memory);
        }
    }

    #[test]
    fn versions_without_the_tree_have_no_nodes() {
        let (memory, mut map) = (Memory::new(NoMemory::new()), ArenaMap::default());
        assert!(map.mark(&memory, &Version::V3_9.profile(), 1 << 40));
        assert_eq!((map.n_nodes(), map.n_record_bytes()), ((0, 0), 0));
    }
}
