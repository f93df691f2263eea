//! What the heap tells about itself: the figures of `sys._debugmallocstats()`, and their text.
//!
//! # Mechanism
//! [`PythonStats`] is a plain copy; its [`Display`](fmt::Display) is what CPython of that version
//! prints about its heap, byte for byte, up to where the free lists of types begin.
//!
//! # Invariants
//! - **D1** The six parts ([`PythonStats::parts`]) sum to the arenas' size.

use core::fmt;

use super::profile::{N_CLASSES, POOL_HEADER, Profile, THRESHOLD};
use super::raw::RawBlocks;
use super::small::Small;

/// The figures of one size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PythonClassStats {
    /// The size of each block, in bytes.
    pub block_size: usize,
    /// Pools that have at least one block in use.
    pub n_pools: usize,
    /// Blocks in use.
    pub n_blocks_used: usize,
    /// Other blocks of those pools.
    pub n_blocks_free: usize,
}

/// All figures of a heap at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PythonStats {
    /// Whose heap it is.
    #[cfg_attr(feature = "serde", serde(rename = "version", serialize_with = "serialize_version"))]
    pub profile: Profile,
    /// The size classes, smallest first.
    pub classes: [PythonClassStats; N_CLASSES],
    /// Arenas ever mapped.
    pub n_arenas_total: u64,
    /// The most arenas there ever were at once.
    pub n_arenas_high_water: usize,
    /// Arenas mapped now.
    pub n_arenas: usize,
    /// Arenas mapped now that begin between two multiples of the pool size.
    pub n_arenas_misaligned: usize,
    /// Pools of these arenas without a block in use.
    pub n_pools_unused: usize,
    /// Middle nodes of the tree that finds arenas by address; none before 3.10.
    pub n_map_middle_nodes: usize,
    /// Bottom nodes of that tree.
    pub n_map_bottom_nodes: usize,
    /// Blocks in use outside of the pools.
    pub n_raw_blocks: usize,
    /// What was asked for with these, in bytes.
    pub raw_requested_bytes: usize,
    /// The mapped size of the records of this heap, in bytes, which CPython's has inside the blocks
    /// and pools.
    pub record_bytes: usize,
}

/// Where the bytes of the arenas are. They sum to the arenas' size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PythonParts {
    /// In blocks in use.
    pub allocated_bytes: usize,
    /// In free blocks of pools with a block in use.
    pub available_bytes: usize,
    /// In pools without a block in use.
    pub unused_pool_bytes: usize,
    /// In the headers of pools with a block in use.
    pub pool_header_bytes: usize,
    /// At the ends of these pools, too small for a block.
    pub quantization_bytes: usize,
    /// At both ends of arenas that do not begin at a multiple of the pool size.
    pub alignment_bytes: usize,
}

impl PythonParts {
    /// Their sum, in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        let blocks = self.allocated_bytes.saturating_add(self.available_bytes);
        let pools = self.unused_pool_bytes.saturating_add(self.pool_header_bytes);
        let lost = self.quantization_bytes.saturating_add(self.alignment_bytes);
        blocks.saturating_add(pools).saturating_add(lost)
    }
}

#[cfg(feature = "serde")]
fn serialize_version<S: serde::Serializer>(
    profile: &Profile,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(profile.version().name())
}

impl PythonStats {
    pub(super) fn of(profile: &Profile, small: &Small, raw: &RawBlocks) -> PythonStats {
        let mut classes = [PythonClassStats::default(); N_CLASSES];
        for (index, (class, of_class)) in classes.iter_mut().zip(&small.classes).enumerate() {
            let n_blocks = of_class.n_pools.saturating_mul(profile.blocks_per_pool(index));
            *class = PythonClassStats {
                block_size: profile.block_size(index),
                n_pools: of_class.n_pools,
                n_blocks_used: of_class.n_used,
                n_blocks_free: n_blocks.saturating_sub(of_class.n_used),
            };
        }
        let arenas = &small.arenas;
        let (n_map_middle_nodes, n_map_bottom_nodes) = arenas.map.n_nodes();
        PythonStats {
            profile: *profile,
            classes,
            n_arenas_total: arenas.counts.n_total,
            n_arenas_high_water: arenas.counts.n_high_water,
            n_arenas: arenas.counts.n_current,
            n_arenas_misaligned: arenas.counts.n_misaligned,
            n_pools_unused: arenas.counts.n_pools_unused,
            n_map_middle_nodes,
            n_map_bottom_nodes,
            n_raw_blocks: raw.table.len(),
            raw_requested_bytes: raw.requested_bytes,
            record_bytes: arenas.n_record_bytes().saturating_add(raw.table.n_bytes()),
        }
    }

