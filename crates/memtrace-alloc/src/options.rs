//! What tracing is started with.

/// What to record of each allocation; begins with 25 frames of its stack and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) n_frames: u16,
    pub(crate) threads: bool,
    pub(crate) generations: bool,
    pub(crate) peak_percent: Option<u16>,
    pub(crate) table_limit: Option<u64>,
    pub(crate) site_cache_limit: u64,
    pub(crate) sample_every: u64,
    pub(crate) site_totals: bool,
    pub(crate) lifetimes: bool,
}

impl Options {
    /// Records 25 frames for each allocation.
    pub const fn new() -> Self {
        Self {
            n_frames: 25,
            threads: false,
            generations: false,
            peak_percent: None,
            table_limit: None,
            site_cache_limit: memtrace_unwind::DEFAULT_CACHE_BUDGET,
            sample_every: 0,
            site_totals: false,
            lifetimes: false,
        }
    }

    /// Sets the number of frames captured for each allocation, 1 to 65535.
    pub const fn frames(mut self, n_frames: u16) -> Self {
        self.n_frames = n_frames;
        self
    }

    /// Sets whether the thread is recorded that allocated, or last resized, each block.
    ///
    /// **Cost**: two instructions an allocation, and the column of details: 8 bytes for each 16 bytes
    /// of heap, shared with [`Self::generations`]. Nothing while both are off.
    pub const fn threads(mut self, is_on: bool) -> Self {
        self.threads = is_on;
        self
    }

    /// Sets whether the generation is recorded in which each block was allocated or last resized, that
    /// is, between which snapshots.
    ///
    /// **Cost**: as [`Self::threads`].
    pub const fn generations(mut self, is_on: bool) -> Self {
        self.generations = is_on;
        self
    }

    /// Keeps a copy of all traces as they were when memory was highest, for a snapshot of the peak.
    ///
    /// What the copy holds is at most `percent` below the peak in a program of one thread; 1 is a good
    /// choice, and 0 is exact. With more threads the copy is made while others allocate and release, and
    /// a peak that they rise to and fall from within the time of one copy is missed.
    ///
    /// **Cost**: one comparison a release. When memory begins to shrink, `percent` or more above where
    /// it last did, the thread that releases makes a copy: a few milliseconds for a million blocks. At
    /// 1 % that happens up to 232 times while memory grows tenfold, and takes as long in all as about a
    /// hundred times the last of them. 8 bytes a block, 16 with threads or generations, twice.
    pub const fn peak_percent(mut self, percent: u16) -> Self {
        self.peak_percent = Some(percent);
        self
    }

    /// Records one block in so many bytes on average, and all blocks of this size and more; 0 and 1, as
    /// in the beginning, record every block.
    ///
    /// A block of `s` bytes is recorded with the chance `p = 1 - exp(-s / bytes)`, whatever happens to
    /// others, and stands for `1 / p` blocks: sums over many blocks are right on average, whatever their
    /// sizes, and snapshots say how far they may be off. The fewer samples a line has, the further; a
    /// line that was never sampled is not there. [`traced_memory`](crate::traced_memory) is an estimate
    /// then. A resized block is decided on anew. Memory that the program tells of with
    /// [`track`](crate::track) is never left out.
    ///
    /// 512 KiB is what Go's and tcmalloc's profiles take. With `n` samples the error of a sum is about
    /// `2 / sqrt(n)` of it in 95 of 100 cases: at 512 KiB some 14 % of 100 MiB.
    ///
    /// ```
    /// # #[global_allocator]
    /// # static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();
    /// use memtrace_alloc::Options;
    ///
    /// memtrace_alloc::start_with(Options::new().sample_every(64 * 1024)).unwrap();
    /// let kept: Vec<Box<[u8; 1000]>> = (0..100_000).map(|_| Box::new([0; 1000])).collect();
    /// // 100 MB in small blocks, about 1500 of which were recorded, and a large one.
    /// let estimate = memtrace_alloc::traced_memory().current;
    /// assert!((80_000_000..120_000_000).contains(&estimate));
    /// # drop(kept);
    /// ```
    ///
    /// 2⁴⁸ bytes and more, which is more than there are addresses, count as 2⁴⁸ - 1.
    ///
    /// **Cost**: for a block that is not recorded, a subtraction in thread-local memory, and at its
    /// release a look at one byte: some 25 instructions for both. Blocks of a page that has a sample, and those of
    /// a pooled heap ([`Alloc::pooled`](crate::Alloc::pooled)), pay for a look-up in the table of live blocks.
    pub const fn sample_every(mut self, bytes: u64) -> Self {
        self.sample_every = bytes;
        self
    }

    /// Sets whether it is counted how much is allocated and given back at each call site since tracing began,
    /// for ranking lines by their temporary allocations.
    ///
    /// **Cost**: four additions to memory for each block, 32 bytes for each site and thread (at most eight of
    /// these).
    pub const fn site_totals(mut self, is_on: bool) -> Self {
        self.site_totals = is_on;
        self
    }

    /// Sets whether it is counted how long the blocks of each call site live, for telling temporary allocations
    /// from others; with the totals of [`Self::site_totals`], whether these are asked for or not.
    ///
    /// A lifetime ends when the block is given back or resized. [`Lifetimes`](crate::Lifetimes) are what comes of it.
    ///
    /// **Cost**: beside that of the totals, the system's clock twice for each block, 20 to 40 ns each time, and an
    /// addition to memory; 8 bytes for each 16 bytes of heap, and 256 bytes, and up to as much again in reserve, for each
    /// site and thread (at most eight of these). Under a [`Self::table_limit`] the latter take no more than leaves
    /// half of it to others.
    pub const fn lifetimes(mut self, is_on: bool) -> Self {
        self.lifetimes = is_on;
        self
    }

    /// The lowest limit that [`Self::table_limit`] takes, in bytes: 4 MiB.
    pub const LEAST_TABLE_LIMIT: u64 = 4 << 20;

    /// Limits the memory of the tracer's tables, in bytes; there is no limit unless this sets one.
    ///
    /// The tables are those of stacks and their totals, of live blocks and their details, of threads, of memory that the program
    /// tells of, copies of the peak, and buffers for deep captures. Where they may not grow, the program
    /// goes on undisturbed: blocks with stacks not seen before are recorded without a stack, blocks with no
    /// place in the table are not recorded, and [`losses`](crate::losses) counts both.
    ///
    /// The limit is on memory that is used for tables in this process: what earlier runs of tracing took and has not
    /// gone back to the system is used again, and counts. Not among it are the rules for unwinding (16 bytes for
    /// each call that was met), what threads remember of their captures ([`Self::site_cache_limit`]),
    /// and the words that a pooled heap keeps for its blocks.
    pub const fn table_limit(mut self, bytes: u64) -> Self {
        self.table_limit = Some(bytes);
        self
    }

    /// Limits what threads remember of their captures, in bytes for all of them together: 256 MiB unless this sets another
    /// limit. Zero lets them remember nothing.
    ///
    /// A thread needs 24 KiB to 1 MiB, for one frame 8 KiB or more. One that allocates over and over again on thousands of distinct stacks takes 8 MiB,
    /// on tens of thousands 64 MiB, until these are of no use or it ends, if all together then take three eighths of the limit at most.
    /// A stack that has no room is walked, at 60 to 150 ns, each time it allocates. What threads have when tracing
    /// starts they keep, unless it is for more frames than one and one is asked for, or the reverse.
    pub const fn site_cache_limit(mut self, bytes: u64) -> Self {
        self.site_cache_limit = bytes;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
