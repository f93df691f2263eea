//! The map of a heap: what the units of each arena serve, and how full they are.
//!
//! # Mechanism
//! An [`ArenaView`] is a plain copy of one arena's records, at most 64 [`Span`]s, made under the heap's
//! lock. The lock is released before the view is handed out, so whoever looks at it may allocate from
//! the same heap. The walk goes on by the arenas' records, which stay where they are for as long as
//! the heap is borrowed: latest record first, so what is added meanwhile is not met, and the walk ends.
//!
//! # Invariants
//! - **M1** The spans of a view tile its units: the first begins at unit 0, each other where the one
//!   before ends, the last ends with the arena.
//! - **M2** No call-back is called, and nothing allocated, while the lock is held.
//!
//! # Cost
//! For each arena the lock, to count the bits of its pools: up to 12 µs with 64 pools of 16-byte blocks,
//! less than 2 µs with blocks of 640 bytes or more, measured on a 2-core x86_64 machine with other work
//! running. A view takes 6 KiB of stack.

use core::fmt;
use core::iter::FusedIterator;

use crate::arena::{Arena, BIG_UNIT_SIZE, Scale, UNITS_PER_ARENA, run};
use crate::control::{Control, Locked};
use crate::lock::Guard;
use crate::pool::{Kind, Pool};
use crate::python::Places;
use crate::runs;
use crate::svg::Svg;

/// What neighbouring units of an arena serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum SpanKind {
    /// Nothing.
    #[default]
    Unused,
    /// A pool of blocks of one size class.
    Pool,
    /// One large block.
    Run,
}

/// Neighbouring units of an arena that serve one thing, or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Span {
    /// The number of its first unit in the arena.
    pub first_unit: usize,
    /// How many units it has.
    pub n_units: usize,
    /// What it serves.
    pub kind: SpanKind,
    /// The index of a pool's size class, in ascending order of size.
    pub class: Option<usize>,
    /// The size of each block, in bytes; for a run that of its units; 0 for what is unused.
    pub block_size: usize,
    /// How many blocks it has, in use or not.
    pub n_blocks: usize,
    /// Blocks in use.
    pub n_blocks_used: usize,
    /// What the blocks in use take, in bytes.
    pub used_bytes: usize,
    /// What was asked for, in bytes, where that is recorded for each block: of runs.
    pub requested_bytes: Option<usize>,
    /// Whether its pages may hold something, so that they take memory; `false` if they were never
    /// used or have been given back.
    pub is_dirty: bool,
    /// The number of the pool's owner: of the thread, or threads one after the other, that take
    /// blocks from it.
    pub owner: Option<u32>,
}

/// One arena at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaView {
    /// Its number; no two arenas of one size have the same at one time.
    pub number: u64,
    /// The address of its first unit.
    pub base_addr: usize,
    /// The size of a unit, in bytes.
    pub unit_size: usize,
    spans: [Span; UNITS_PER_ARENA],
    n_spans: usize,
}

impl ArenaView {
    pub(crate) fn new(number: u64, base_addr: usize, unit_size: usize) -> ArenaView {
        let spans = [Span::default(); UNITS_PER_ARENA];
        ArenaView { number, base_addr, unit_size, spans, n_spans: 0 }
    }

    /// Its spans, in the order of their addresses.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        self.spans.get(..self.n_spans).unwrap_or_default()
    }

    /// How many units it has.
    #[must_use]
    pub fn n_units(&self) -> usize {
        let last = self.spans().last();
        last.map_or(0, |span| span.first_unit.saturating_add(span.n_units))
    }

    /// The address space of its units, in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_units().saturating_mul(self.unit_size)
    }

    /// What its blocks in use take, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.spans().iter().fold(0, |sum, span| span.used_bytes.saturating_add(sum))
    }

    /// Whether it is one of the big arenas, which only have large blocks.
    #[must_use]
    pub fn is_big(&self) -> bool {
        self.unit_size == BIG_UNIT_SIZE
    }

    /// Adds a span behind the others, or to the last if both are alike and unused.
    pub(crate) fn push(&mut self, span: Span) {
        let last = self.n_spans.checked_sub(1).and_then(|at| self.spans.get_mut(at));
        if let Some(last) = last
            && (last.kind, span.kind) == (SpanKind::Unused, SpanKind::Unused)
            && last.is_dirty == span.is_dirty
        {
            last.n_units = last.n_units.saturating_add(span.n_units);
        } else if let Some(place) = self.spans.get_mut(self.n_spans) {
            *place = span;
            self.n_spans = self.n_spans.wrapping_add(1);
        }
    }

    /// Copies the records of `arena`, which is mapped.
    fn of(_: &Locked, arena: &Arena) -> ArenaView {
        let (number, base_addr) = (u64::from(arena.number.get()), arena.memory.base().addr());
        let mut view = ArenaView::new(number, base_addr, arena.scale().unit_size());
        let mut unit = 0usize;
        while let Some(pool) = arena.pool(unit) {
            let span = span_at(arena, unit, pool);
            unit = unit.saturating_add(span.n_units);
            view.push(span);
        }
        view
    }
}

