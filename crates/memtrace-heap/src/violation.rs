//! What a recount of the heap can find wrong.

use core::error::Error;
use core::fmt;

/// An invariant of the heap that does not hold.
///
/// Seen only if memory of the heap's records was overwritten from outside, if a caller freed blocks
/// with sizes it did not ask for ([`Identities`](Self::Identities)), or if the heap has a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A pool's bitmap, summary word and counters disagree.
    PoolBitmap,
    /// A pool counted as unused has blocks in use, or the reverse.
    UnusedPools,
    /// A class's pools or blocks in use differ from the recount.
    ClassCounts,
    /// A class's list is not exactly its pools with room.
    ClassList,
    /// The arenas, their count and the table that finds them disagree.
    ArenaIndex,
    /// More than one arena is wholly unused, or their count is wrong.
    WhollyUnusedArenas,
    /// An arena is not in the list for its number of unused pools.
    ArenaLists,
    /// The direct mappings' sums differ from the recount, or one is too small.
    Mappings,
    /// The totals do not add up: see [`HeapStats::identities_hold`](crate::HeapStats).
    Identities,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::PoolBitmap => "a pool's bitmap disagrees with its counters",
            Violation::UnusedPools => "a pool counted as unused has blocks in use, or the reverse",
            Violation::ClassCounts => "a size class's counters differ from the recount",
            Violation::ClassList => "a size class's list is not exactly its pools with room",
            Violation::ArenaIndex => "the arenas and the table that finds them disagree",
            Violation::WhollyUnusedArenas => "more than one arena is wholly unused",
            Violation::ArenaLists => "an arena is in the wrong list",
            Violation::Mappings => "the direct mappings' figures differ from the recount",
            Violation::Identities => {
                "the totals do not add up; were blocks freed with sizes they were not asked with?"
            }
        })
    }
}

impl Error for Violation {}
