//! Large blocks in arenas: each a run of units of its own.
//!
//! # Mechanism
//! What no class serves, up to [`MAX_RUN_SIZE`], gets neighbouring units of an arena; from 2 MiB on, of a
//! big arena. The record of the
//! first holds the size that was requested, which a free must name. A run grows where the units behind
//! it are unused, and shrinks, without moving.
//!
//! # Invariants
//! - **N1** A run's first record is [`Kind::Run`] with its units and requested bytes, the others are
//!   [`Kind::Inner`].
//! - **N2** The figures are the sums over all runs.
//!
//! # Cost
//! The heap's lock, and constant work.

use core::alloc::Layout;

use crate::arena::{ARENA_SIZE, BIG_ARENA_SIZE, BIG_UNIT_SIZE, Scale, UNIT_SIZE};
use crate::arenas::Token;
use crate::cells::{Cell64, CellSize};
use crate::invalid::InvalidFree;
use crate::pool::{Kind, Pool};

/// The largest block that is a run of units, in bytes; larger ones are mapped directly.
pub const MAX_RUN_SIZE: usize = BIG_ARENA_SIZE;

/// The largest block that is a run in a small arena, in bytes.
const MAX_SMALL_RUN_SIZE: usize = ARENA_SIZE / 2;

/// How many units of which arenas make up a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) scale: Scale,
    pub(crate) n_units: u32,
}

/// The figures of all runs.
#[derive(Debug)]
pub(crate) struct Runs {
    pub(crate) n_current: CellSize,
    pub(crate) n_total: Cell64,
    pub(crate) mapped_bytes: CellSize,
    pub(crate) requested_bytes: CellSize,
}

/// The run that serves `layout`, if it is one for a run; for layouts beyond all classes.
pub(crate) fn extent_for(layout: Layout) -> Option<Extent> {
    let is_small = layout.size() <= MAX_SMALL_RUN_SIZE && layout.align() <= UNIT_SIZE;
    let is_run = layout.size() <= MAX_RUN_SIZE && layout.align() <= BIG_UNIT_SIZE;
    // A small size with a large alignment is mapped: few pages are better than a big unit.
    let is_big = is_run && layout.size() > MAX_SMALL_RUN_SIZE;
    let scale = if is_small { Scale::Small } else { Scale::Big };
    let n_units = layout.size().div_ceil(scale.unit_size()).max(1) as u32;
    (is_small || is_big).then_some(Extent { scale, n_units })
}

impl Runs {
    /// Makes `n` units from `first` on one block of `size` requested bytes.
    pub(crate) fn begin(&self, _: &mut Token, first: &Pool, n: u32, size: usize) {
        set_kinds(first, n, Kind::Run);
        first.n_run_units.set(n as u8);
        first.run_bytes.set(size);
        self.n_current.add(1);
        self.n_total.add(1);
        self.mapped_bytes.add(bytes_of(first, n));
        self.requested_bytes.add(size);
    }

    /// Ends the block at `first`; returns its number of units.
    pub(crate) fn end(&self, _: &mut Token, first: &Pool) -> u32 {
        let n = u32::from(first.n_run_units.get());
        self.n_current.sub(1);
        self.mapped_bytes.sub(bytes_of(first, n));
        self.requested_bytes.sub(first.run_bytes.get());
        set_kinds(first, n, Kind::Unused);
        n
    }

    /// Changes the block at `first`, whose units have been added already, or are given back by the
    /// caller, to `n` units and `size` requested bytes.
    pub(crate) fn resize(&self, _: &mut Token, first: &Pool, n: u32, size: usize) {
        let n_before = u32::from(first.n_run_units.get());
        self.mapped_bytes.sub(bytes_of(first, n_before));
        self.mapped_bytes.add(bytes_of(first, n));
        self.requested_bytes.sub(first.run_bytes.get());
        self.requested_bytes.add(size);
        set_kinds(first, n_before, Kind::Unused);
        set_kinds(first, n, Kind::Run);
        first.n_run_units.set(n as u8);
        first.run_bytes.set(size);
    }
}

/// The run of `size` requested bytes that begins at `addr`, given the record of its unit.
pub(crate) fn check(pool: &Pool, addr: usize, size: usize) -> Result<(), InvalidFree> {
    match pool.kind() {
        Kind::Run if pool.base().addr() != addr => Err(InvalidFree::Misaligned),
        Kind::Run if pool.run_bytes.get() != size => Err(InvalidFree::WrongLayout),
        Kind::Run => Ok(()),
        Kind::Unused => Err(InvalidFree::Double),
        Kind::Inner(_) => Err(InvalidFree::Misaligned),
        Kind::Pool(_) => Err(InvalidFree::WrongLayout),
    }
}

/// What `n` units from `first` on are, in bytes.
pub(crate) fn bytes_of(first: &Pool, n: u32) -> usize {
    first.arena().map_or(0, |arena| arena.scale().unit_size().wrapping_mul(n as usize))
}

/// Makes the `n` units from `first` on the parts of one thing, or unused.
pub(crate) fn set_kinds(first: &Pool, n: u32, kind: Kind) {
    first.set_kind(kind);
    let Some(arena) = first.arena() else { return };
    let units = arena.pools.iter().skip(first.unit() as usize).take(n as usize);
    for (n_before, pool) in units.enumerate().skip(1) {
        let inner = Kind::Inner(n_before as u8);
        pool.set_kind(if kind == Kind::Unused { Kind::Unused } else { inner });
    }
}
