//! What a heap tells about itself: plain figures and their text.
//!
//! # Mechanism
//! Blocks and pools are counted from the pools' bitmaps, requested bytes and the blocks ever handed out
//! are the sums of what the owners' slots hold. "Requested" bytes are what callers asked for, "rounded"
//! bytes what their blocks take, "mapped" bytes address space from the page source (of which only
//! touched pages take memory).
//!
//! # Invariants
//! B1 to B4 stand at [`HeapStats`].

use core::fmt;
use core::sync::atomic::Ordering;

use crate::arena::{Arena, Scale, UNITS_PER_ARENA};
use crate::arenas::Arenas;
use crate::class::{MAX_BLOCK_SIZE, N_CLASSES, SizeClass};
use crate::control::Control;
use crate::directory::Leaf;
use crate::fork;
use crate::invalid::InvalidFrees;
use crate::mapped::record_bytes;
use crate::owner::Owner;
use crate::owners::Owners;
use crate::pages::PageSource;
use crate::pool::Kind;
use crate::shared::Shared;

/// The figures of one size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// The size of each block, in bytes.
    pub block_size: usize,
    /// The pools of the class.
    pub n_pools: usize,
    /// Those of them that have no free block.
    pub n_pools_full: usize,
    /// Those of them that have no block in use: at most one for each owner, which it takes blocks from
    /// next.
    pub n_pools_empty: usize,
    /// Blocks in use.
    pub n_blocks_used: usize,
    /// Free blocks in its pools.
    pub n_blocks_free: usize,
    /// Blocks ever handed out.
    pub n_blocks_total: u64,
    /// What was asked for with the blocks in use, in bytes.
    pub requested_bytes: usize,
    /// What is left over at the end of each pool, in bytes.
    pub tail_bytes_per_pool: usize,
}

impl ClassStats {
    /// Pools that have both blocks in use and free ones.
    #[must_use]
    pub fn n_pools_partial(&self) -> usize {
        self.n_pools.saturating_sub(self.n_pools_full).saturating_sub(self.n_pools_empty)
    }

    /// What the blocks in use take, in bytes.
    #[must_use]
    pub fn rounded_bytes(&self) -> usize {
        self.n_blocks_used.saturating_mul(self.block_size)
    }

    /// What the free blocks take, in bytes.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.n_blocks_free.saturating_mul(self.block_size)
    }

    /// What is left over at the ends of the pools, too small for a block, in bytes.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.n_pools.saturating_mul(self.tail_bytes_per_pool)
    }
}

/// The figures of the arenas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArenaStats {
    /// The size of an arena, in bytes.
    pub arena_size: usize,
    /// The size of a unit, in bytes.
    pub unit_size: usize,
    /// Arenas mapped now.
    pub n_current: usize,
    /// The most there ever were at once.
    pub n_high_water: usize,
    /// Arenas ever mapped.
    pub n_total: u64,
    /// Units of the current arenas that serve nothing.
    pub n_units_unused: usize,
    /// Those of them whose pages have been used and not been given back.
    pub n_units_unused_dirty: usize,
    /// The most units that ever were in use at once.
    pub n_units_used_high_water: usize,
    /// Units whose pages were given back while their arena stayed, ever.
    pub n_units_discarded: u64,
}

impl ArenaStats {
    /// Arenas given back to the page source.
    #[must_use]
    pub fn n_reclaimed(&self) -> u64 {
        self.n_total.saturating_sub(self.n_current as u64)
    }

    /// What the unused units take, in bytes of address space.
    #[must_use]
    pub fn unused_bytes(&self) -> usize {
        self.n_units_unused.saturating_mul(self.unit_size)
    }

    /// What the unused units take whose pages have been used and not been given back, in bytes: of
    /// memory, unless their blocks never touched some of the pages.
    #[must_use]
    pub fn unused_dirty_bytes(&self) -> usize {
        self.n_units_unused_dirty.saturating_mul(self.unit_size)
    }

    fn add_up(&self) -> bool {
        self.n_current <= self.n_high_water && self.n_high_water as u64 <= self.n_total
    }

    /// The address space of the current arenas, in bytes.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.n_current.saturating_mul(self.arena_size)
    }
}

/// The figures of the large blocks in arenas, each a run of units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RunStats {
    /// Blocks in use.
    pub n_current: usize,
    /// Blocks ever handed out; one resized without moving counts once.
    pub n_total: u64,
    /// What was asked for with the blocks in use, in bytes.
    pub requested_bytes: usize,
    /// What they take in whole units, in bytes; of the last unit only touched pages take memory.
    pub mapped_bytes: usize,
}

