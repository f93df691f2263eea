//! The map of a heap as a picture.
//!
//! # Mechanism
//! The heap is walked twice: once for the totals and the legend, which stand on top, and once for the
//! cells. A row's place follows from how many arenas come after it in the walk, so the rows ascend
//! although the walk descends. All is written as it is found, without a copy.
//!
//! # Cost
//! Two walks of the map, and about 210 bytes of text for each pool, large block, and run of unused units.

use core::fmt::{self, Formatter, Write};

use crate::arena::UNITS_PER_ARENA;
use crate::class::N_CLASSES;
use crate::map::{ArenaView, HeapMap, Span, SpanKind};
use crate::stats::Thousands;

/// The most rows that are drawn for arenas of one size.
const MAX_ROWS: usize = 256;
/// The most size classes that any heap has.
const MAX_CLASSES: usize = 64;

/// The distance of all from the picture's border, and the places of things, in pixels.
const MARGIN: f32 = 20.0;
const CELLS_X: f32 = 66.0;
const UNIT_WIDTH: f32 = 13.0;
const WIDTH: f32 = CELLS_X + UNITS_PER_ARENA as f32 * UNIT_WIDTH + 52.0 + MARGIN;
const LEGEND_Y: f32 = 78.0;
const LEGEND_LINE: f32 = 18.0;
const LEGEND_COLUMN: f32 = 131.0;
const LEGEND_COLUMNS: usize = 7;

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

/// What the pools of one class come to.
#[derive(Debug, Clone, Copy, Default)]
struct ClassTally {
    block_size: usize,
    n_pools: usize,
}

/// What the arenas of one size come to.
#[derive(Debug, Clone, Copy, Default)]
struct ScaleTally {
    n_arenas: usize,
    arena_size: usize,
    unit_size: usize,
}

/// What is told above the rows.
#[derive(Debug)]
struct Tally {
    scales: [ScaleTally; 2],
    classes: [ClassTally; MAX_CLASSES],
    n_blocks: usize,
    n_runs: usize,
    arena_bytes: usize,
    pool_used_bytes: usize,
    run_bytes: usize,
    free_bytes: usize,
    unused_bytes: usize,
    unused_dirty_bytes: usize,
}

/// Where the rows of one section are.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// The first row's upper edge.
    y: f32,
    height: f32,
    pitch: f32,
    /// How many arenas are drawn.
    n_drawn: usize,
}

impl Tally {
    fn of(map: HeapMap<'_>) -> Tally {
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

    fn n_arenas(&self) -> usize {
        self.scales.iter().fold(0, |sum, scale| sum.saturating_add(scale.n_arenas))
    }

    fn classes_in_use(&self) -> impl Iterator<Item = (usize, &ClassTally)> {
        self.classes.iter().enumerate().filter(|(_, class)| class.n_pools != 0)
    }

    /// Where the legend ends.
    fn legend_end(&self) -> f32 {
        let n_lines = self.classes_in_use().count().div_ceil(LEGEND_COLUMNS).saturating_add(1);
        LEGEND_Y + n_lines as f32 * LEGEND_LINE
    }

    /// The rows of both sections, and the height of the picture.
    fn layout(&self) -> ([Rows; 2], f32) {
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
    fn n_left_out(&self, scale: usize) -> usize {
        self.scales.get(scale).map_or(0, |scale| scale.n_arenas.saturating_sub(MAX_ROWS))
    }
}

/// The section an arena is drawn in.
fn scale_of(arena: &ArenaView) -> usize {
    usize::from(arena.is_big())
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
        ("r", format_args!("{runs}"), 2.0 * LEGEND_COLUMN),
        ("d", format_args!("unused, may take memory"), 2.0 * LEGEND_COLUMN),
        ("u", format_args!("unused, takes none"), 2.0 * LEGEND_COLUMN),
    ] {
        swatch(f, (x, y), format_args!("{class}"))?;
        text(f, (x + 17.0, y), "", name)?;
        x += width;
    }
    text(f, (x, y), "s", format_args!("filled as far as in use"))
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

fn swatch(f: &mut Formatter<'_>, (x, y): (f32, f32), class: fmt::Arguments<'_>) -> fmt::Result {
    let square = Rect { x: x + 0.5, y: y - 9.5, width: 11.0, height: 11.0 };
    writeln!(f, "<g class=\"{class}\">{square}</g>")
}

fn text(
    f: &mut Formatter<'_>,
    (x, y): (f32, f32),
    class: &str,
    text: fmt::Arguments<'_>,
) -> fmt::Result {
    writeln!(f, "<text x=\"{}\" y=\"{}\" class=\"{class}\">{text}</text>", Px(x), Px(y))
}

/// The colour of a size class, from blue for small blocks to red for large ones; every second is
/// lighter, so that neighbours differ.
fn colour(class: usize) -> [u8; 3] {
    const SCALE: [[f32; 3]; 9] = [
        [52.0, 84.0, 148.0],
        [44.0, 127.0, 184.0],
        [38.0, 160.0, 158.0],
        [74.0, 172.0, 105.0],
        [150.0, 182.0, 62.0],
        [222.0, 176.0, 52.0],
        [231.0, 132.0, 50.0],
        [212.0, 80.0, 62.0],
        [160.0, 48.0, 104.0],
    ];
    /// Where the steps of 16 bytes end, and how far up the scale: those are what most blocks have.
    const N_SMALL: f32 = 32.0;
    const SMALL_END: f32 = 5.5;
    let (class_f, last) = (class as f32, SCALE.len().saturating_sub(1) as f32);
    let above = (class_f - N_SMALL) / (N_CLASSES as f32 - N_SMALL);
    let at = if class_f < N_SMALL {
        class_f / N_SMALL * SMALL_END
    } else {
        (SMALL_END + above * (last - SMALL_END)).min(last)
    };
    let (below, share) = (at as usize, at % 1.0);
    let low = SCALE.get(below).copied().unwrap_or_default();
    let high = SCALE.get(below.saturating_add(1)).copied().unwrap_or(low);
    let towards_white = if class % 2 == 1 { 0.26 } else { 0.0 };
    let mut channels = low.into_iter().zip(high).map(|(low, high)| {
        let mixed = low + (high - low) * share;
        (mixed + (255.0 - mixed) * towards_white) as u8
    });
    [(); 3].map(|()| channels.next().unwrap_or(0))
}

/// A number of pixels, to a tenth.
struct Px(f32);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0) as i32;
        write!(f, "{}", tenths as f32 / 10.0)
    }
}

