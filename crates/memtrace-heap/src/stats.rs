//! What a heap tells about itself: plain figures and their text.
//!
//! # Mechanism
//! [`HeapStats`] is a copy made under the heap's lock, so its figures belong together. "Requested"
//! bytes are what callers asked for, "rounded" bytes what their blocks take, "mapped" bytes address
//! space from the page source (of which only touched pages take memory).
//!
//! # Invariants
//! B1 to B3 stand at [`HeapStats`].

use core::fmt;

use crate::arenas::ARENA_SIZE;
use crate::class::{MAX_BLOCK_SIZE, N_CLASSES};
use crate::pool::POOL_SIZE;

/// Why a pointer handed to `dealloc` or `realloc` is no block that can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidFree {
    Double,
    Foreign,
    Misaligned,
    WrongLayout,
}

/// How many calls of `dealloc` and `realloc` were refused, by reason. Each left the heap as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidFrees {
    /// The block of a pool was free already (or its whole pool unused).
    pub n_double: u64,
    /// The address belongs to no arena and no direct mapping of this heap. A second free of a
    /// direct mapping, or of a block whose arena has been given back, looks like this too.
    pub n_foreign: u64,
    /// The address lies in a pool but not at the start of a block.
    pub n_misaligned: u64,
    /// The block is in use, but of another size class, or (direct mapping) another size.
    pub n_wrong_layout: u64,
}

impl InvalidFrees {
    /// All of them.
    #[must_use]
    pub fn n_total(&self) -> u64 {
        let grave = self.n_double.saturating_add(self.n_foreign);
        grave.saturating_add(self.n_misaligned).saturating_add(self.n_wrong_layout)
    }

    pub(crate) fn count(&mut self, reason: InvalidFree) {
        let counter = match reason {
            InvalidFree::Double => &mut self.n_double,
            InvalidFree::Foreign => &mut self.n_foreign,
            InvalidFree::Misaligned => &mut self.n_misaligned,
            InvalidFree::WrongLayout => &mut self.n_wrong_layout,
        };
        *counter = counter.saturating_add(1);
    }
}

/// The figures of one size class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClassStats {
    /// The size of each block, in bytes.
    pub block_size: usize,
    /// Pools that have at least one block in use.
    pub n_pools: usize,
    /// Blocks in use.
    pub n_blocks_used: usize,
    /// Free blocks in those pools.
    pub n_blocks_free: usize,
    /// Blocks ever handed out.
    pub n_blocks_total: u64,
    /// What was asked for with the blocks in use, in bytes.
    pub requested_bytes: usize,
}

impl ClassStats {
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
        let tail = POOL_SIZE.checked_rem(self.block_size).unwrap_or(0);
        self.n_pools.saturating_mul(tail)
    }
}

/// The figures of the arenas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Arenas mapped now.
    pub n_current: usize,
    /// The most there ever were at once.
    pub n_high_water: usize,
    /// Arenas ever mapped.
    pub n_total: u64,
    /// Pools of the current arenas that no class uses.
    pub n_pools_unused: usize,
}

impl ArenaStats {
    /// Arenas given back to the page source.
    #[must_use]
    pub fn n_reclaimed(&self) -> u64 {
        self.n_total.saturating_sub(self.n_current as u64)
    }

    /// The address space of the current arenas, in bytes.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.n_current.saturating_mul(ARENA_SIZE)
    }
}

/// The figures of the blocks beyond the largest class, each a mapping of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
/// - **B1** Used blocks, available blocks, unused pools and the tails of pools, in bytes, sum to
///   arenas × [`ARENA_SIZE`].
/// - **B2** Requested bytes are at most rounded bytes in each class, and at most mapped bytes in
///   the direct mappings.
/// - **B3** Arenas ever mapped less arenas reclaimed are the current ones, which are at most the
///   high water mark.
///
/// Its [`Display`](fmt::Display) is the table of CPython's `sys._debugmallocstats()`, with the
/// direct mappings and the invalid frees added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeapStats {
    /// By size class, smallest blocks first.
    pub classes: [ClassStats; N_CLASSES],
    /// The arenas.
    pub arenas: ArenaStats,
    /// The direct mappings.
    pub mappings: MappingStats,
    /// What the heap has mapped for its own records, in bytes.
    pub metadata_bytes: usize,
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
            mappings: MappingStats::default(),
            metadata_bytes: 0,
            invalid_frees: InvalidFrees::default(),
            is_fork_safe: false,
        }
    }
}

impl HeapStats {
    /// Blocks in use, in pools and direct mappings.
    #[must_use]
    pub fn n_blocks_used(&self) -> usize {
        self.sum(|class| class.n_blocks_used).saturating_add(self.mappings.n_current)
    }

    /// What was asked for with all blocks in use, in bytes.
    #[must_use]
    pub fn requested_bytes(&self) -> usize {
        self.sum(|class| class.requested_bytes).saturating_add(self.mappings.requested_bytes)
    }

