//! A block that somebody holds; whoever drops it gives it back.

use crate::report::{FIGURES, count, ensure};
use crate::sites::{N_SITES, Request, ask};
use crate::{rng::Rng, truth};
use std::alloc::Layout;

/// What a block begins with, if it has room, is its size under this.
const MARK: usize = 0x5bd1_e995_9d1b_54a3;
const LARGE_SIZE: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Held {
    block: *mut u8,
    layout: Layout,
}

// SAFETY: the block belongs to the value alone.
unsafe impl Send for Held {}

impl Held {
    /// Asks for a block of random size and alignment, from a random site, and of many small ones for one of 16
    /// MiB or more only if `may_be_large`.
    pub(crate) fn random(rng: &mut Rng, may_be_large: bool) -> Self {
        let mut size = random_size(rng);
        if size >= 1 << 20 && !may_be_large {
            size %= 5000;
        }
        let align = match rng.below(50) {
            0 => 1 << rng.below(13),
            n => 1 << (n % 5),
        };
        Self::new(rng, Layout::from_size_align(size.max(1), align).expect("it is small"))
    }

    pub(crate) fn new(rng: &mut Rng, layout: Layout) -> Self {
        let is_zeroed = rng.below(6) == 0;
        let request = if is_zeroed { Request::AllocZeroed(layout) } else { Request::Alloc(layout) };
        let block = ask(rng.below(N_SITES), rng.below(1000), request);
        ensure!(!block.is_null(), "there is no memory for {layout:?}");
        if layout.size() >= LARGE_SIZE {
            count(&FIGURES.n_large);
        }
        let held = Self { block, layout };
        if is_zeroed {
            ensure!(held.mark() == 0, "a zeroed block is not zero at {block:p}");
        }
        held.set_mark();
        held
    }

    pub(crate) fn addr(&self) -> u64 {
        self.block.addr() as u64
    }

    pub(crate) fn size(&self) -> usize {
        self.layout.size()
    }

    /// Whether others must be few.
    pub(crate) fn is_large(&self) -> bool {
        self.layout.size() >= 1 << 20
    }

    /// Makes the block larger or smaller, or not, if the allocator refuses.
    pub(crate) fn resize(&mut self, rng: &mut Rng) {
        let size = self.layout.size();
        let new_size = match rng.below(8) {
            // In place, most often.
            0 | 1 => size + rng.below(24),
            2 => size / 2 + 1,
            3 => 1 + rng.below(16),
            4 => 1 + rng.below(2000),
            5 => size.min(1 << 20) + (64 << 10) + rng.below(100_000),
            _ => 1 + rng.below(2 * size.min(100_000)),
        };
        self.check_mark();
        let request = Request::Resize(self.block, self.layout, new_size);
        let block = ask(rng.below(N_SITES), rng.below(1000), request);
        if block.is_null() {
            return self.check_mark();
        }
        let old = std::mem::replace(
            self,
            Self {
                block,
                layout: Layout::from_size_align(new_size, self.layout.align())
                    .expect("it is small"),
            },
        );
        if new_size.min(old.layout.size()) >= size_of::<usize>() {
            ensure!(
                self.mark() == old.layout.size() ^ MARK,
                "a block was not copied when it was resized from {:p} to {block:p}",
                old.block
            );
        }
        std::mem::forget(old);
        self.set_mark();
    }

    fn mark(&self) -> usize {
        if self.layout.size() < size_of::<usize>() {
            return 0;
        }
        // SAFETY: the block has as many bytes.
        unsafe { self.block.cast::<usize>().read_unaligned() }
    }

    fn set_mark(&self) {
        if self.layout.size() >= size_of::<usize>() {
            let mark = self.layout.size() ^ MARK;
            // SAFETY: the block has as many bytes.
            unsafe { self.block.cast::<usize>().write_unaligned(mark) }
        }
    }

    fn check_mark(&self) {
        let is_good =
            self.layout.size() < size_of::<usize>() || self.mark() == self.layout.size() ^ MARK;
        ensure!(is_good, "the block of {} bytes at {:p} was written to", self.size(), self.block);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.check_mark();
        // SAFETY: the block is live, has this layout, and is not used again.
        unsafe { std::alloc::dealloc(self.block, self.layout) };
    }
}

fn random_size(rng: &mut Rng) -> usize {
    match rng.below(1000) {
        0..=199 => 1 + rng.below(16),
        200..=549 => 17 + rng.below(112),
        550..=749 => 129 + rng.below(900),
        750..=869 => 1 + rng.below(8 << 10),
        870..=969 => 1 + rng.below(64 << 10),
        970..=996 => 1 + rng.below(1 << 20),
        997 | 998 => (1 << 20) + rng.below(15 << 20),
        _ => LARGE_SIZE - 2 + rng.below(24 << 20),
    }
}

/// A list of blocks whose own memory nobody traces.
pub(crate) fn list(capacity: usize) -> Vec<Held> {
    truth::untraced(|| Vec::with_capacity(capacity))
}
