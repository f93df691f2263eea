//! The blocks outside of the pools: requests of no bytes, or of more than the threshold.
//!
//! # Mechanism
//! CPython hands these to the C library; here each is a mapping of its own, in whole pages, found by
//! its address. Where there is no memory the mapping is only an address.
//!
//! # Invariants
//! - **R1** Each key is the base of the region in its value, which holds at least `size` bytes.
//!
//! # Cost
//! A hash operation and, with memory, a system call or two.

use core::mem;

use super::memory::Memory;
use crate::mapped::Region;
use crate::pages::{PAGE_SIZE, PageSource};
use crate::table::AddressTable;

/// One block outside of the pools.
#[derive(Debug, Default)]
pub(super) struct RawBlock {
    pub(super) region: Region,
    /// What was asked for, in bytes.
    pub(super) size: usize,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct RawBlocks {
    pub(super) table: AddressTable<RawBlock>,
    /// The sum of what was asked for, in bytes.
    pub(super) requested_bytes: usize,
}

impl RawBlocks {
    /// Takes a block and returns its address; `None`, with nothing changed, if the pages are not to
    /// be had.
    pub(super) fn take(&mut self, memory: &Memory<impl PageSource>, size: usize) -> Option<usize> {
        if !self.table.reserve(memory.source()) {
            return None;
        }
        let region = Region::map(memory.source(), size.max(1), PAGE_SIZE)?;
        let addr = region.base().addr();
        self.table.insert(addr, RawBlock { region, size });
        self.requested_bytes = self.requested_bytes.wrapping_add(size);
        Some(addr)
    }

    /// Gives the block at `addr` back; whether there was one.
    pub(super) fn give_back(&mut self, memory: &Memory<impl PageSource>, addr: usize) -> bool {
        let Some(RawBlock { region, size }) = self.table.remove(addr) else { return false };
        self.requested_bytes = self.requested_bytes.wrapping_sub(size);
        memory.unmap(region);
        true
    }

    /// Resizes the block at `addr`, which exists, and returns where it lies now; `None`, with
    /// nothing changed, if the pages are not to be had. A block that should shrink and cannot stays
    /// as large as it is.
    pub(super) fn resize(
        &mut self,
        memory: &Memory<impl PageSource>,
        addr: usize,
        size: usize,
    ) -> Option<usize> {
        let wanted = size.max(1).checked_next_multiple_of(PAGE_SIZE)?;
        let block = self.table.get_mut(addr)?;
        let (old_bytes, old_size) = (block.region.size(), block.size);
        if wanted != old_bytes && !memory.remap(&mut block.region, wanted) && wanted > old_bytes {
            let region = Region::map(memory.source(), wanted, PAGE_SIZE)?;
            let target = region.base().addr();
            memory.copy((&block.region, addr), (&region, target), old_bytes);
            memory.unmap(mem::replace(&mut block.region, region));
        }
        block.size = size;
        self.requested_bytes = self.requested_bytes.wrapping_sub(old_size).wrapping_add(size);
        let now_at = block.region.base().addr();
        if now_at != addr
            && let Some(moved) = self.table.remove(addr)
        {
            // One key has just left, so there is room.
            self.table.insert(now_at, moved);
        }
        Some(now_at)
    }

    /// Gives all memory back.
    pub(super) fn unmap(&mut self, memory: &Memory<impl PageSource>) {
        let table = mem::take(&mut self.table);
        table.unmap(memory.source(), |block| memory.unmap(block.region));
    }
}