#[derive(Clone, Copy)]
struct Rect {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

impl Rect {
    fn write(self, f: &mut Formatter<'_>, attribute: &str) -> fmt::Result {
        let Rect { x, y, width, height } = self;
        let [x, y, width, height] = [x, y, width, height].map(Px);
        write!(f, "<rect{attribute} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>")
    }
}

impl fmt::Display for Rect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

/// The part of a cell that is not filled.
struct Faint(Rect);

impl fmt::Display for Faint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.write(f, " class=\"b\"")
    }
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

/// A number of things, with the thing in the right form.
struct Count(usize, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Thousands(self.0 as u64), self.1)
    }
}

/// A number of bytes in the largest unit that leaves one or more, to three digits, rounded down.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..1024 => return write!(f, "{} B", self.0),
            1024..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let hundredths = (self.0 as u128).saturating_mul(100).wrapping_shr(shift);
        let whole = Thousands((hundredths / 100) as u64);
        match (whole.0, hundredths % 100) {
            (100.., _) | (_, 0) => write!(f, "{whole} {unit}"),
            (10.., rest) if rest < 10 => write!(f, "{whole} {unit}"),
            (10.., rest) => write!(f, "{whole}.{} {unit}", rest / 10),
            (_, rest) if rest % 10 == 0 => write!(f, "{whole}.{} {unit}", rest / 10),
            (_, rest) => write!(f, "{whole}.{rest:02} {unit}"),
        }
    }
}

/// The first as a share of the second.
struct Share(usize, usize);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of_all = (self.0 as u128).saturating_mul(100).checked_div(self.1 as u128).unwrap_or(0);
        match of_all {
            0 if self.0 != 0 => f.write_str("&lt; 1 %"),
            percent => write!(f, "{percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn bytes_are_told_in_the_unit_that_suits_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1280, "1.25 KiB"),
            (1536, "1.5 KiB"),
            (4 << 20, "4 MiB"),
            ((11 << 20) + (50 << 10), "11 MiB"),
            ((11 << 20) + (800 << 10), "11.7 MiB"),
            (290 << 20, "290 MiB"),
            (usize::MAX, "17,179,869,183 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_share_that_is_not_zero_is_not_told_as_zero() {
        assert_eq!(Share(0, 10).to_string(), "0 %");
        assert_eq!(Share(1, 1000).to_string(), "&lt; 1 %");
        assert_eq!(Share(1000, 1000).to_string(), "100 %");
        assert_eq!(Share(0, 0).to_string(), "0 %");
    }

    #[test]
    fn neighbouring_classes_have_different_colours() {
        for class in 1..MAX_CLASSES {
            assert_ne!(colour(class), colour(class - 1));
        }
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(Count(1, "arena").to_string(), "1 arena");
        assert_eq!(Count(1200, "arena").to_string(), "1,200 arenas");
    }
}