/// The figures of the blocks beyond the largest run, each a mapping of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MappingStats {
    /// Blocks in use.
    pub n_current: usize,
    /// Blocks ever handed out; one resized without copying counts once.
    pub n_total: u64,
    /// What was asked for with the blocks in use, in bytes.
    pub requested_bytes: usize,
    /// What they take in whole pages, in bytes.
    pub mapped_bytes: usize,
    /// The most `mapped_bytes` ever was.
    pub mapped_bytes_high_water: usize,
}

/// All figures of a heap at one moment.
///
/// Identities that always hold:
/// - **B1** Used blocks, available blocks, tails of pools, runs and unused units, in bytes, sum to
///   the arenas, small and big.
/// - **B2** Requested bytes are at most rounded bytes in each class, and at most mapped bytes in
///   the runs and in the direct mappings.
/// - **B3** Arenas ever mapped less arenas reclaimed are the current ones, which are at most the
///   high water mark.
/// - **B4** A class's pools are full, partial or empty.
///
/// Its [`Display`](fmt::Display) is the table of CPython's `sys._debugmallocstats()`, with the big
/// arenas if there were any, the direct mappings and the invalid frees added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HeapStats {
    /// By size class, smallest blocks first.
    #[cfg_attr(feature = "serde", serde(serialize_with = "serialize_classes"))]
    pub classes: [ClassStats; N_CLASSES],
    /// The arenas for pools and for large blocks of up to 2 MiB.
    pub arenas: ArenaStats,
    /// The arenas for larger blocks.
    pub big_arenas: ArenaStats,
    /// The large blocks in arenas.
    pub runs: RunStats,
    /// The direct mappings.
    pub mappings: MappingStats,
    /// What the heap has mapped for its own records, in bytes; only touched pages take memory. With
    /// the embedder's words, if they are kept.
    pub metadata_bytes: usize,
    /// Threads, at most, that ever used the heap at once.
    pub n_owners: usize,
    /// In a forked child: owners that were amid an operation when it was forked, of whose pools what
    /// is free is lost.
    pub n_owners_lost: usize,
    /// Refused calls.
    pub invalid_frees: InvalidFrees,
    /// Whether `fork` is prepared for, so that a child may allocate; `false` before the first
    /// allocation, or if the system refused to install the handlers.
    pub is_fork_safe: bool,
}

impl Default for HeapStats {
    fn default() -> HeapStats {
        HeapStats {
            classes: [ClassStats::default(); N_CLASSES],
            arenas: ArenaStats::default(),
            big_arenas: ArenaStats::default(),
            runs: RunStats::default(),
            mappings: MappingStats::default(),
            metadata_bytes: 0,
            n_owners: 0,
            n_owners_lost: 0,
            invalid_frees: InvalidFrees::default(),
            is_fork_safe: false,
        }
    }
}

impl HeapStats {
    /// Blocks in use, in pools, runs and direct mappings.
    #[must_use]
    pub fn n_blocks_used(&self) -> usize {
        let in_pools = self.sum(|class| class.n_blocks_used);
        in_pools.saturating_add(self.runs.n_current).saturating_add(self.mappings.n_current)
    }

    /// What was asked for with all blocks in use, in bytes.
    #[must_use]
    pub fn requested_bytes(&self) -> usize {
        let in_pools = self.sum(|class| class.requested_bytes);
        let in_runs = self.runs.requested_bytes;
        in_pools.saturating_add(in_runs).saturating_add(self.mappings.requested_bytes)
    }

    /// What all blocks in use take, in bytes.
    #[must_use]
    pub fn rounded_bytes(&self) -> usize {
        let in_pools = self.sum(ClassStats::rounded_bytes);
        let in_runs = self.runs.mapped_bytes;
        in_pools.saturating_add(in_runs).saturating_add(self.mappings.mapped_bytes)
    }

