//! In which pages sampled blocks may start: all that most releases look at while tracing is sampled.
//!
//! # Mechanism
//!
//! There is a cell of one byte for each of 2¹⁶ consecutive pages of 4 KiB. Pages 256 MiB apart share
//! theirs. A cell is *marked* when a sampled block has been put into the live table, before the block is
//! handed out; so a block whose cell is clear when it is released has no trace.
//!
//! Nobody counts what a cell was marked for, since the same traces may be released, swept or cleared. Instead,
//! whoever releases a sampled block, or finds a cell marked for nothing, *searches*:
//! makes the cell searched, looks whether any of its pages has a trace, and clears it if none has and
//! it is still searched. A mark that was made before the search began is of a trace that the search
//! sees. One that is made later undoes the search. What is cleared too late costs time only: a cell that was
//! found in use is searched again when so many releases have found nothing behind it, which also makes
//! good whatever sweeps leave behind.
//!
//! # Invariants
//!
//! - **I1** While a sampled block is live, of less than [`SIZE_LIMIT`](crate::page_word::SIZE_LIMIT) bytes, and its trace in the
//!   page shadow, its cell is not clear.
//! - **I2** Only who holds the lock makes a cell searched or clear.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | cell, marked | `mark` (exchange, Release) | `clear_unless` (exchange, Acquire) | the entry of the block's page |
//! | cell, clear | `clear_unless` (Relaxed) | `has_none` (Relaxed) | nothing |
//!
//! All writes are read-modify-writes, so that a search synchronises with all marks before it, not the last
//! alone. `has_none` need not: that the block was handed out puts its mark before the look.
//!
//! # Cost
//!
//! Three instructions and a load for a release. 64 KiB that are resident only if tracing was ever
//! sampled, a cache line for each 256 KiB of heap. One release in `period / 4 KiB` or so finds its cell marked
//! for another block, and looks in the table for nothing: one in 128 at 512 KiB, and twice as many where
//! each cell stands for two pages of the heap. A search walks the list of chunks.

use crate::lock::LeafLock;
use crate::page_directory::{CHUNK_BITS, PAGE_BITS};
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Cells by the lowest bits of a page's number.
const CELL_BITS: u32 = 16;
const N_CELLS: usize = 1 << CELL_BITS;
/// Of two addresses, where pages that share a cell may not differ, chunk by chunk of the directory.
pub(crate) const SHARED_CHUNK_MASK: u64 = (1 << (CELL_BITS + PAGE_BITS)) - (1 << CHUNK_BITS);

/// No page of the cell has a sampled block.
const CLEAR: u8 = 0;
/// One may have: the last search found it so, or is under way. More by one for each release that found nothing
/// since then.
const SEARCHED: u8 = 1;
/// One may have, and it is to be looked which.
const MARKED: u8 = if cfg!(loom) { 3 } else { 64 };

/// The cells of all pages.
// Apart from what else the hook looks at, which hardly ever changes.
#[repr(align(64))]
pub(crate) struct SampledPages {
    cells: [AtomicU8; N_CELLS],
    lock: LeafLock<()>,
}

impl SampledPages {
    pub(crate) const fn new() -> Self {
        Self { cells: [const { AtomicU8::new(CLEAR) }; N_CELLS], lock: LeafLock::new(()) }
    }

    #[inline(always)]
    fn cell(&self, block_addr: u64) -> Option<&AtomicU8> {
        self.cells.get((block_addr >> PAGE_BITS) as usize & (N_CELLS - 1))
    }

    /// Whether a block of less than [`SIZE_LIMIT`](crate::page_word::SIZE_LIMIT) bytes is known to have no trace of a sampled run. Called
    /// for a block that is about to be given back.
    #[inline(always)]
    pub(crate) fn has_none(&self, block_addr: u64) -> bool {
        // Relaxed: the block's mark, if there was one, came before it was handed out (I1).
        self.cell(block_addr).is_some_and(|cell| cell.load(Relaxed) == CLEAR)
    }

    /// Tells of a sampled block that was put into the live table and not handed out yet.
    pub(crate) fn mark(&self, block_addr: u64) {
        if let Some(cell) = self.cell(block_addr) {
            // An exchange even where the cell is marked: the search that comes next must see this block.
            cell.swap(MARKED, Release);
        }
    }

    /// Marks all cells, for a table in which searches do not find all traces.
    pub(crate) fn mark_all(&self) {
        self.cells.iter().for_each(|cell| {
            cell.swap(MARKED, Release);
        });
    }

    /// Whether a release that found nothing is to search.
    pub(crate) fn wants_search(&self, block_addr: u64) -> bool {
        let Some(cell) = self.cell(block_addr) else { return false };
        match cell.load(Relaxed) {
            CLEAR => false,
            MARKED.. => true,
            n_found => {
                // Undoes a search that is under way. Fails if another has changed the cell.
                let _ = cell.compare_exchange(n_found, n_found.wrapping_add(1), Relaxed, Relaxed);
                false
            }
        }
    }

    /// Clears the cell of a block's page unless a search finds a trace in one of its pages.
    pub(crate) fn clear_unless(&self, block_addr: u64, search: impl FnOnce() -> bool) {
        let Some(cell) = self.cell(block_addr) else { return };
        // Never waited for: this may be a signal handler that interrupted the holder.
        let Some(held) = self.lock.try_lock() else {
            // For the next who comes.
            cell.swap(MARKED, Relaxed);
            return;
        };
        // Acquire pairs with the Release of `mark`: the search sees the pages of all marks before.
        cell.swap(SEARCHED, Acquire);
        if !search() {
            // Relaxed: a mark made meanwhile makes it fail, and publishes for the next search.
            let _ = cell.compare_exchange(SEARCHED, CLEAR, Relaxed, Relaxed);
        }
        drop(held);
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.lock.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.lock.release();
    }
}
