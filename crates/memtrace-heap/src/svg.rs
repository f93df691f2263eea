//! The map of a heap as a picture.
//!
//! # Mechanism
//! The heap is walked twice: once for the totals and the legend, which stand on top, and once for the
//! cells. A row's place follows from how many arenas come after it in the walk, so the rows ascend
//! although the walk descends. All is written as it is found, without a copy.
//!
//! # Cost
//! Two walks of the map, and about 210 bytes of text for each pool, large block, and run of unused units.

mod figure;
mod shape;
mod tally;

use core::fmt::{self, Formatter, Write};

use self::figure::{Bytes, Count, Share};
use self::shape::{Faint, Px, Rect, colour, swatch, text};
use self::tally::{
    CELLS_X, LEGEND_COLUMN, LEGEND_COLUMNS, LEGEND_LINE, LEGEND_Y, MARGIN, MAX_CLASSES, Rows,
    ScaleTally, Tally, UNIT_WIDTH, WIDTH, scale_of,
};
use crate::arena::UNITS_PER_ARENA;
use crate::map::{ArenaView, HeapMap, Span, SpanKind};
use crate::stats::Thousands;

/// A picture of a [`HeapMap`] in SVG: its [`Display`](fmt::Display) is a whole document.
///
/// Each arena is a row and each pool or large block a cell, as wide as its units and filled from below
/// as far as its blocks are in use. Pools have a colour for each block size, on a scale that is the same
/// in all pictures. Unused units are white if they take no memory and hatched if they may. A tooltip
/// tells each cell's figures. Of more than 256 arenas of one size the latest are left out, and counted.
///
/// The heap is walked when the picture is written, without the heap's lock being held by the writing;
/// so it may be written into a `String` whose memory is of the same heap. While other threads are at
/// work, what is drawn can differ from the totals above it.
///
/// ```
/// use memtrace_heap::{Config, Model};
/// use std::alloc::Layout;
///
/// let model = Model::new(Config::new());
/// model.allocate(Layout::new::<[u8; 24]>());
/// let picture = model.svg().to_string();
/// assert!(picture.contains("<title>unit 0: pool of 32-byte blocks, 1 of 2,048 in use (32 B), owner 0</title>"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Svg<'h> {
    map: HeapMap<'h>,
}

impl<'h> Svg<'h> {
    pub(crate) const fn new(map: HeapMap<'h>) -> Svg<'h> {
        Svg { map }
    }
}

impl fmt::Display for Svg<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tally = Tally::of(self.map);
        let (rows, height) = tally.layout();
        write_head(f, height)?;
        self.write_totals(f, &tally)?;
        write_legend(f, &tally)?;
        for (at, (rows, scale)) in rows.iter().zip(&tally.scales).enumerate() {
            if scale.n_arenas != 0 {
                write_section(f, rows, scale, tally.n_left_out(at))?;
            }
        }
        let mut n_left = tally.scales.map(|scale| scale.n_arenas);
        for arena in self.map.arenas() {
            let at = scale_of(&arena);
            let (Some(rows), Some(n_left)) = (rows.get(at), n_left.get_mut(at)) else { continue };
            // More than were counted have been mapped, or unmapped, meanwhile.
            let Some(row) = n_left.checked_sub(1) else { continue };
            *n_left = row;
            if row < rows.n_drawn {
                write_arena(f, rows, row, &arena)?;
            }
        }
        f.write_str("</svg>\n")
    }
}

fn write_head(f: &mut Formatter<'_>, height: f32) -> fmt::Result {
    let size = format_args!("{} {}", Px(WIDTH), Px(height));
    writeln!(
        f,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {size}\" \
         font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\" \
         font-size=\"11\">",
        Px(WIDTH),
        Px(height),
    )?;
    f.write_str(
        "<defs><pattern id=\"dirty\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><rect width=\"5\" height=\"5\" fill=\"#f4f2ee\"/>\
         <rect width=\"1.6\" height=\"5\" fill=\"#c3bdb2\"/></pattern></defs>\n\
         <style>text{fill:#33373d}.t{font-size:17px;font-weight:600}.s{fill:#6a7079}\
         .e{text-anchor:end}.b{fill-opacity:.24}\
         .u{fill:#fff;stroke:#dcdfe3;stroke-width:.8}.d{fill:url(#dirty)}.r{fill:#6b6478}",
    )?;
    // Of all classes: the text's own memory may be a pool that there was not when the heap was counted.
    for index in 0..MAX_CLASSES {
        let [red, green, blue] = colour(index);
        write!(f, ".c{index}{{fill:#{red:02x}{green:02x}{blue:02x}}}")?;
    }
    f.write_str("</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n")
}

