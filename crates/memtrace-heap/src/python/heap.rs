//! The heap: CPython's rules of who serves a request, over pools and raw blocks.
//!
//! # Mechanism
//! A request of 1 to 512 bytes takes a block of its class, any other a raw block. A block of a pool
//! that is resized stays if the new size fits it and fills more than three quarters of it; otherwise
//! a new block is taken, the contents copied, and the old one given back, in this order, which
//! decides where later blocks go. A raw block never moves into a pool.
//!
//! # Invariants
//! - **J1** Each address handed out and not given back is either a located block of a pool or a key
//!   of the raw blocks, never both: their mappings are disjoint.

use core::ptr::NonNull;

use super::arenas::split;
use super::error::{InvalidFree, Violation};
use super::memory::Memory;
use super::profile::Profile;
use super::raw::{RawBlock, RawBlocks};
use super::small::Small;
use super::stats::PythonStats;
use super::view::Places;
use crate::map::HeapMap;
use crate::mapped::Region;
use crate::pages::{NoMemory, PageSource};
use crate::svg::Svg;

/// CPython's small-object heap, placement for placement.
///
/// Blocks are named by their addresses. Over [`NoMemory`] nothing is there and the heap is a model;
/// over a source with memory, [`pointer`](Self::pointer) gives access, and a block is its caller's
/// until it is released, resized, or the heap is dropped, which unmaps everything.
///
/// ```
/// use memtrace_heap::NoMemory;
/// use memtrace_heap::python::{InvalidFree, Place, PythonHeap, Version};
///
/// let mut heap = PythonHeap::new(Version::V3_12.profile(), NoMemory::new());
/// let first = heap.allocate(24).unwrap();
/// let second = heap.allocate(30).unwrap();
/// assert_eq!(second, first + 32);
/// assert_eq!(heap.place_of(second), Some(Place { arena: 0, pool: 0, offset: 80 }));
///
/// assert_eq!(heap.release(first), Ok(()));
/// assert_eq!(heap.release(first), Err(InvalidFree::Double));
/// assert_eq!(heap.allocate(17), Some(first));
/// ```
#[derive(Debug)]
pub struct PythonHeap<P: PageSource = NoMemory> {
    profile: Profile,
    memory: Memory<P>,
    small: Small,
    raw: RawBlocks,
}

/// Where a block of a pool lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// How many arenas were mapped before this block's.
    pub arena: u64,
    /// The number of its pool in the arena, from the first whole pool on.
    pub pool: usize,
    /// Its distance from the start of the pool, in bytes.
    pub offset: usize,
}

impl<P: PageSource> PythonHeap<P> {
    /// An empty heap over `pages`. Nothing is mapped before the first allocation.
    ///
    /// Arenas are asked for aligned to pools, so that none loses one. CPython asks for no more than
    /// whole pages and from 3.10 on mostly loses one; [`NoMemory::misaligned_by`] a page does always.
    #[must_use]
    pub fn new(profile: Profile, pages: P) -> PythonHeap<P> {
        let (small, raw) = (Small::default(), RawBlocks::default());
        PythonHeap { profile, memory: Memory::new(pages), small, raw }
    }

    /// Whose rules it follows.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The page source.
    #[must_use]
    pub fn pages(&self) -> &P {
        self.memory.pages()
    }

    /// Takes a block of at least `size` bytes and returns its address; `None`, with nothing
    /// changed, if the pages are not to be had.
    ///
    /// Blocks of pools are aligned to 16 bytes, others to a page. Their contents are unspecified.
    /// CPython would ask the C library where it gets no arena; this does not.
    pub fn allocate(&mut self, size: usize) -> Option<usize> {
        match self.profile.class_of(size) {
            Some(class) => self.small.take(&self.memory, &self.profile, class),
            None => self.raw.take(&self.memory, size),
        }
    }