    /// What all blocks in use take, in bytes.
    #[must_use]
    pub fn rounded_bytes(&self) -> usize {
        self.sum(ClassStats::rounded_bytes).saturating_add(self.mappings.mapped_bytes)
    }

    /// All address space the heap has from its page source, in bytes.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        let for_blocks = self.arenas.mapped_bytes().saturating_add(self.mappings.mapped_bytes);
        for_blocks.saturating_add(self.metadata_bytes)
    }

    /// The left side of B1 by part, in bytes: used blocks, available blocks, unused pools, tails.
    fn arena_parts(&self) -> [usize; 4] {
        [
            self.sum(ClassStats::rounded_bytes),
            self.sum(ClassStats::free_bytes),
            self.arenas.n_pools_unused.saturating_mul(POOL_SIZE),
            self.sum(ClassStats::tail_bytes),
        ]
    }

    /// Whether B1 to B3 hold.
    #[must_use]
    pub fn identities_hold(&self) -> bool {
        let arena_bytes =
            self.arena_parts().iter().fold(0usize, |sum, part| sum.saturating_add(*part));
        let in_classes =
            self.classes.iter().all(|class| class.requested_bytes <= class.rounded_bytes());
        let in_mappings = self.mappings.requested_bytes <= self.mappings.mapped_bytes
            && self.mappings.mapped_bytes <= self.mappings.mapped_bytes_high_water;
        let in_arenas = self.arenas.n_current <= self.arenas.n_high_water
            && self.arenas.n_high_water as u64 <= self.arenas.n_total;
        arena_bytes == self.arenas.mapped_bytes() && in_classes && in_mappings && in_arenas
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
        let arenas = &self.arenas;
        line(f, "# arenas allocated total", arenas.n_total)?;
        line(f, "# arenas reclaimed", arenas.n_reclaimed())?;
        line(f, "# arenas highwater mark", arenas.n_high_water as u64)?;
        line(f, "# arenas allocated current", arenas.n_current as u64)?;
        let name = format_args!("{} arenas * {ARENA_SIZE} bytes/arena", arenas.n_current);
        line(f, name, arenas.mapped_bytes() as u64)?;
        writeln!(f)?;
        let [used, available, unused, tails] = self.arena_parts();
        line(f, "# bytes in allocated blocks", used as u64)?;
        line(f, "# bytes in available blocks", available as u64)?;
        let name = format_args!("{} unused pools * {POOL_SIZE} bytes", arenas.n_pools_unused);
        line(f, name, unused as u64)?;
        // Zero by design, and printed so that the table has the lines its readers know.
        line(f, "# bytes lost to pool headers", 0)?;
        line(f, "# bytes lost to quantization", tails as u64)?;
        line(f, "# bytes lost to arena alignment", 0)?;
        let total = self.arena_parts().iter().fold(0usize, |sum, part| sum.saturating_add(*part));
        line(f, "Total", total as u64)?;
        writeln!(f)?;
        line(f, "# blocks mapped directly", self.mappings.n_current as u64)?;
        line(f, "# bytes in blocks mapped directly", self.mappings.mapped_bytes as u64)?;
        line(f, "# bytes mapped directly highwater", self.mappings.mapped_bytes_high_water as u64)?;
        line(f, "# bytes requested, in all blocks", self.requested_bytes() as u64)?;
        let lost = self.rounded_bytes().saturating_sub(self.requested_bytes());
        line(f, "# bytes lost to rounding", lost as u64)?;
        line(f, "# bytes of metadata", self.metadata_bytes as u64)?;
        line(f, "# bytes of address space", self.mapped_bytes() as u64)?;
        writeln!(f)?;
        line(f, "# double frees ignored", self.invalid_frees.n_double)?;
        line(f, "# foreign frees ignored", self.invalid_frees.n_foreign)?;
        line(f, "# misaligned frees ignored", self.invalid_frees.n_misaligned)?;
        line(f, "# frees with wrong layout ignored", self.invalid_frees.n_wrong_layout)
    }
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
struct Thousands(u64);

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
            n_blocks_used: 365,
            n_blocks_free: 1000,
            n_blocks_total: 400,
            requested_bytes: 365 * 40,
        };
        stats.arenas = ArenaStats { n_current: 1, n_high_water: 2, n_total: 3, n_pools_unused: 63 };
        assert!(stats.identities_hold());
        let text = stats.to_string();
        for expected in [
            "\nclass   size   num pools   blocks in use  avail blocks\n",
            "\n    2     48           1             365          1000\n",
            "\n# arenas allocated total           =                    3\n",
            "\n# arenas reclaimed                 =                    2\n",
            "\n1 arenas * 4194304 bytes/arena     =            4,194,304\n",
            "\n# bytes in allocated blocks        =               17,520\n",
            "\n63 unused pools * 65536 bytes      =            4,128,768\n",
            "\n# bytes lost to quantization       =                   16\n",
            "\nTotal                              =            4,194,304\n",
            "\n# bytes lost to rounding           =                2,920\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert!(text.lines().all(|line| line.len() <= 57), "{text}");
    }
}
