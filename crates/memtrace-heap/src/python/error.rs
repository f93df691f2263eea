//! What can be wrong with a call, and with the heap itself.

use core::error::Error;
use core::fmt;

/// Why an address is that of no block in use. The call that was refused left the heap as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidFree {
    /// A block of a pool, but not in use: free already, or never handed out.
    Double,
    /// In no pool that was ever used, and no block outside of the pools. A second free of a block
    /// outside of the pools, or of one whose arena has been given back, looks like this too.
    Foreign,
    /// In a pool, but not at the start of a block.
    Misaligned,
}

impl fmt::Display for InvalidFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidFree::Double => "the block is not in use",
            InvalidFree::Foreign => "the address belongs to no block of this heap",
            InvalidFree::Misaligned => "the address is not the start of a block",
        })
    }
}

impl Error for InvalidFree {}

/// An invariant of the heap that does not hold: a defect, or records overwritten from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A pool's free list, links and counters disagree.
    Pool,
    /// A class's counters differ from the recount.
    ClassCounts,
    /// A class's list is not exactly its pools that are partly used.
    ClassList,
    /// An arena's unused pools are not those it has stacked and those it has not carved.
    UnusedPools,
    /// An arena is not in the list for its number of unused pools.
    ArenaLists,
    /// More wholly free arenas than the version keeps.
    FreeArenas,
    /// The pools and the table that finds them disagree.
    PoolTable,
    /// The counters of arenas, or of blocks outside of them, differ from the recount.
    Counters,
    /// The six parts do not add up to the arenas.
    Identity,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::Pool => "a pool's free list disagrees with its counters",
            Violation::ClassCounts => "a size class's counters differ from the recount",
            Violation::ClassList => "a size class's list is not exactly its partly used pools",
            Violation::UnusedPools => "an arena's unused pools differ from the recount",
            Violation::ArenaLists => "an arena is in the wrong list",
            Violation::FreeArenas => "more wholly free arenas than the version keeps",
            Violation::PoolTable => "the pools and the table that finds them disagree",
            Violation::Counters => {
                "the counters of arenas or of raw blocks differ from the recount"
            }
            Violation::Identity => "the parts of the arenas do not add up",
        })
    }
}

impl Error for Violation {}