/// What begins at `unit`, which has the record `pool`.
///
/// An owner changes the kinds of units that it has taken without the lock, so what is neither whole nor
/// unused is met: it is about to be a pool, or was one, and has no block in use.
fn span_at(arena: &Arena, unit: usize, pool: &Pool) -> Span {
    let is_dirty = arena.dirty.get() & run(unit as u32, 1) != 0;
    let n_left = UNITS_PER_ARENA.saturating_sub(unit);
    let unused = Span { first_unit: unit, n_units: 1, is_dirty, ..Span::default() };
    match pool.kind() {
        Kind::Unused | Kind::Inner(_) => unused,
        Kind::Pool(class) => {
            let (block_size, n_blocks) = (class.block_size(), class.blocks_per_pool());
            // Read while the owner is at work it can be off by what that is doing.
            let n_blocks_used = (pool.n_used() as usize).min(n_blocks);
            Span {
                n_units: class.units_per_pool().min(n_left),
                kind: SpanKind::Pool,
                class: Some(class.index()),
                block_size,
                n_blocks,
                n_blocks_used,
                used_bytes: n_blocks_used.saturating_mul(block_size),
                owner: pool.owner().map(|owner| owner.number.get()),
                ..unused
            }
        }
        Kind::Run => {
            let n_units = usize::from(pool.n_run_units.get()).clamp(1, n_left);
            let block_size = runs::bytes_of(pool, n_units as u32);
            Span {
                n_units,
                kind: SpanKind::Run,
                block_size,
                n_blocks: 1,
                n_blocks_used: 1,
                used_bytes: block_size,
                requested_bytes: Some(pool.run_bytes.get()),
                ..unused
            }
        }
    }
}

/// The map of a heap: each arena, its pools and large blocks, and how full they are.
///
/// It is a way to look and not a copy: each [`arenas`](Self::arenas) walks the heap as it is then. It
/// does not allocate. While other threads are in the heap, which units serve what is exact for
/// each arena at the moment when it is looked at, except that a pool about to begin or to end may show
/// as unused; the blocks in use of another thread's pool may be off by those taken and given back while
/// they are counted; and different arenas are looked at one after the other. Without other threads,
/// all is exact, and the sums are those of the heap's figures.
///
/// Blocks mapped directly are in no arena, and so not in the map.
///
/// **Cost**: up to 12 µs for each arena, during which the heap's lock is held.
///
/// ```
/// use memtrace_heap::{Config, Model, SpanKind};
/// use std::alloc::Layout;
///
/// let model = Model::new(Config::new());
/// model.allocate(Layout::new::<[u8; 24]>());
/// model.allocate(Layout::new::<[u8; 100_000]>());
///
/// let arena = model.map().arenas().next().unwrap();
/// let [pool, run, unused] = arena.spans() else { panic!() };
/// assert_eq!((pool.kind, pool.block_size, pool.n_blocks_used), (SpanKind::Pool, 32, 1));
/// assert_eq!((run.kind, run.n_units, run.requested_bytes), (SpanKind::Run, 2, Some(100_000)));
/// assert_eq!((unused.kind, unused.n_units, unused.is_dirty), (SpanKind::Unused, 61, false));
/// ```
///
/// With the feature `serde` it is serialised as the sequence of its arenas.
#[derive(Clone, Copy)]
pub struct HeapMap<'h> {
    of: Of<'h>,
}