impl Svg<'_> {
    fn write_totals(self, f: &mut Formatter<'_>, tally: &Tally) -> fmt::Result {
        let used = tally.pool_used_bytes.saturating_add(tally.run_bytes);
        text(
            f,
            (MARGIN, 34.0),
            "t",
            format_args!(
                "{}, {}: {} in {} in use",
                Count(tally.n_arenas(), "arena"),
                Bytes(tally.arena_bytes),
                Share(used, tally.arena_bytes),
                Count(tally.n_blocks, "block"),
            ),
        )?;
        text(f, (MARGIN, 55.0), "s", format_args!("{}", Parts(tally)))?;
        let (n_outside, outside_bytes) = self.map.outside();
        if n_outside == 0 {
            return Ok(());
        }
        let outside = Count(n_outside, "block");
        let beside = format_args!("and {outside} of {} in no arena", Bytes(outside_bytes));
        text(f, (WIDTH - MARGIN, 34.0), "s e", beside)
    }
}

/// Where the bytes of the arenas are.
struct Parts<'t>(&'t Tally);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tally = self.0;
        let mut lost = tally.arena_bytes;
        let mut separator = "";
        for (bytes, place) in [
            (tally.pool_used_bytes, "in blocks of pools"),
            (tally.run_bytes, "in large blocks"),
            (tally.free_bytes, "free in pools"),
            (tally.unused_dirty_bytes, "unused that may take memory"),
            (tally.unused_bytes, "unused"),
        ] {
            lost = lost.saturating_sub(bytes);
            if bytes != 0 {
                write!(f, "{separator}{} {place}", Bytes(bytes))?;
                separator = " · ";
            }
        }
        // Too small for a block; in Python's heap also the pools' headers.
        if lost == 0 { Ok(()) } else { write!(f, "{separator}{} lost in pools", Bytes(lost)) }
    }
}

/// The block sizes in use, and what is no pool.
fn write_legend(f: &mut Formatter<'_>, tally: &Tally) -> fmt::Result {
    for (at, (index, class)) in tally.classes_in_use().enumerate() {
        let x = MARGIN + (at % LEGEND_COLUMNS) as f32 * LEGEND_COLUMN;
        let y = LEGEND_Y + (at / LEGEND_COLUMNS) as f32 * LEGEND_LINE;
        swatch(f, (x, y), format_args!("c{index}"))?;
        let (size, pools) = (Bytes(class.block_size), Count(class.n_pools, "pool"));
        text(f, (x + 17.0, y), "", format_args!("{size}: {pools}"))?;
    }
    let (mut x, y) = (MARGIN, tally.legend_end() - LEGEND_LINE);
    let runs = Count(tally.n_runs, "large block");
    for (class, name, width) in [
        ("r", format_args!("{runs}"), 1.5 * LEGEND_COLUMN),
        ("d", format_args!("unused, may take memory"), 1.5 * LEGEND_COLUMN),
        ("u", format_args!("unused, takes none"), 1.5 * LEGEND_COLUMN),
    ] {
        swatch(f, (x, y), format_args!("{class}"))?;
        text(f, (x + 17.0, y), "", name)?;
        x += width;
    }
    text(f, (x, y), "s", format_args!("filled as far as blocks are in use"))
}

/// The heading above the rows of arenas of one size, and the line below them if some are left out.
fn write_section(
    f: &mut Formatter<'_>,
    rows: &Rows,
    scale: &ScaleTally,
    n_left_out: usize,
) -> fmt::Result {
    let (arena, unit) = (Bytes(scale.arena_size), Bytes(scale.unit_size));
    let n_arenas = Count(scale.n_arenas, "arena");
    let heading = format_args!("{n_arenas} of {arena}, in units of {unit}");
    text(f, (CELLS_X, rows.y - 8.0), "s", heading)?;
    if n_left_out == 0 {
        return Ok(());
    }
    let y = rows.y + rows.n_drawn as f32 * rows.pitch + 13.0;
    let left_out = Count(n_left_out, "arena");
    text(f, (CELLS_X, y), "s", format_args!("and {left_out} more, not drawn"))
}

