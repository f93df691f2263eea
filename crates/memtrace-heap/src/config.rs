//! What a heap is asked to be.

/// When pages that no block uses go back to the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// When there are more of them than the program has needed again lately (in the last 50 to 100 ms),
    /// and 2 MiB or a sixteenth of what is in use: so resident memory follows what the program holds, and
    /// a program that takes and gives back the same memory over and over pays once. Some at a time, as
    /// the program takes and gives back; all that is unused, when it does so after a pause of 0.2 s.
    #[default]
    Slack,
    /// As soon as they are unused. Each costs a system call, and page faults when it is used again.
    Immediate,
    /// Only by [`Heap::purge`](crate::Heap::purge).
    Never,
}

/// Options of a heap.
///
/// ```
/// use memtrace_heap::{Config, Heap, Purge};
///
/// static HEAP: Heap = Heap::new(Config::new().purge(Purge::Immediate));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Config {
    purge: Purge,
    block_words: bool,
    huge_pages: bool,
}

impl Config {
    /// The defaults: [`Purge::Slack`], and no word beside blocks.
    pub const fn new() -> Config {
        Config { purge: Purge::Slack, block_words: false, huge_pages: false }
    }

    /// When unused pages go back to the system.
    pub const fn purge(self, purge: Purge) -> Config {
        Config { purge, ..self }
    }

    /// Whether there is a word of the embedder's choice beside each block
    /// ([`Heap::block_word`](crate::Heap::block_word)).
    ///
    /// **Cost**: 8 bytes of memory for each block of a pool that has one, in whole pages for each
    /// arena, and 4 MiB of address space for each arena of 4.
    pub const fn block_words(self, block_words: bool) -> Config {
        Config { block_words, ..self }
    }

    /// Whether arenas ask for huge pages (2 MiB), where the system gives them on request. For heaps of
    /// hundreds of megabytes: fewer page faults and misses of the address translation. A page of which
    /// little is used is resident as a whole.
    pub const fn huge_pages(self, huge_pages: bool) -> Config {
        Config { huge_pages, ..self }
    }

    pub(crate) const fn has_huge_pages(self) -> bool {
        self.huge_pages
    }

    pub(crate) const fn purge_policy(self) -> Purge {
        self.purge
    }

    /// Whether there is a word beside each block.
    #[must_use]
    pub const fn has_block_words(self) -> bool {
        self.block_words
    }

    /// The options in a byte.
    pub(crate) const fn to_byte(self) -> u8 {
        let words = if self.block_words { 4 } else { 0 };
        let huge = if self.huge_pages { 8 } else { 0 };
        words
            | huge
            | match self.purge {
                Purge::Slack => 0,
                Purge::Immediate => 1,
                Purge::Never => 2,
            }
    }

    /// The options that [`to_byte`](Self::to_byte) put into a byte.
    #[cfg(feature = "std")]
    pub(crate) const fn from_byte(byte: u8) -> Config {
        let purge = match byte & 3 {
            0 => Purge::Slack,
            1 => Purge::Immediate,
            _ => Purge::Never,
        };
        Config { purge, block_words: byte & 4 != 0, huge_pages: byte & 8 != 0 }
    }
}
