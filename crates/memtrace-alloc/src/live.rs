//! What the recorder needs of a table of live blocks: block address → size and site.
//!
//! The structure itself stands behind [`LiveTable`], so that another can take its place without the
//! recorder noticing. The recorder uses [`crate::live_blocks`]: [`crate::page_shadow`], or the words of a
//! pooled heap. What neither has a place for is in [`crate::flat_shadow`].
//!
//! What is known of a block is its *trace*, size and site, which every table holds; and its *detail*,
//! the thread and the generation in which it was born, which a table need hold only while details are
//! switched on, and which costs nothing otherwise: neither memory nor work.

use crate::site::SiteId;

/// A live block's trace as the table holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveTrace {
    /// Requested bytes.
    pub(crate) size: u64,
    /// The stack of the call that allocated or last resized the block.
    pub(crate) site: SiteId,
}

/// Who allocated or last resized a block, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// The thread's number; 0 if unknown.
    pub(crate) thread: u32,
    /// The generation; 0 if unknown.
    pub(crate) birth: u32,
}

impl Detail {
    pub(crate) const UNKNOWN: Self = Self { thread: 0, birth: 0 };

    pub(crate) const fn to_word(self) -> u64 {
        (self.thread as u64) << 32 | self.birth as u64
    }

    pub(crate) const fn from_word(word: u64) -> Self {
        Self { thread: (word >> 32) as u32, birth: word as u32 }
    }
}

/// A traced block of the global allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveBlock {
    /// Where the block starts.
    pub block_addr: u64,
    /// Requested bytes.
    pub size: u64,
    /// The stack of the call that allocated or last resized the block.
    pub site: SiteId,
    /// The number of the thread that made this call; 0 if threads are not recorded.
    pub thread: u32,
    /// The generation in which it was made; 0 if generations are not recorded.
    pub birth: u32,
}

impl LiveBlock {
    #[inline(always)]
    pub(crate) const fn new(block_addr: u64, trace: LiveTrace, detail: Detail) -> Self {
        let LiveTrace { size, site } = trace;
        Self { block_addr, size, site, thread: detail.thread, birth: detail.birth }
    }
}

/// There is no memory, or no place at all, for the record of a block at this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// What came of a few instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quick {
    /// The block was recorded, and is not any more.
    Taken(LiveTrace),
    /// It was not recorded.
    Nothing,
    /// It takes more than that to know.
    Unknown,
}

/// A map from block addresses to traces that any thread may use at any time, inside `malloc`.
///
/// Whatever is stored or taken is so in an operation of the caller's
/// ([`during`](crate::operation::during)).
pub(crate) trait LiveTable {
    /// Records a block, of which nothing is recorded, if that takes a few instructions, and says whether it
    /// did.
    #[inline(always)]
    fn insert_quickly(&self, _block_addr: u64, _trace: LiveTrace) -> bool {
        false
    }

    /// Forgets a block if that takes a few instructions, and returns what was recorded.
    #[inline(always)]
    fn take_quickly(&self, _block_addr: u64) -> Quick {
        Quick::Unknown
    }

    /// Records a block and returns what was recorded at its address before, normally nothing.
    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom>;

    /// Stores the detail of the block that the caller is about to insert at an address, or has taken
    /// out there.
    ///
    /// Whoever finds the trace that is inserted next, in the same operation, finds this detail or a later one. A block
    /// that is inserted without a detail has that of the last one at its address.
    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom>;

    /// Returns the detail last stored at an address.
    fn detail(&self, block_addr: u64) -> Detail;

    /// Forgets a block and returns what was recorded.
    fn take(&self, block_addr: u64) -> Option<LiveTrace>;

    /// Returns what is recorded of a block.
    fn get(&self, block_addr: u64) -> Option<LiveTrace>;

    /// Visits every trace, with its detail if `HAS_DETAILS`. A block that is live throughout is
    /// visited exactly once, one that is not recorded at any time meanwhile is not visited; of others,
    /// either may happen.
    fn for_each<const HAS_DETAILS: bool>(&self, visit: impl FnMut(u64, LiveTrace, Detail));

    /// Forgets every trace that is recorded when the call begins, and tells of each it forgot. Not in an operation.
    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace));
}
