//! What is told above the rows, and where everything is.
//!
//! # Cost
//! A walk of the map.

use crate::arena::UNITS_PER_ARENA;
use crate::map::{ArenaView, HeapMap, SpanKind};

/// The most rows that are drawn for arenas of one size.
pub(super) const MAX_ROWS: usize = 256;
/// The most size classes that any heap has.
pub(super) const MAX_CLASSES: usize = 128;
const _: () = assert!(crate::class::N_CLASSES <= MAX_CLASSES);

/// The distance of all from the picture's border, and the places of things, in pixels.
pub(super) const MARGIN: f32 = 20.0;
pub(super) const CELLS_X: f32 = 66.0;
pub(super) const UNIT_WIDTH: f32 = 13.0;
pub(super) const WIDTH: f32 = CELLS_X + UNITS_PER_ARENA as f32 * UNIT_WIDTH + 52.0 + MARGIN;
pub(super) const LEGEND_Y: f32 = 78.0;
pub(super) const LEGEND_LINE: f32 = 18.0;
pub(super) const LEGEND_COLUMN: f32 = 154.0;
pub(super) const LEGEND_COLUMNS: usize = 6;

/// What the pools of one class come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClassTally {
    pub(super) block_size: usize,
    pub(super) n_pools: usize,
}

/// What the arenas of one size come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ScaleTally {
    pub(super) n_arenas: usize,
    pub(super) arena_size: usize,
    pub(super) unit_size: usize,
}

/// What is told above the rows.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) scales: [ScaleTally; 2],
    pub(super) classes: [ClassTally; MAX_CLASSES],
    pub(super) n_blocks: usize,
    pub(super) n_runs: usize,
    pub(super) arena_bytes: usize,
    pub(super) pool_used_bytes: usize,
    pub(super) run_bytes: usize,
    pub(super) free_bytes: usize,
    pub(super) unused_bytes: usize,
    pub(super) unused_dirty_bytes: usize,
}

/// Where the rows of one section are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// The first row's upper edge.
    pub(super) y: f32,
    pub(super) height: f32,
    pub(super) pitch: f32,
    /// How many arenas are drawn.
    pub(super) n_drawn: usize,
}

impl Tally {
    pub(super) fn of(map: HeapMap<'_>) -> Tally {
        let mut tally = Tally {
            scales: [ScaleTally::default(); 2],
            classes: [ClassTally::default(); MAX_CLASSES],
            n_blocks: 0,
            n_runs: 0,
            arena_bytes: 0,
            pool_used_bytes: 0,
            run_bytes: 0,
            free_bytes: 0,
            unused_bytes: 0,
            unused_dirty_bytes: 0,
        };
        for arena in map.arenas() {
            tally.add(&arena);
        }
        tally
    }

    fn add(&mut self, arena: &ArenaView) {
        self.arena_bytes = self.arena_bytes.saturating_add(arena.n_bytes());
        if let Some(scale) = self.scales.get_mut(scale_of(arena)) {
            scale.n_arenas = scale.n_arenas.saturating_add(1);
            scale.arena_size = arena.unit_size.saturating_mul(UNITS_PER_ARENA);
            scale.unit_size = arena.unit_size;
        }
        for span in arena.spans() {
            let n_bytes = span.n_units.saturating_mul(arena.unit_size);
            let add = |sum: &mut usize, n: usize| *sum = sum.saturating_add(n);
            add(&mut self.n_blocks, span.n_blocks_used);
            match span.kind {
                SpanKind::Unused if span.is_dirty => add(&mut self.unused_dirty_bytes, n_bytes),
                SpanKind::Unused => add(&mut self.unused_bytes, n_bytes),
                SpanKind::Run => {
                    add(&mut self.n_runs, 1);
                    add(&mut self.run_bytes, n_bytes);
                }
                SpanKind::Pool => {
                    let n_free = span.n_blocks.saturating_sub(span.n_blocks_used);
                    add(&mut self.pool_used_bytes, span.used_bytes);
                    add(&mut self.free_bytes, n_free.saturating_mul(span.block_size));
                    if let Some(class) = span.class.and_then(|class| self.classes.get_mut(class)) {
                        class.block_size = span.block_size;
                        add(&mut class.n_pools, 1);
                    }
                }
            }
        }
    }

    pub(super) fn n_arenas(&self) -> usize {
        self.scales.iter().fold(0, |sum, scale| sum.saturating_add(scale.n_arenas))
    }

    pub(super) fn classes_in_use(&self) -> impl Iterator<Item = (usize, &ClassTally)> {
        self.classes.iter().enumerate().filter(|(_, class)| class.n_pools != 0)
    }

    /// Where the legend ends.
    pub(super) fn legend_end(&self) -> f32 {
        let n_lines = self.classes_in_use().count().div_ceil(LEGEND_COLUMNS).saturating_add(1);
        LEGEND_Y + n_lines as f32 * LEGEND_LINE
    }

    /// The rows of both sections, and the height of the picture.
    pub(super) fn layout(&self) -> ([Rows; 2], f32) {
        let n_drawn = self.scales.map(|scale| scale.n_arenas.min(MAX_ROWS));
        // Many arenas have low rows.
        let (height, pitch) = match n_drawn.iter().fold(0usize, |sum, n| sum.saturating_add(*n)) {
            0..=16 => (30.0, 35.0),
            17..=48 => (20.0, 23.0),
            49..=100 => (12.0, 14.0),
            _ => (7.0, 8.0),
        };
        let mut y = self.legend_end();
        let rows = [0usize, 1].map(|at| {
            let n_drawn = n_drawn.get(at).copied().unwrap_or(0);
            let rows = Rows { y: y + 32.0, height, pitch, n_drawn };
            if n_drawn != 0 {
                y = rows.y + n_drawn as f32 * pitch;
                y += if self.n_left_out(at) != 0 { LEGEND_LINE } else { 0.0 };
            }
            rows
        });
        (rows, y + MARGIN)
    }

    /// How many arenas of a size are not drawn.
    pub(super) fn n_left_out(&self, scale: usize) -> usize {
        self.scales.get(scale).map_or(0, |scale| scale.n_arenas.saturating_sub(MAX_ROWS))
    }
}

/// The section an arena is drawn in.
pub(super) fn scale_of(arena: &ArenaView) -> usize {
    usize::from(arena.is_big())
}
