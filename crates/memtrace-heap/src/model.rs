//! The heap without memory: what it makes of sizes and frees.
//!
//! # Mechanism
//! A [`Model`] is a [`Heap`] over [`NoMemory`]: the same code places the same blocks, at addresses
//! behind which there is nothing. So all of it is safe to call, whatever the arguments.

use core::alloc::Layout;
use core::ptr;

use crate::config::Config;
use crate::heap::Heap;
use crate::map::HeapMap;
use crate::pages::NoMemory;
use crate::stats::HeapStats;
use crate::svg::Svg;
use crate::violation::Violation;

/// A heap that places blocks and accounts for them, and has no memory for them: fed with the sizes and
/// frees of a trace, it says what a [`Heap`] would look like.
///
/// Blocks are named by their addresses, which begin at 4 GiB. Where each is placed depends only on the
/// calls, not on the clock: there is none, so of [`Purge::Slack`](crate::Purge::Slack) only the rule
/// of numbers applies. Threads that share a model are modelled as the threads that they are.
///
/// ```
/// use memtrace_heap::{Config, Model};
/// use std::alloc::Layout;
///
/// // A hundred thousand blocks, then all but every fiftieth freed: two thousand are left, in nearly
/// // all of the pools.
/// let (model, layout) = (Model::new(Config::new()), Layout::new::<[u64; 12]>());
/// let blocks: Vec<usize> = (0..100_000).filter_map(|_| model.allocate(layout)).collect();
/// for block in blocks.iter().enumerate().filter(|(index, _)| index % 50 != 0) {
///     model.release(*block.1, layout);
/// }
/// let stats = model.stats();
/// assert_eq!(stats.requested_bytes(), 2_000 * 96);
/// assert_eq!(stats.free_bytes() / stats.requested_bytes(), 49);
/// ```
#[derive(Debug)]
pub struct Model {
    heap: Heap<NoMemory>,
}

impl Model {
    /// A heap without blocks.
    #[must_use]
    pub const fn new(config: Config) -> Model {
        Model { heap: Heap::with_pages(config, NoMemory::new()) }
    }

    /// Takes a block for `layout` and returns its address; `None`, with nothing changed, if there are
    /// no more addresses, or no memory for the records.
    ///
    /// A size of zero counts as one byte.
    pub fn allocate(&self, layout: Layout) -> Option<usize> {
        address(self.heap.take(layout, false))
    }

    /// Resizes the block at `addr`, which was taken for `layout`, to `new_size` bytes and returns where
    /// it lies now; `None`, with nothing changed, if that cannot be, or if there is no such block,
    /// which is counted in [`HeapStats::invalid_frees`].
    pub fn resize(&self, addr: usize, layout: Layout, new_size: usize) -> Option<usize> {
        address(self.heap.resize_or_move(ptr::without_provenance_mut(addr), layout, new_size))
    }

    /// Gives the block at `addr` back, which was taken for `layout`, or last resized to its size. If
    /// there is no such block nothing happens, but that it is counted in
    /// [`HeapStats::invalid_frees`].
    pub fn release(&self, addr: usize, layout: Layout) {
        self.heap.give_back(addr, layout);
    }

    /// Gives the pages of all units in no use back: see [`Heap::purge`].
    pub fn purge(&self) -> usize {
        self.heap.purge()
    }

    /// All figures at this moment: see [`Heap::stats`].
    #[must_use]
    pub fn stats(&self) -> HeapStats {
        self.heap.stats()
    }

    /// What each arena holds: see [`HeapMap`].
    #[must_use]
    pub fn map(&self) -> HeapMap<'_> {
        self.heap.map()
    }

    /// A picture of that: see [`Svg`].
    #[must_use]
    pub fn svg(&self) -> Svg<'_> {
        self.heap.svg()
    }

    /// Recounts everything: see [`Heap::verify`].
    ///
    /// **Errors**: the first invariant found not to hold.
    pub fn verify(&self) -> Result<(), Violation> {
        self.heap.verify()
    }
}

impl Default for Model {
    fn default() -> Model {
        Model::new(Config::new())
    }
}

fn address(block: *mut u8) -> Option<usize> {
    Some(block.addr()).filter(|&addr| addr != 0)
}
