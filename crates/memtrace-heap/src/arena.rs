//! One arena: a mapped region cut into units, and the records of these units.
//!
//! # Mechanism
//! An arena is 4 MiB of address space aligned to its size, cut into 64 units of 64 KiB, so that the
//! units in no use are the bits of one word; a big one is 32 MiB, in units of 512 KiB. A pool or a large block takes a run of neighbouring
//! units. The records stand in another mapping: a stray write through a block cannot reach them.
//! They outlive the arena's memory and serve the next arena (R1 of [`cells`](crate::cells)).
//!
//! # Invariants
//! Those of [`arenas`](crate::arenas), under whose lock all fields but the pools' change.
//!
//! # Cost
//! Constant: masks of 64 bits.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cells::{Cell8, Cell32, Cell64, Link};
use crate::mapped::RegionCell;
use crate::pages::PAGE_SIZE;
use crate::pool::{Kind, N_WORDS, Pool};
use crate::word_space::Words;

/// The size and alignment of a unit, in bytes: what pools and large blocks are made of.
pub const UNIT_SIZE: usize = 64 * 1024;

/// How many units an arena is cut into.
pub const UNITS_PER_ARENA: usize = u64::BITS as usize;

/// The size and alignment of an arena, in bytes.
pub const ARENA_SIZE: usize = UNITS_PER_ARENA * UNIT_SIZE;

/// The size of a unit of a big arena, in bytes.
pub const BIG_UNIT_SIZE: usize = 512 * 1024;

/// The size and alignment of a big arena, in bytes.
pub const BIG_ARENA_SIZE: usize = UNITS_PER_ARENA * BIG_UNIT_SIZE;

/// What an arena is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Pools, and blocks of up to half of an arena.
    Small,
    /// Larger blocks.
    Big,
}

impl Scale {
    pub(crate) const fn unit_size(self) -> usize {
        match self {
            Scale::Small => UNIT_SIZE,
            Scale::Big => BIG_UNIT_SIZE,
        }
    }

    pub(crate) const fn arena_size(self) -> usize {
        self.unit_size().wrapping_mul(UNITS_PER_ARENA)
    }
}

/// The most blocks a unit can have.
pub(crate) const BLOCKS_PER_UNIT: usize = UNIT_SIZE / 16;

/// The records of one arena.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Arena {
    /// The blocks; none while these records serve no arena.
    pub(crate) memory: RegionCell,
    /// The embedder's words, if they are kept.
    pub(crate) words: Words,
    /// The units that serve nothing.
    pub(crate) unused: Cell64,
    /// The units whose pages may hold something else than zero.
    pub(crate) dirty: Cell64,
    /// The length of the longest run of unused units, which is the list this stands in.
    pub(crate) longest: Cell8,
    /// 1 for a big one.
    is_big: Cell8,
    /// A serial number, from 0, among those of its scale.
    pub(crate) number: Cell32,
    pub(crate) prev: Link<Arena>,
    pub(crate) next: Link<Arena>,
    /// The records made before these.
    pub(crate) older: Link<Arena>,
    pub(crate) pools: [Pool; UNITS_PER_ARENA],
    /// The free blocks of each pool.
    free: Bitmaps<Cell64>,
    /// Those that threads other than the owner have freed and the owner has not collected.
    remote: Bitmaps<AtomicU64>,
}

// What an arena's records keep from one arena to the next stands on the page that is not discarded.
const _: () = assert!(core::mem::offset_of!(Arena, pools) < PAGE_SIZE);

/// A bitmap for each unit: 64 words in 8 cache lines, of which the first of all units stand together, then
/// the second, and so on, each in a page. So a pool of few blocks, which needs one line, does not make
/// seven others resident.
#[derive(Debug)]
#[repr(C, align(4096))]
struct Bitmaps<T>([[Line<T>; UNITS_PER_ARENA]; N_WORDS / WORDS_PER_LINE]);

#[derive(Debug)]
#[repr(C, align(64))]
struct Line<T>([T; WORDS_PER_LINE]);

