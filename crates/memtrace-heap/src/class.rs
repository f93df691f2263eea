//! Size classes: which block size serves a request.
//!
//! # Mechanism
//! Steps of 16 bytes up to 512 (CPython's classes), then eight classes a doubling up to 64 KiB:
//! 576, 640, 704, 768, … At most 15 bytes are lost to rounding in the first range and at
//! most a ninth of the block in the second.
//!
//! Alignment needs no tables: a request is first rounded up to a multiple of its alignment, and
//! the class of the result always has a block size that is a multiple of that alignment.
//!
//! # Invariants
//! - **C1** Block sizes ascend strictly, from 16 to [`MAX_BLOCK_SIZE`].
//! - **C2** `of(layout)` is the smallest class whose blocks hold `layout.size()` bytes and whose
//!   size is a multiple of `layout.align()`. (Up to 512 bytes the rounded request *is* a block
//!   size. Above, block sizes are the multiples of a power of two `step`: an alignment up to
//!   `step` divides all of them, and for a larger one the rounded request is itself a multiple of
//!   `step`, hence a block size.)
//!
//! # Cost
//! A handful of instructions, no memory access.

use core::alloc::Layout;

use crate::arena::UNIT_SIZE;

/// How many size classes there are.
pub const N_CLASSES: usize = 88;

/// The largest block of a pool, in bytes; larger requests get a run of units or a mapping of their own.
pub const MAX_BLOCK_SIZE: usize = 64 * 1024;

/// The smallest block, and the difference between small ones, in bytes.
const STEP: usize = 16;
/// The classes of sizes up to 4 KiB, for each step of 16 bytes.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static BY_STEP: [SizeClass; 256] = {
    let mut by_step = [SizeClass(0); 256];
    let mut at = 0usize;
    while at < by_step.len() {
        let size = at.wrapping_add(1).wrapping_mul(STEP);
        if let Ok(layout) = Layout::from_size_align(size, 1)
            && let Some(class) = SizeClass::of_any(layout)
        {
            by_step[at] = class;
        }
        at = at.wrapping_add(1);
    }
    by_step
};

/// Where the steps of 16 bytes end, in bytes.
const LINEAR_LIMIT: usize = 512;
/// The number of classes in steps of 16 bytes.
const N_LINEAR: usize = 32;

/// One of the [`N_CLASSES`] block sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeClass(u8);

impl SizeClass {
    /// The class that serves `layout` (C2), or `None` when it is larger. A size of zero
    /// counts as one byte.
    #[inline]
    #[must_use]
    pub fn of(layout: Layout) -> Option<SizeClass> {
        // The usual case first: all block sizes suit these alignments. A size of zero wraps, and is for
        // the general case.
        let last_byte = layout.size().wrapping_sub(1);
        if layout.align() <= STEP {
            if last_byte < LINEAR_LIMIT {
                return Some(SizeClass((last_byte / STEP) as u8));
            }
            if let Some(class) = BY_STEP.get(last_byte / STEP) {
                return Some(*class);
            }
        }
        SizeClass::of_any(layout)
    }

    /// [`of`](Self::of), computed.
    #[inline]
    const fn of_any(layout: Layout) -> Option<SizeClass> {
        let low_bits = layout.align().wrapping_sub(1);
        // A valid layout rounded up to its alignment does not exceed isize::MAX.
        let at_least_one = layout.size() | (layout.size() == 0) as usize;
        let size = at_least_one.wrapping_add(low_bits) & !low_bits;
        let last_byte = size.wrapping_sub(1);
        if last_byte < LINEAR_LIMIT {
            return Some(SizeClass((last_byte / STEP) as u8));
        }
        if last_byte >= MAX_BLOCK_SIZE {
            return None;
        }
        // 9..=15, because last_byte lies in 512..65536.
        let log = last_byte.ilog2();
        let doubling = log.wrapping_sub(9) as usize;
        let eighth = (last_byte >> log.wrapping_sub(3)) & 7;
        Some(SizeClass(N_LINEAR.wrapping_add(doubling.wrapping_mul(8)).wrapping_add(eighth) as u8))
    }

    /// The class at `index` in ascending order of size, if `index` is below [`N_CLASSES`].
    #[must_use]
    pub const fn from_index(index: usize) -> Option<SizeClass> {
        if index < N_CLASSES { Some(SizeClass(index as u8)) } else { None }
    }

    /// The position in ascending order of size, below [`N_CLASSES`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The smallest size that this class serves unless an alignment asks for it, in bytes.
    pub(crate) const fn min_size(self) -> usize {
        match self.0.checked_sub(1) {
            Some(below) => SizeClass(below).block_size().wrapping_add(1),
            None => 1,
        }
    }

    /// How many units of [`UNIT_SIZE`](crate::UNIT_SIZE) bytes a pool of this class is made of: 1 for blocks up to
    /// 8 KiB, 8 above, so that a pool has eight blocks or more.
    #[must_use]
    pub const fn units_per_pool(self) -> usize {
        if self.block_size() <= UNIT_SIZE / 8 { 1 } else { 8 }
    }

    /// How many blocks a pool of this class has: 8 to 4096.
    #[must_use]
    pub const fn blocks_per_pool(self) -> usize {
        let pool_size = self.units_per_pool().wrapping_mul(UNIT_SIZE);
        match pool_size.checked_div(self.block_size()) {
            Some(n_blocks) => n_blocks,
            // C1: no block size is zero.
            None => 0,
        }
    }

    /// What is left at the end of a pool of this class, in bytes.
    #[must_use]
    pub const fn tail_bytes(self) -> usize {
        let used = self.blocks_per_pool().wrapping_mul(self.block_size());
        self.units_per_pool().wrapping_mul(UNIT_SIZE).wrapping_sub(used)
    }

    /// The size of each block of this class, in bytes: a multiple of 16.
    #[must_use]
    pub const fn block_size(self) -> usize {
        let index = self.index();
        // No sum or product here exceeds MAX_BLOCK_SIZE.
        if index < N_LINEAR {
            return index.wrapping_add(1).wrapping_mul(16);
        }
        let step = index.wrapping_sub(N_LINEAR);
        let base = LINEAR_LIMIT.wrapping_shl((step / 8) as u32);
        base.wrapping_add((base / 8).wrapping_mul((step % 8).wrapping_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = SizeClass> {
        (0..N_CLASSES).map(|index| SizeClass::from_index(index).unwrap())
    }

    #[test]
    fn block_sizes_ascend_to_the_maximum() {
        assert!(all().is_sorted_by(|a, b| a.block_size() < b.block_size()));
        assert_eq!(all().next().unwrap().block_size(), 16);
        assert_eq!(all().last().unwrap().block_size(), MAX_BLOCK_SIZE);
        assert_eq!(SizeClass::from_index(N_CLASSES), None);
    }

    #[test]
    fn every_layout_gets_the_smallest_class_that_fits_and_is_aligned() {
        for shift in 0..=18 {
            for size in 0..=MAX_BLOCK_SIZE + 1 {
                let layout = Layout::from_size_align(size, 1 << shift).unwrap();
                let expected = all().find(|class| {
                    class.block_size() >= size && class.block_size() % layout.align() == 0
                });
                assert_eq!(SizeClass::of(layout), expected, "{layout:?}");
            }
        }
    }

    #[test]
    fn the_largest_layouts_do_not_overflow() {
        for shift in 0..usize::BITS - 1 {
            let align = 1usize << shift;
            let size = isize::MAX as usize & !(align - 1);
            let layout = Layout::from_size_align(size, align).unwrap();
            assert_eq!(SizeClass::of(layout), None);
        }
    }
}