#[derive(Clone, Copy)]
enum Of<'h> {
    /// A heap that was never used.
    Nothing,
    Native(&'h Control),
    Python(Places<'h>),
}

impl<'h> HeapMap<'h> {
    pub(crate) fn of_native(control: Option<&'h Control>) -> HeapMap<'h> {
        HeapMap { of: control.map_or(Of::Nothing, Of::Native) }
    }

    pub(crate) fn of_python(places: Places<'h>) -> HeapMap<'h> {
        HeapMap { of: Of::Python(places) }
    }

    /// Every arena that is mapped, latest first, those for pools before the big ones.
    ///
    /// Whoever consumes this may allocate from the heap. Arenas mapped after the first step are not
    /// among those found.
    #[must_use]
    pub fn arenas(&self) -> ArenaViews<'h> {
        let next = match self.of {
            Of::Nothing => Next::End,
            Of::Native(control) => Next::Latest(control, Scale::Small),
            Of::Python(places) => Next::Place(places, places.len()),
        };
        ArenaViews { next }
    }

    /// A picture of the map, which walks the heap when it is displayed: see [`Svg`].
    #[must_use]
    pub fn svg(&self) -> Svg<'h> {
        Svg::new(*self)
    }

    /// The blocks that are in no arena, and what they take in bytes.
    pub(crate) fn outside(&self) -> (usize, usize) {
        match self.of {
            Of::Nothing => (0, 0),
            Of::Native(control) => control
                .lock
                .lock()
                .map_or((0, 0), |guard| (guard.mappings.table.len(), guard.mappings.mapped_bytes)),
            Of::Python(places) => places.outside(),
        }
    }
}

impl fmt::Debug for HeapMap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.arenas()).finish()
    }
}

/// The arenas of a [`HeapMap`].
#[derive(Clone)]
pub struct ArenaViews<'h> {
    next: Next<'h>,
}

/// Where the walk goes on.
#[derive(Clone, Copy)]
enum Next<'h> {
    /// At the latest record of these arenas.
    Latest(&'h Control, Scale),
    /// At this record.
    Record(&'h Control, &'h Arena),
    /// Below this place.
    Place(Places<'h>, usize),
    End,
}

impl<'h> Next<'h> {
    /// At `record`, or behind the arenas of `scale`, which have no more.
    fn at(control: &'h Control, scale: Scale, record: Option<&'h Arena>) -> Next<'h> {
        match (record, scale) {
            (Some(record), _) => Next::Record(control, record),
            (None, Scale::Small) => Next::Latest(control, Scale::Big),
            (None, Scale::Big) => Next::End,
        }
    }
}

impl<'h> ArenaViews<'h> {
    /// Waits for the heap's lock; `None`, which ends the walk, in a signal handler that interrupts the
    /// holder.
    fn lock(&mut self, control: &'h Control) -> Option<Guard<'h, Locked>> {
        let guard = control.lock.lock();
        if guard.is_none() {
            self.next = Next::End;
        }
        guard
    }
}

impl Iterator for ArenaViews<'_> {
    type Item = ArenaView;

    fn next(&mut self) -> Option<ArenaView> {
        loop {
            match self.next {
                Next::Latest(control, scale) => {
                    let _guard = self.lock(control)?;
                    self.next = Next::at(control, scale, control.arenas_of(scale).latest());
                }
                Next::Record(control, arena) => {
                    let guard = self.lock(control)?;
                    self.next = Next::at(control, arena.scale(), arena.older.get());
                    if arena.is_mapped() {
                        return Some(ArenaView::of(&guard, arena));
                    }
                }
                Next::Place(places, end) => {
                    let Some(place) = end.checked_sub(1) else {
                        self.next = Next::End;
                        continue;
                    };
                    self.next = Next::Place(places, place);
                    if let Some(view) = places.view(place) {
                        return Some(view);
                    }
                }
                Next::End => return None,
            }
        }
    }
}

impl FusedIterator for ArenaViews<'_> {}

impl fmt::Debug for ArenaViews<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(feature = "serde")]
mod serialized {
    use serde::ser::SerializeStruct;
    use serde::{Serialize, Serializer};

    use super::{ArenaView, HeapMap};

    impl Serialize for ArenaView {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("ArenaView", 5)?;
            fields.serialize_field("number", &self.number)?;
            fields.serialize_field("base_addr", &self.base_addr)?;
            fields.serialize_field("unit_size", &self.unit_size)?;
            fields.serialize_field("n_units", &self.n_units())?;
            fields.serialize_field("spans", self.spans())?;
            fields.end()
        }
    }

    impl Serialize for HeapMap<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.arenas())
        }
    }
}