/// The row of one arena.
fn write_arena(f: &mut Formatter<'_>, rows: &Rows, row: usize, arena: &ArenaView) -> fmt::Result {
    let y = rows.y + row as f32 * rows.pitch;
    let (used, number) = (Share(arena.used_bytes(), arena.n_bytes()), arena.number);
    writeln!(f, "<g transform=\"translate({} {})\">", Px(CELLS_X), Px(y))?;
    writeln!(f, "<title>arena {number} at {:#x}: {used} in use</title>", arena.base_addr)?;
    // Low rows have no room for a label each.
    if rows.height >= 10.0 || row.is_multiple_of(5) {
        let middle = rows.height / 2.0 + 4.0;
        let end = UNITS_PER_ARENA as f32 * UNIT_WIDTH;
        text(f, (-8.0, middle), "s e", format_args!("{number}"))?;
        text(f, (end + 42.0, middle), "s e", format_args!("{used}"))?;
    }
    for span in arena.spans() {
        write_cell(f, rows.height, span)?;
    }
    f.write_str("</g>\n")
}

fn write_cell(f: &mut Formatter<'_>, height: f32, span: &Span) -> fmt::Result {
    let x = span.first_unit as f32 * UNIT_WIDTH + 0.5;
    let width = span.n_units as f32 * UNIT_WIDTH - 1.0;
    let class = Class(span);
    write!(f, "<g class=\"{class}\"><title>{}</title>", Tooltip(span))?;
    let whole = Rect { x, y: 0.0, width, height };
    let (used, all) = match span.kind {
        SpanKind::Unused => {
            write!(f, "{whole}")?;
            return f.write_str("</g>\n");
        }
        SpanKind::Run => (span.requested_bytes.unwrap_or(span.block_size), span.block_size),
        SpanKind::Pool => (span.n_blocks_used, span.n_blocks),
    };
    write!(f, "{}", Faint(whole))?;
    if used != 0 && all != 0 {
        // What is in use at all is seen.
        let filled = (height * (used as f32 / all as f32)).clamp(1.0, height);
        write!(f, "{}", Rect { y: height - filled, height: filled, ..whole })?;
    }
    f.write_str("</g>\n")
}

/// The class of a cell's style.
struct Class<'s>(&'s Span);

impl fmt::Display for Class<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.kind, self.0.class) {
            (SpanKind::Pool, Some(class)) => write!(f, "c{class}"),
            (SpanKind::Unused, _) if self.0.is_dirty => f.write_char('d'),
            (SpanKind::Unused, _) => f.write_char('u'),
            _ => f.write_char('r'),
        }
    }
}

/// A cell's figures.
struct Tooltip<'s>(&'s Span);

impl fmt::Display for Tooltip<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Span { first_unit, n_units, block_size, n_blocks, n_blocks_used, .. } = *self.0;
        match n_units {
            0 | 1 => write!(f, "unit {first_unit}: ")?,
            _ => {
                let last = first_unit.saturating_add(n_units).saturating_sub(1);
                write!(f, "units {first_unit} to {last}: ")?;
            }
        }
        let (n_blocks, n_used) = (Thousands(n_blocks as u64), Thousands(n_blocks_used as u64));
        let size = Thousands(block_size as u64);
        match self.0.kind {
            SpanKind::Unused if self.0.is_dirty => f.write_str("unused, may take memory"),
            SpanKind::Unused => f.write_str("unused, takes no memory"),
            SpanKind::Run => {
                let requested = self.0.requested_bytes.unwrap_or(block_size);
                write!(f, "large block of {} bytes", Thousands(requested as u64))
            }
            SpanKind::Pool => {
                let used = Bytes(self.0.used_bytes);
                write!(f, "pool of {size}-byte blocks, {n_used} of {n_blocks} in use ({used})")?;
                self.0.owner.map_or(Ok(()), |owner| write!(f, ", owner {owner}"))
            }
        }
    }
}