    /// Blocks in use, of pools and others: `sys.getallocatedblocks()`.
    #[must_use]
    pub fn allocated_blocks(&self) -> usize {
        self.sum(|_, class| class.n_blocks_used).saturating_add(self.n_raw_blocks)
    }

    /// Arenas given back.
    #[must_use]
    pub fn n_arenas_reclaimed(&self) -> u64 {
        self.n_arenas_total.saturating_sub(self.n_arenas as u64)
    }

    /// The size of the current arenas, in bytes.
    #[must_use]
    pub fn arena_bytes(&self) -> usize {
        self.n_arenas.saturating_mul(self.profile.arena_size())
    }

    /// Where these bytes are.
    #[must_use]
    pub fn parts(&self) -> PythonParts {
        let profile = &self.profile;
        let tails = |index, class: &PythonClassStats| {
            class.n_pools.saturating_mul(profile.tail_bytes(index))
        };
        PythonParts {
            allocated_bytes: self
                .sum(|_, class| class.n_blocks_used.saturating_mul(class.block_size)),
            available_bytes: self
                .sum(|_, class| class.n_blocks_free.saturating_mul(class.block_size)),
            unused_pool_bytes: self.n_pools_unused.saturating_mul(profile.pool_size()),
            pool_header_bytes: self.sum(|_, class| class.n_pools.saturating_mul(POOL_HEADER)),
            quantization_bytes: self.sum(tails),
            alignment_bytes: self.n_arenas_misaligned.saturating_mul(profile.pool_size()),
        }
    }

    /// The share of the arenas that is in no block in use, from 0 to 1; 0 without arenas.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        match self.arena_bytes() {
            0 => 0.0,
            total => 1.0 - self.parts().allocated_bytes as f64 / total as f64,
        }
    }

    /// Whether the six parts sum to the arenas' size (D1).
    #[must_use]
    pub fn identity_holds(&self) -> bool {
        self.parts().total_bytes() == self.arena_bytes()
    }

    fn sum(&self, figure: impl Fn(usize, &PythonClassStats) -> usize) -> usize {
        let figures = self.classes.iter().enumerate().map(|(index, class)| figure(index, class));
        figures.fold(0, usize::saturating_add)
    }

    fn fmt_classes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "class   size   num pools   blocks in use  avail blocks")?;
        writeln!(f, "-----   ----   ---------   -------------  ------------")?;
        for (index, class) in self.classes.iter().enumerate().filter(|(_, class)| class.n_pools > 0)
        {
            let PythonClassStats { block_size, n_pools, n_blocks_used, n_blocks_free } = class;
            let [size, pools] = [block_size, n_pools];
            writeln!(f, "{index:5} {size:6} {pools:11} {n_blocks_used:15} {n_blocks_free:13}")?;
        }
        writeln!(f)
    }

    fn fmt_arenas(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n_arenas, n_unused) = (self.n_arenas, self.n_pools_unused);
        let (arena_size, pool_size) = (self.profile.arena_size(), self.profile.pool_size());
        line(f, "# arenas allocated total", self.n_arenas_total)?;
        line(f, "# arenas reclaimed", self.n_arenas_reclaimed())?;
        line(f, "# arenas highwater mark", self.n_arenas_high_water as u64)?;
        line(f, "# arenas allocated current", n_arenas as u64)?;
        let name = format_args!("{n_arenas} arenas * {arena_size} bytes/arena");
        line(f, name, self.arena_bytes() as u64)?;
        writeln!(f)?;
        let parts = self.parts();
        line(f, "# bytes in allocated blocks", parts.allocated_bytes as u64)?;
        line(f, "# bytes in available blocks", parts.available_bytes as u64)?;
        let name = format_args!("{n_unused} unused pools * {pool_size} bytes");
        line(f, name, parts.unused_pool_bytes as u64)?;
        line(f, "# bytes lost to pool headers", parts.pool_header_bytes as u64)?;
        line(f, "# bytes lost to quantization", parts.quantization_bytes as u64)?;
        line(f, "# bytes lost to arena alignment", parts.alignment_bytes as u64)?;
        line(f, "Total", parts.total_bytes() as u64)
    }

    fn fmt_map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(shape) = self.profile.map() else { return Ok(()) };
        writeln!(f, "\narena map counts")?;
        line(f, "# arena map mid nodes", self.n_map_middle_nodes as u64)?;
        line(f, "# arena map bot nodes", self.n_map_bottom_nodes as u64)?;
        writeln!(f)?;
        let root = shape.interior_bytes as u64;
        let middle = root.saturating_mul(self.n_map_middle_nodes as u64);
        let bottom = (shape.bottom_bytes as u64).saturating_mul(self.n_map_bottom_nodes as u64);
        line(f, "# bytes lost to arena map root", root)?;
        line(f, "# bytes lost to arena map mid", middle)?;
        line(f, "# bytes lost to arena map bot", bottom)?;
        line(f, "Total", root.saturating_add(middle).saturating_add(bottom))
    }
}

