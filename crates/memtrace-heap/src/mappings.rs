//! The large blocks: each a mapping of its own, recorded in a table.
//!
//! # Mechanism
//! What no class serves is mapped by itself, in whole pages. The table, keyed by address, holds the
//! mapping and the size that was requested for it; so figures are exact, and a pointer or a size
//! that does not belong to a live mapping is found out.
//!
//! # Invariants
//! - **D1** Each key is the base of the region in its value, a live mapping that holds at least
//!   `requested_bytes`.
//! - **D2** `mapped_bytes` and `requested_bytes` are the sums over the table.
//! - **D3** No word is left behind where there is a mapping.
//!
//! # Cost
//! A hash operation; the system calls are the caller's.

use crate::invalid::InvalidFree;
use crate::mapped::{Region, Source};
use crate::pages::{PAGE_SIZE, PageSource};
use crate::table::AddressTable;

/// One directly mapped block.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    pub(crate) region: Region,
    pub(crate) requested_bytes: usize,
    /// The embedder's.
    pub(crate) word: u64,
}

/// All directly mapped blocks.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    pub(crate) table: AddressTable<Mapping>,
    /// The words other than zero of mappings that are gone, by where those were.
    pub(crate) left_words: AddressTable<u64>,
    pub(crate) mapped_bytes: usize,
    pub(crate) mapped_bytes_high_water: usize,
    pub(crate) requested_bytes: usize,
    pub(crate) n_total: u64,
}

impl Mappings {
    /// Records `region` as a block of `size` requested bytes, and returns where it lies; hands the
    /// region back if the table cannot grow.
    pub(crate) fn insert(
        &mut self,
        source: Source<'_, impl PageSource>,
        region: Region,
        size: usize,
    ) -> Result<*mut u8, Region> {
        if !self.table.reserve(source) {
            return Err(region);
        }
        let ptr = region.base();
        self.mapped_bytes = self.mapped_bytes.wrapping_add(region.size());
        self.mapped_bytes_high_water = self.mapped_bytes_high_water.max(self.mapped_bytes);
        self.requested_bytes = self.requested_bytes.wrapping_add(size);
        self.n_total = self.n_total.wrapping_add(1);
        let word = self.left_words.remove(ptr.addr()).unwrap_or(0);
        self.table.insert(ptr.addr(), Mapping { region, requested_bytes: size, word });
        Ok(ptr)
    }

    /// Forgets the block of `size` requested bytes at `addr` and returns its region. Its word is kept, unless there is no
    /// memory for that.
    pub(crate) fn remove(
        &mut self,
        source: Source<'_, impl PageSource>,
        addr: usize,
        size: usize,
    ) -> Result<Region, InvalidFree> {
        self.check(addr, size)?;
        let mapping = self.table.remove(addr).ok_or(InvalidFree::Foreign)?;
        if mapping.word != 0 && self.left_words.reserve(source) {
            self.left_words.insert(addr, mapping.word);
        }
        self.mapped_bytes = self.mapped_bytes.wrapping_sub(mapping.region.size());
        self.requested_bytes = self.requested_bytes.wrapping_sub(mapping.requested_bytes);
        Ok(mapping.region)
    }

    /// Whether a block of `size` requested bytes is mapped at `addr`.
    pub(crate) fn check(&self, addr: usize, size: usize) -> Result<(), InvalidFree> {
        match self.table.get(addr) {
            None => Err(InvalidFree::Foreign),
            Some(mapping) if mapping.requested_bytes != size => Err(InvalidFree::WrongLayout),
            Some(_) => Ok(()),
        }
    }

    /// Resizes the block of `old_size` requested bytes at `addr` without copying it, by `remap`
    /// where its pages do not fit, and returns where it lies now; `None`, with nothing changed, if
    /// that cannot be. A mapping that should shrink and cannot stays as large as it is.
    ///
    /// The region may move unless `must_stay`, in which case it is not asked to grow: a source
    /// does not move what shrinks.
    pub(crate) fn resize(
        &mut self,
        addr: usize,
        old_size: usize,
        new_size: usize,
        must_stay: bool,
        remap: impl FnOnce(&mut Region, usize) -> bool,
    ) -> Result<Option<*mut u8>, InvalidFree> {
        self.check(addr, old_size)?;
        let mapping = self.table.get_mut(addr).ok_or(InvalidFree::Foreign)?;
        let Some(new_bytes) = new_size.checked_next_multiple_of(PAGE_SIZE) else { return Ok(None) };
        let old_bytes = mapping.region.size();
        let grows = new_bytes > old_bytes;
        if grows && must_stay {
            return Ok(None);
        }
        let is_remapped = new_bytes != old_bytes && remap(&mut mapping.region, new_size);
        if grows && !is_remapped {
            return Ok(None);
        }
        mapping.requested_bytes = new_size;
        let ptr = mapping.region.base();
        let now_bytes = mapping.region.size();
        self.requested_bytes = self.requested_bytes.wrapping_sub(old_size).wrapping_add(new_size);
        self.mapped_bytes = self.mapped_bytes.wrapping_sub(old_bytes).wrapping_add(now_bytes);
        self.mapped_bytes_high_water = self.mapped_bytes_high_water.max(self.mapped_bytes);
        if ptr.addr() != addr
            && let Some(moved) = self.table.remove(addr)
        {
            // One key has just left, so there is room.
            self.table.insert(ptr.addr(), moved);
            // The word comes along; what was left where the mapping is now is left where it was (D3).
            if let Some(word) = self.left_words.remove(ptr.addr()) {
                self.left_words.insert(addr, word);
            }
        }
        Ok(Some(ptr))
    }

    /// Gives the memory of the tables back, handing each mapping to `release` first.
    pub(crate) fn unmap(self, source: Source<'_, impl PageSource>, release: impl FnMut(Mapping)) {
        self.table.unmap(source, release);
        self.left_words.unmap(source, drop);
    }
}
