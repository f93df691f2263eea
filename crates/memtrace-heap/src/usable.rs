//! Blocks whose size the caller has not kept: what C's `free` and `malloc_usable_size` are told.
//!
//! # Mechanism
//! An address leads to its unit, the unit to its class, run or mapping, and that to a layout which the
//! heap takes for the block. A C library's allocator asks for [`usable_layout`](Heap::usable_layout)
//! of what it was asked for, and gives back with [`layout_of`](Heap::layout_of): both name the same
//! size, so that accounts stay exact, with *requested* meaning *usable*, for the size that the C program
//! asked for is recorded nowhere.
//!
//! # Invariants
//! - **U1** For a block in use that was taken with `usable_layout(l)`, `layout_of` has the same size,
//!   and whatever serves the one serves the other.
//!
//! # Cost
//! A look-up as of a free by another thread; for what lies in no arena, the heap's lock.

use core::alloc::Layout;

use crate::class::SizeClass;
use crate::heap::{Heap, MIN_ALIGN};
use crate::pages::PageSource;
use crate::pool::{Kind, Pool};
use crate::thread;

impl<P: PageSource> Heap<P> {
    /// `layout` with the size that a block for it has: more bytes of it may be used if it is taken with
    /// this one. What no size class serves keeps its size.
    ///
    /// ```
    /// use memtrace_heap::Heap;
    /// use std::alloc::Layout;
    ///
    /// assert_eq!(Heap::<memtrace_heap::SystemPages>::usable_layout(Layout::new::<[u8; 100]>()).size(), 112);
    /// ```
    #[inline]
    #[must_use]
    pub fn usable_layout(layout: Layout) -> Layout {
        let size = SizeClass::of(layout).map_or(layout.size(), SizeClass::block_size);
        Layout::from_size_align(size, layout.align()).unwrap_or(layout)
    }

    /// A layout with which the block in use at `ptr` can be given back or resized; `None` if there is
    /// no such block.
    ///
    /// Its size is the one the block was taken with, if that was one of a
    /// [`usable_layout`](Self::usable_layout). Otherwise it is that of the whole block of a pool, and
    /// giving back with it shifts the requested bytes of the block's class. Its alignment is one that
    /// the address has.
    ///
    /// The answer holds as long as the block is in use. In a signal handler that interrupts its own
    /// thread in the heap's lock there is none for blocks beyond [`MAX_RUN_SIZE`](crate::MAX_RUN_SIZE).
    ///
    /// ```
    /// use memtrace_heap::{Config, Heap};
    /// use std::alloc::{GlobalAlloc, Layout};
    ///
    /// let heap = Heap::new(Config::new());
    /// let layout = Heap::<memtrace_heap::SystemPages>::usable_layout(Layout::new::<[u8; 100]>());
    /// // SAFETY: the size is not zero; then, a block in use with a layout the heap takes for it.
    /// unsafe {
    ///     let block = heap.alloc(layout);
    ///     heap.dealloc(block, heap.layout_of(block).expect("it is in use"));
    /// }
    /// assert_eq!(heap.stats().requested_bytes(), 0);
    /// ```
    #[must_use]
    pub fn layout_of(&self, ptr: *const u8) -> Option<Layout> {
        let shared = self.existing()?;
        let addr = ptr.addr();
        let Some((arena, unit)) = shared.control.directory.find_any(addr) else {
            let guard = shared.lock()?;
            let mapping = guard.mappings.table.get(addr)?;
            // At least as much as was asked for: what is small and mapped, is so for its alignment.
            return layout(mapping.requested_bytes, addr);
        };
        let first = arena.first_of(unit)?;
        match first.kind() {
            Kind::Pool(_) => {
                let index = first.index_at(addr.wrapping_sub(first.base().addr()))?;
                let is_in_use = !self.is_free(first, index);
                is_in_use.then(|| layout(first.block_size(), MIN_ALIGN)).flatten()
            }
            Kind::Run if first.base().addr() == addr => layout(first.run_bytes.get(), MIN_ALIGN),
            Kind::Run | Kind::Unused | Kind::Inner(_) => None,
        }
    }

    /// How many bytes may be used of the block in use at `ptr`, if it was taken with a
    /// [`usable_layout`](Self::usable_layout); `None` if there is no such block.
    #[must_use]
    pub fn usable_size(&self, ptr: *const u8) -> Option<usize> {
        self.layout_of(ptr).map(|layout| layout.size())
    }

    /// Whether a block is free, as far as this thread can tell.
    fn is_free(&self, pool: &Pool, index: u32) -> bool {
        let id = self.existing().map_or(0, |shared| shared.control.id.get());
        let is_own = thread::owner_of(id).is_some_and(|owner| pool.is_owned_by(owner));
        if is_own { pool.is_free(index) } else { pool.is_free_outside(index) }
    }
}

/// A layout of `size` bytes, with the alignment that `place` has as an address.
fn layout(size: usize, place: usize) -> Option<Layout> {
    // Larger ones are never asked for, and must not make a size too large.
    let align = 1usize.wrapping_shl(place.trailing_zeros().min(MAX_ALIGN_BITS));
    Layout::from_size_align(size, align).ok()
}

/// Beyond what any arena aligns.
const MAX_ALIGN_BITS: u32 = 24;