impl fmt::Display for PythonStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Small block threshold = {THRESHOLD}, in {N_CLASSES} size classes.\n")?;
        self.fmt_classes(f)?;
        self.fmt_arenas(f)?;
        self.fmt_map(f)
    }
}

/// One line of the summary: the name in 35 columns, the figure with thousands in 21.
fn line(f: &mut fmt::Formatter<'_>, name: impl fmt::Display, figure: u64) -> fmt::Result {
    let mut width = Width(0);
    fmt::write(&mut width, format_args!("{name}"))?;
    let n_blanks = 35usize.saturating_sub(width.0);
    write!(f, "{name}{:n_blanks$}=", "")?;
    let mut width = Width(0);
    fmt::write(&mut width, format_args!("{}", Thousands(figure)))?;
    let n_blanks = 21usize.saturating_sub(width.0);
    writeln!(f, "{:n_blanks$}{}", "", Thousands(figure))
}

/// Counts what is written.
struct Width(usize);

impl fmt::Write for Width {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// A number with a comma after each group of three digits.
struct Thousands(u64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            small @ 0..1000 => write!(f, "{small}"),
            large => write!(f, "{},{:03}", Thousands(large / 1000), large % 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec::Vec;

    use super::*;
    use crate::pages::NoMemory;
    use crate::python::{PythonHeap, Version};

    /// What the interpreter of each version printed about its own heap.
    const TEXTS: [(Version, &str); 8] = [
        (Version::V3_6, include_str!("../../tests/data/debugmallocstats/3.6.txt")),
        (Version::V3_7, include_str!("../../tests/data/debugmallocstats/3.7.txt")),
        (Version::V3_8, include_str!("../../tests/data/debugmallocstats/3.8.txt")),
        (Version::V3_9, include_str!("../../tests/data/debugmallocstats/3.9.txt")),
        (Version::V3_10, include_str!("../../tests/data/debugmallocstats/3.10.txt")),
        (Version::V3_11, include_str!("../../tests/data/debugmallocstats/3.11.txt")),
        (Version::V3_12, include_str!("../../tests/data/debugmallocstats/3.12.txt")),
        (Version::V3_13, include_str!("../../tests/data/debugmallocstats/3.13.txt")),
    ];

    /// The figure of the first line that begins with `name`; 0 without one.
    fn figure(text: &str, name: &str) -> usize {
        let line = text.lines().find(|line| line.starts_with(name));
        line.map_or(0, |line| {
            line.split_once('=').unwrap().1.trim().replace(',', "").parse().unwrap()
        })
    }

    /// The counts that a text states, from which all else in it follows.
    fn stats_from(version: Version, text: &str) -> PythonStats {
        let profile = version.profile();
        let mut stats = PythonHeap::new(profile, NoMemory::new()).stats();
        for line in text.lines() {
            let numbers: Result<Vec<usize>, _> = line.split_whitespace().map(str::parse).collect();
            if let Ok([index, block_size, n_pools, n_blocks_used, n_blocks_free]) =
                numbers.as_deref()
            {
                stats.classes[*index] = PythonClassStats {
                    block_size: *block_size,
                    n_pools: *n_pools,
                    n_blocks_used: *n_blocks_used,
                    n_blocks_free: *n_blocks_free,
                };
            }
        }
        let unused = text.lines().find(|line| line.contains("unused pools")).unwrap();
        stats.n_pools_unused = unused.split_whitespace().next().unwrap().parse().unwrap();
        stats.n_arenas_total = figure(text, "# arenas allocated total") as u64;
        stats.n_arenas_high_water = figure(text, "# arenas highwater mark");
        stats.n_arenas = figure(text, "# arenas allocated current");
        stats.n_arenas_misaligned =
            figure(text, "# bytes lost to arena alignment") / profile.pool_size();
        stats.n_map_middle_nodes = figure(text, "# arena map mid nodes");
        stats.n_map_bottom_nodes = figure(text, "# arena map bot nodes");
        stats
    }

    #[test]
    fn the_text_is_that_of_the_interpreters_to_the_byte() {
        for (version, text) in TEXTS {
            let stats = stats_from(version, text);
            // The last line is the empty one before the free lists of types.
            assert_eq!(std::format!("{stats}\n"), text, "{version}");
            assert!(stats.identity_holds(), "{version}");
        }
    }

    #[test]
    fn a_name_too_long_for_its_column_is_not_cut() {
        let mut stats = stats_from(Version::V3_6, TEXTS[0].1);
        stats.n_arenas = 123_456_789_012_345;
        let text = stats.to_string();
        assert!(text.contains("\n123456789012345 arenas * 262144 bytes/arena="), "{text}");
    }
}