    /// All address space the heap has from its page source, in bytes.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        let in_arenas = self.arenas.mapped_bytes().saturating_add(self.big_arenas.mapped_bytes());
        let for_blocks = in_arenas.saturating_add(self.mappings.mapped_bytes);
        for_blocks.saturating_add(self.metadata_bytes)
    }

    /// What is lost to rounding requests up to blocks, runs and mappings, in bytes.
    #[must_use]
    pub fn rounding_bytes(&self) -> usize {
        self.rounded_bytes().saturating_sub(self.requested_bytes())
    }

    /// What the free blocks of all pools take, in bytes: external fragmentation.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.sum(ClassStats::free_bytes)
    }

    /// What is left over at the ends of all pools, in bytes.
    #[must_use]
    pub fn tail_bytes(&self) -> usize {
        self.sum(ClassStats::tail_bytes)
    }

    /// The left side of B1 by part, in bytes: used blocks, available blocks, runs, unused units,
    /// tails.
    fn arena_parts(&self) -> [usize; 5] {
        [
            self.sum(ClassStats::rounded_bytes),
            self.free_bytes(),
            self.runs.mapped_bytes,
            self.arenas.unused_bytes().saturating_add(self.big_arenas.unused_bytes()),
            self.tail_bytes(),
        ]
    }

    /// Whether B1 to B4 hold.
    #[must_use]
    pub fn identities_hold(&self) -> bool {
        let arena_bytes =
            self.arena_parts().iter().fold(0usize, |sum, part| sum.saturating_add(*part));
        let in_classes = self.classes.iter().all(|class| {
            let n_extreme = class.n_pools_full.saturating_add(class.n_pools_empty);
            class.requested_bytes <= class.rounded_bytes() && n_extreme <= class.n_pools
        });
        let in_runs = self.runs.requested_bytes <= self.runs.mapped_bytes;
        let in_mappings = self.mappings.requested_bytes <= self.mappings.mapped_bytes
            && self.mappings.mapped_bytes <= self.mappings.mapped_bytes_high_water;
        let in_arenas = self.arenas.add_up() && self.big_arenas.add_up();
        let in_blocks = in_classes && in_runs && in_mappings;
        let mapped = self.arenas.mapped_bytes().saturating_add(self.big_arenas.mapped_bytes());
        arena_bytes == mapped && in_blocks && in_arenas
    }

    fn sum(&self, figure: impl Fn(&ClassStats) -> usize) -> usize {
        self.classes.iter().fold(0, |sum, class| figure(class).saturating_add(sum))
    }
}

impl fmt::Display for HeapStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Small block threshold = {MAX_BLOCK_SIZE}, in {N_CLASSES} size classes.\n")?;
        writeln!(f, "class   size   num pools   blocks in use  avail blocks")?;
        writeln!(f, "-----   ----   ---------   -------------  ------------")?;
        for (index, class) in self.classes.iter().enumerate() {
            if class.n_pools == 0 {
                continue;
            }
            let ClassStats { block_size, n_pools, n_blocks_used, n_blocks_free, .. } = class;
            writeln!(
                f,
                "{index:5} {block_size:6} {n_pools:11} {n_blocks_used:15} {n_blocks_free:13}"
            )?;
        }
        writeln!(f)?;
        write_arenas(f, &self.arenas, "")?;
        if self.big_arenas.n_total != 0 {
            write_arenas(f, &self.big_arenas, "big ")?;
        }
        let [used, available, runs, unused, tails] = self.arena_parts();
        line(f, "# bytes in allocated blocks", used as u64)?;
        line(f, "# bytes in available blocks", available as u64)?;
        line(f, "# bytes in unused units", unused as u64)?;
        line(f, "# bytes in large blocks", runs as u64)?;
        // Zero by design, and printed so that the table has the lines its readers know.
        line(f, "# bytes lost to pool headers", 0)?;
        line(f, "# bytes lost to quantization", tails as u64)?;
        line(f, "# bytes lost to arena alignment", 0)?;
        let total = self.arena_parts().iter().fold(0usize, |sum, part| sum.saturating_add(*part));
        line(f, "Total", total as u64)?;
        writeln!(f)?;
        let big_dirty = self.big_arenas.unused_dirty_bytes();
        let unused_dirty = self.arenas.unused_dirty_bytes().saturating_add(big_dirty);
        line(f, "# bytes in unused units with pages", unused_dirty as u64)?;
        line(f, "# large blocks", self.runs.n_current as u64)?;
        line(f, "# blocks mapped directly", self.mappings.n_current as u64)?;
        line(f, "# bytes in blocks mapped directly", self.mappings.mapped_bytes as u64)?;
        line(f, "# bytes mapped directly highwater", self.mappings.mapped_bytes_high_water as u64)?;
        line(f, "# bytes requested, in all blocks", self.requested_bytes() as u64)?;
        line(f, "# bytes lost to rounding", self.rounding_bytes() as u64)?;
        line(f, "# bytes of metadata", self.metadata_bytes as u64)?;
        line(f, "# bytes of address space", self.mapped_bytes() as u64)?;
        writeln!(f)?;
        line(f, "# double frees ignored", self.invalid_frees.n_double)?;
        line(f, "# foreign frees ignored", self.invalid_frees.n_foreign)?;
        line(f, "# misaligned frees ignored", self.invalid_frees.n_misaligned)?;
        line(f, "# frees with wrong layout ignored", self.invalid_frees.n_wrong_layout)
    }
}

