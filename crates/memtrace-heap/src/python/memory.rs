//! The page source of the heap, with what the heap does to memory through it.
//!
//! # Mechanism
//! All that touches, unmaps or moves memory of blocks stands here, so that the rest is safe code.
//!
//! # Invariants
//! - **Y1** `pages` is private and the only page source that the heap's regions and arrays meet.
//! - **Y2** A block is its caller's from [`allocate`](super::PythonHeap::allocate) until it is
//!   released, resized, or the heap is dropped; what the heap no longer records is used by nobody.
#![expect(unsafe_code, reason = "unmaps and copies blocks")]

use crate::mapped::{Region, Source};
use crate::pages::PageSource;

/// A page source.
#[derive(Debug)]
pub(super) struct Memory<P> {
    pages: P,
}

impl<P: PageSource> Memory<P> {
    pub(super) const fn new(pages: P) -> Memory<P> {
        Memory { pages }
    }

    pub(super) fn pages(&self) -> &P {
        &self.pages
    }

    pub(super) fn source(&self) -> Source<'_, P> {
        // SAFETY: Y1.
        unsafe { Source::new(&self.pages) }
    }

    /// Gives the memory of blocks back.
    pub(super) fn unmap(&self, region: Region) {
        // SAFETY: Y2, no block in the region is recorded any more.
        unsafe { region.unmap(self.source()) }
    }

    /// Resizes the region of one block; `false`, with nothing changed, if the source cannot.
    pub(super) fn remap(&self, region: &mut Region, size: usize) -> bool {
        // SAFETY: Y2, the caller gave the old address up by resizing the block.
        unsafe { region.remap(self.source(), size) }
    }

    /// Copies `n_bytes` from address `from` of one region to address `to` of another; nothing where
    /// there is no memory, or where either range is not inside its region.
    pub(super) fn copy(&self, from: (&Region, usize), to: (&Region, usize), n_bytes: usize) {
        let is_inside = |(region, addr): (&Region, usize)| {
            let offset = addr.checked_sub(region.base().addr());
            let end = offset.and_then(|offset| offset.checked_add(n_bytes));
            end.is_some_and(|end| end <= region.size())
        };
        if !P::HAS_MEMORY || !is_inside(from) || !is_inside(to) {
            return;
        }
        let source = from.0.base().with_addr(from.1);
        let target = to.0.base().with_addr(to.1);
        // SAFETY: both ranges lie in live mappings of a source that has memory (checked above), and
        // by Y2 nobody else uses the new block yet, or the old one any more.
        unsafe { target.copy_from(source, n_bytes) }
    }
}