const WORDS_PER_LINE: usize = 8;

impl<T> Bitmaps<T> {
    #[inline]
    fn word(&self, unit: u8, at: u32) -> Option<&T> {
        let lines = self.0.get(at as usize / WORDS_PER_LINE)?;
        lines.get(unit as usize)?.0.get(at as usize % WORDS_PER_LINE)
    }
}

impl Arena {
    /// Word `at`, below 64, of the free blocks of the pool that begins at `unit`.
    #[inline]
    pub(crate) fn free_word(&self, unit: u8, at: u32) -> Option<&Cell64> {
        self.free.word(unit, at)
    }

    /// Word `at`, below 64, of the blocks of that pool that other threads have freed.
    #[inline]
    pub(crate) fn remote_word(&self, unit: u8, at: u32) -> Option<&AtomicU64> {
        self.remote.word(unit, at)
    }

    /// The record of unit `unit`.
    #[inline]
    pub(crate) fn pool(&self, unit: usize) -> Option<&Pool> {
        self.pools.get(unit)
    }

    #[inline]
    pub(crate) fn scale(&self) -> Scale {
        if self.is_big.get() == 0 { Scale::Small } else { Scale::Big }
    }

    pub(crate) fn set_scale(&self, scale: Scale) {
        self.is_big.set(u8::from(scale == Scale::Big));
    }

    /// The record of the unit in which `addr`, an address in this arena, lies.
    pub(crate) fn pool_at(&self, addr: usize) -> Option<&Pool> {
        let offset = addr.wrapping_sub(self.memory.base().addr());
        self.pool(offset.checked_div(self.scale().unit_size())?)
    }

    /// The first record of what `pool`'s unit belongs to.
    pub(crate) fn first_of<'a>(&'a self, pool: &'a Pool) -> Option<&'a Pool> {
        match pool.kind() {
            Kind::Inner(n_before) => self.pool(pool.unit().checked_sub(n_before)? as usize),
            _ => Some(pool),
        }
    }

    /// Whether a pool of it is in the queue of an owner.
    pub(crate) fn has_queued(&self) -> bool {
        // Acquire: nothing done to a pool before it left its queue comes after this.
        self.pools.iter().any(|pool| pool.is_queued.load(Ordering::Acquire))
    }

    pub(crate) fn is_mapped(&self) -> bool {
        !self.memory.base().is_null()
    }
}

/// The `n` bits from `first` on.
pub(crate) const fn run(first: u32, n: u32) -> u64 {
    let bits = if n >= u64::BITS { u64::MAX } else { 1u64.wrapping_shl(n).wrapping_sub(1) };
    bits.wrapping_shl(first)
}

/// The positions in `mask` at which a run of `n` set bits begins.
pub(crate) const fn run_starts(mask: u64, n: u32) -> u64 {
    let (mut starts, mut length) = (mask, 1u32);
    while length < n {
        let left = n.wrapping_sub(length);
        let step = if left < length { left } else { length };
        starts &= starts >> step;
        length = length.wrapping_add(step);
    }
    starts
}

/// The length of the longest run of set bits in `mask`.
pub(crate) const fn longest_run(mask: u64) -> u32 {
    if mask == u64::MAX {
        return u64::BITS;
    }
    let (mut rest, mut length) = (mask, 0u32);
    while rest != 0 {
        rest &= rest.wrapping_shl(1);
        length = length.wrapping_add(1);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_those_that_counting_finds(mask in any::<u64>(), more in any::<u64>()) {
            for mask in [mask, mask | more, mask & more, u64::MAX, 0] {
                let length_at = |at: u32| (mask >> at).trailing_ones();
                let longest = (0..64).map(length_at).max().unwrap();
                prop_assert_eq!(longest_run(mask), longest);
                for n in 1..=64 {
                    let starts: u64 = (0..64).map(|at| u64::from(length_at(at) >= n) << at).sum();
                    prop_assert_eq!(run_starts(mask, n), starts, "{:#x} {}", mask, n);
                }
            }
        }
    }
}