#[cfg(feature = "serde")]
fn serialize_classes<S: serde::Serializer>(
    classes: &[ClassStats; N_CLASSES],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(classes)
}

impl<P: PageSource> Shared<'_, P> {
    /// All figures at this moment.
    pub(crate) fn stats(self) -> HeapStats {
        let mut stats = HeapStats { is_fork_safe: fork::is_installed(), ..HeapStats::default() };
        for (index, to) in stats.classes.iter_mut().enumerate() {
            let Some(class) = SizeClass::from_index(index) else { continue };
            to.block_size = class.block_size();
            to.tail_bytes_per_pool = class.tail_bytes();
        }
        let Control { runs, owners, directory, .. } = self.control;
        let n_leaves = directory.n_leaves();
        if let Some(guard) = self.lock() {
            let [small, big] = self.control.all_arenas();
            stats.arenas = arena_stats(small, Scale::Small);
            stats.big_arenas = arena_stats(big, Scale::Big);
            for arena in small.mapped() {
                stats.add_pools(arena);
            }
            stats.runs = RunStats {
                n_current: runs.n_current.get(),
                n_total: runs.n_total.get(),
                requested_bytes: runs.requested_bytes.get(),
                mapped_bytes: runs.mapped_bytes.get(),
            };
            let mappings = &guard.mappings;
            stats.mappings = MappingStats {
                n_current: mappings.table.len(),
                n_total: mappings.n_total,
                requested_bytes: mappings.requested_bytes,
                mapped_bytes: mappings.mapped_bytes,
                mapped_bytes_high_water: mappings.mapped_bytes_high_water,
            };
            let records = [small, big].into_iter().flat_map(|arenas| arenas.records());
            let words: usize = records.map(|arena| arena.words.size()).sum();
            let n_records = small.n_records.get().saturating_add(big.n_records.get());
            stats.metadata_bytes = n_records
                .saturating_mul(record_bytes::<Arena>())
                .saturating_add(owners.n_owners.get().saturating_mul(record_bytes::<Owner>()))
                .saturating_add(n_leaves.saturating_mul(record_bytes::<Leaf>()))
                .saturating_add(record_bytes::<Control>())
                .saturating_add(mappings.table.n_bytes())
                .saturating_add(mappings.left_words.n_bytes())
                .saturating_add(words);
        }
        stats.n_owners = owners.n_owners.get();
        for owner in owners.iter() {
            stats.n_owners_lost =
                stats.n_owners_lost.saturating_add(usize::from(Owners::is_lost(owner)));
            stats.add_owner(owner);
        }
        for (to, unowned) in stats.classes.iter_mut().zip(&self.control.unowned) {
            // Relaxed: counters publish nothing.
            let given = unowned.requested_bytes.load(Ordering::Relaxed) as usize;
            to.requested_bytes = to.requested_bytes.wrapping_sub(given);
        }
        stats.invalid_frees = self.control.invalid.read();
        stats
    }
}

fn arena_stats(arenas: &Arenas, scale: Scale) -> ArenaStats {
    let n_current = arenas.n_current.get();
    let n_units = n_current.saturating_mul(UNITS_PER_ARENA);
    ArenaStats {
        arena_size: scale.arena_size(),
        unit_size: scale.unit_size(),
        n_current,
        n_high_water: arenas.n_high_water.get(),
        n_total: arenas.n_total.get(),
        n_units_unused: n_units.saturating_sub(arenas.n_units_used.get()),
        n_units_unused_dirty: arenas.n_unused_dirty.get(),
        n_units_used_high_water: arenas.n_units_high_water.get(),
        n_units_discarded: arenas.n_discarded.get(),
    }
}

impl HeapStats {
    fn add_pools(&mut self, arena: &Arena) {
        for pool in &arena.pools {
            let Kind::Pool(class) = pool.kind() else { continue };
            let Some(to) = self.classes.get_mut(class.index()) else { continue };
            let (n_blocks, n_used) = (pool.n_blocks() as usize, pool.n_used() as usize);
            let n_free = n_blocks.saturating_sub(n_used);
            to.n_pools = to.n_pools.wrapping_add(1);
            to.n_pools_full = to.n_pools_full.wrapping_add(usize::from(n_free == 0));
            to.n_pools_empty = to.n_pools_empty.wrapping_add(usize::from(n_used == 0));
            to.n_blocks_used = to.n_blocks_used.wrapping_add(n_used);
            to.n_blocks_free = to.n_blocks_free.wrapping_add(n_free);
        }
    }