    /// Resizes the block at `addr` to at least `size` bytes and returns where it lies now; `None`,
    /// with nothing changed, if the pages are not to be had. Where it moves, the contents that both
    /// sizes have are kept.
    ///
    /// **Errors**: `addr` is no block in use; nothing has changed.
    pub fn resize(&mut self, addr: usize, size: usize) -> Result<Option<usize>, InvalidFree> {
        let spot = match self.small.locate(&self.profile, addr) {
            Err(InvalidFree::Foreign) if self.raw.table.get(addr).is_some() => {
                return Ok(self.raw.resize(&self.memory, addr, size));
            }
            located => located?,
        };
        let block_size = self.profile.block_size(spot.class);
        let fills_it = size.saturating_mul(4) > block_size.saturating_mul(3);
        if size <= block_size && fills_it {
            return Ok(Some(addr));
        }
        let Some(moved) = self.allocate(size) else { return Ok(None) };
        if let (true, Some(from), Some(to)) =
            (P::HAS_MEMORY, self.region_of(addr), self.region_of(moved))
        {
            self.memory.copy((from, addr), (to, moved), block_size.min(size));
        }
        self.small.give_back(&self.memory, &self.profile, spot);
        Ok(Some(moved))
    }

    /// Gives the block at `addr` back.
    ///
    /// **Errors**: `addr` is no block in use; nothing has changed.
    pub fn release(&mut self, addr: usize) -> Result<(), InvalidFree> {
        match self.small.locate(&self.profile, addr) {
            Ok(spot) => self.small.give_back(&self.memory, &self.profile, spot),
            Err(InvalidFree::Foreign) if self.raw.give_back(&self.memory, addr) => {}
            Err(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Where the block in use at `addr` lies; `None` if it is no block in use, or in no pool.
    #[must_use]
    pub fn place_of(&self, addr: usize) -> Option<Place> {
        let spot = self.small.locate(&self.profile, addr).ok()?;
        let (arena, _) = self.small.arenas.get(spot.pool)?;
        let offset = addr & self.profile.pool_size().wrapping_sub(1);
        Some(Place { arena: arena.serial, pool: split(spot.pool).1, offset })
    }

    /// How many bytes the block in use at `addr` has: those of its class, or those asked for if it is
    /// in no pool.
    #[must_use]
    pub fn usable_size(&self, addr: usize) -> Option<usize> {
        match self.raw.table.get(addr) {
            Some(block) => Some(block.size),
            None => {
                let spot = self.small.locate(&self.profile, addr).ok()?;
                Some(self.profile.block_size(spot.class))
            }
        }
    }

    /// A pointer to the block in use at `addr`, good for its [`usable_size`](Self::usable_size);
    /// `None` if it is no block in use, or if the page source has no memory.
    #[must_use]
    pub fn pointer(&self, addr: usize) -> Option<NonNull<u8>> {
        self.usable_size(addr).filter(|_| P::HAS_MEMORY)?;
        NonNull::new(self.region_of(addr)?.base().with_addr(addr))
    }

    /// All figures at this moment.
    ///
    /// **Cost**: linear in the number of arenas.
    #[must_use]
    pub fn stats(&self) -> PythonStats {
        PythonStats::of(&self.profile, &self.small, &self.raw)
    }

    /// What each arena holds; a unit is a pool. See [`HeapMap`].
    #[must_use]
    pub fn map(&self) -> HeapMap<'_> {
        HeapMap::of_python(Places::new(self.profile, &self.small, &self.raw))
    }

    /// A picture of that: see [`Svg`].
    #[must_use]
    pub fn svg(&self) -> Svg<'_> {
        self.map().svg()
    }

    /// Recounts every block, pool and arena from the links, and compares with counters and lists.
    ///
    /// **Cost**: linear in the blocks ever carved.
    ///
    /// **Errors**: the first invariant found not to hold.
    pub fn verify(&self) -> Result<(), Violation> {
        self.small.verify(&self.profile)?;
        let in_raw = |(addr, block): (usize, &RawBlock)| {
            addr == block.region.base().addr() && block.size <= block.region.size()
        };
        let requested = self.raw.table.iter().map(|(_, block)| block.size);
        if !self.raw.table.iter().all(in_raw)
            || requested.fold(0, usize::wrapping_add) != self.raw.requested_bytes
        {
            return Err(Violation::Counters);
        }
        if self.stats().identity_holds() { Ok(()) } else { Err(Violation::Identity) }
    }

    /// The mapping that the block in use at `addr` lies in.
    fn region_of(&self, addr: usize) -> Option<&Region> {
        if let Some(block) = self.raw.table.get(addr) {
            return Some(&block.region);
        }
        let spot = self.small.locate(&self.profile, addr).ok()?;
        self.small.arenas.get(spot.pool).map(|(arena, _)| &arena.region)
    }
}

impl<P: PageSource> Drop for PythonHeap<P> {
    fn drop(&mut self) {
        self.small.arenas.unmap(&self.memory);
        self.raw.unmap(&self.memory);
    }
}
