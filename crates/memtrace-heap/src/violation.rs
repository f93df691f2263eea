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
    /// A pool's bitmaps, summary and counters disagree.
    PoolBitmap,
    /// A pool belongs to no owner, or its units disagree about what they are part of.
    PoolPlace,
    /// A class's list of partly used pools is not exactly those of its owner, or an active pool is not
    /// that of its slot.
    ClassList,
    /// The blocks taken less those given back are not the blocks in use.
    ClassCounts,
    /// The arenas, their lists, their counters and the directory disagree.
    Arenas,
    /// The runs' figures differ from the recount.
    Runs,
    /// The direct mappings' sums differ from the recount, or one is too small.
    Mappings,
    /// The totals do not add up: see [`HeapStats::identities_hold`](crate::HeapStats).
    Identities,
    /// Nothing can be said: other threads were at work in the heap whenever it was looked at.
    Busy,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Violation::PoolBitmap => "a pool's bitmaps disagree with its counters",
            Violation::PoolPlace => "a pool has no owner, or its units disagree",
            Violation::ClassList => "a class's list is not exactly its owner's pools with room",
            Violation::ClassCounts => "blocks taken less those given back are not those in use",
            Violation::Arenas => "the arenas, their lists and the directory disagree",
            Violation::Runs => "the large blocks' figures differ from the recount",
            Violation::Mappings => "the direct mappings' figures differ from the recount",
            Violation::Identities => {
                "the totals do not add up; were blocks freed with sizes they were not asked with?"
            }
            Violation::Busy => "other threads were at work in the heap whenever it was looked at",
        })
    }
}

impl Error for Violation {}