    fn add_owner(&mut self, owner: &Owner) {
        for ((_, slot), to) in owner.slots().zip(&mut self.classes) {
            to.n_blocks_total = to.n_blocks_total.wrapping_add(slot.n_taken.get());
            // The sum over all owners wraps to the right value.
            let requested = slot.requested_bytes.get() as usize;
            to.requested_bytes = to.requested_bytes.wrapping_add(requested);
        }
    }
}

/// The lines of the arenas of one size, and an empty one.
fn write_arenas(f: &mut fmt::Formatter<'_>, arenas: &ArenaStats, kind: &str) -> fmt::Result {
    let ArenaStats { n_current, arena_size, .. } = *arenas;
    line(f, format_args!("# {kind}arenas allocated total"), arenas.n_total)?;
    line(f, format_args!("# {kind}arenas reclaimed"), arenas.n_reclaimed())?;
    line(f, format_args!("# {kind}arenas highwater mark"), arenas.n_high_water as u64)?;
    line(f, format_args!("# {kind}arenas allocated current"), n_current as u64)?;
    let plural = if n_current == 1 { "" } else { "s" };
    let name = format_args!("{n_current} arena{plural} * {arena_size} bytes/arena");
    line(f, name, arenas.mapped_bytes() as u64)?;
    writeln!(f)
}

/// One line of the summary: the name in 35 columns, the figure with thousands in 21.
fn line(f: &mut fmt::Formatter<'_>, name: impl fmt::Display, figure: u64) -> fmt::Result {
    let mut text = Text { bytes: [0; 64], len: 0 };
    fmt::write(&mut text, format_args!("{name}"))?;
    writeln!(f, "{:<35}={:>21}", text.as_str(), Thousands(figure).text().as_str())
}

/// A short text without an allocation; what exceeds 64 bytes is an error.
struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len.checked_add(text.len()).ok_or(fmt::Error)?;
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// A number with a comma after each group of three digits.
pub(crate) struct Thousands(pub(crate) u64);

impl Thousands {
    fn text(&self) -> Text {
        let mut text = Text { bytes: [0; 64], len: 0 };
        // At most 20 digits and 6 commas, so writing cannot fail.
        let _ = fmt::write(&mut text, format_args!("{self}"));
        text
    }
}

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return write!(f, "{}", self.0);
        }
        write!(f, "{},{:03}", Thousands(self.0 / 1000), self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn thousands_are_grouped_up_to_the_largest_number() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_002_003, "1,002,003"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(Thousands(number).to_string(), text);
        }
    }

    #[test]
    fn the_table_has_the_lines_of_debugmallocstats() {
        let mut stats = HeapStats::default();
        stats.classes[2] = ClassStats {
            block_size: 48,
            n_pools: 1,
            tail_bytes_per_pool: 16,
            n_blocks_used: 365,
            n_blocks_free: 1000,
            n_blocks_total: 400,
            requested_bytes: 365 * 40,
            ..ClassStats::default()
        };
        stats.arenas = ArenaStats {
            arena_size: 4 << 20,
            unit_size: 64 << 10,
            n_current: 1,
            n_high_water: 2,
            n_total: 3,
            n_units_unused: 63,
            ..ArenaStats::default()
        };
        assert!(stats.identities_hold());
        let text = stats.to_string();
        for expected in [
            "\nclass   size   num pools   blocks in use  avail blocks\n",
            "\n    2     48           1             365          1000\n",
            "\n# arenas allocated total           =                    3\n",
            "\n# arenas reclaimed                 =                    2\n",
            "\n1 arena * 4194304 bytes/arena      =            4,194,304\n",
            "\n# bytes in allocated blocks        =               17,520\n",
            "\n# bytes in unused units            =            4,128,768\n",
            "\n# bytes lost to quantization       =                   16\n",
            "\nTotal                              =            4,194,304\n",
            "\n# bytes lost to rounding           =                2,920\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert!(!text.contains("big arenas"), "{text}");
        stats.big_arenas = ArenaStats {
            arena_size: 32 << 20,
            unit_size: 512 << 10,
            n_current: 1024,
            n_high_water: 1024,
            n_total: 1024,
            ..ArenaStats::default()
        };
        let text = stats.to_string();
        for expected in [
            "\n# big arenas allocated total       =                1,024\n",
            "\n1024 arenas * 33554432 bytes/arena =       34,359,738,368\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 57), "{text}");
    }
}
