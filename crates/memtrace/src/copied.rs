//! Traces as they were copied from the recorder: columns of numbers, without a name.

use memtrace_alloc::{Peak, PeakTrace, SiteId, TrackedTrace};

/// The domain of blocks of the global allocator.
pub(crate) const HEAP_DOMAIN: u32 = 0;

/// A size of 4 GiB or more in the column of sizes.
const LARGE: u32 = u32::MAX;

/// All traces of a moment: blocks of the global allocator in columns, 8 bytes each, 16 with details;
/// other memory in a list.
#[derive(Default)]
pub(crate) struct CopiedTraces {
    /// [`LARGE`] stands for a size in `large`.
    pub(crate) sizes: Vec<u32>,
    pub(crate) sites: Vec<SiteId>,
    /// Index and size, ascending.
    large: Vec<(usize, u64)>,
    /// Thread and birth of each block; empty if neither is recorded.
    pub(crate) details: Vec<(u32, u32)>,
    pub(crate) others: Vec<SingleTrace>,
}

/// A trace by itself.
#[derive(Clone, Copy)]
pub(crate) struct SingleTrace {
    pub(crate) domain: u32,
    pub(crate) size: u64,
    pub(crate) site: SiteId,
    pub(crate) thread: u32,
    pub(crate) birth: u32,
    /// Whether the program told of it, so that it was never left to chance.
    pub(crate) is_tracked: bool,
}

/// What is known of the traces at the peak.
pub(crate) enum PeakTraces {
    /// Nothing: nobody asked to keep them.
    NotKept,
    /// They are as those of now.
    Now,
    Copied(CopiedTraces),
}

impl CopiedTraces {
    /// Copies what is live now.
    pub(crate) fn of_now() -> Self {
        let has_details =
            memtrace_alloc::records_threads() || memtrace_alloc::records_generations();
        // Room for what is there and for what comes meanwhile, so that the scan seldom waits for
        // memory.
        let n_expected = usize::try_from(memtrace_alloc::n_traces()).unwrap_or(0);
        let mut copied = Self::with_capacity(n_expected + n_expected / 8 + 1024, has_details);
        memtrace_alloc::for_each_block(|block| {
            copied.push_block(block.size, block.site);
            if has_details {
                copied.details.push((block.thread, block.birth));
            }
        });
        copied.others.extend(copy_tracked().into_iter().map(|trace| SingleTrace {
            domain: trace.domain,
            size: trace.size,
            site: trace.site,
            thread: trace.thread,
            birth: trace.birth,
            is_tracked: true,
        }));
        copied
    }

    /// Copies what was live at the peak.
    pub(crate) fn of_peak() -> PeakTraces {
        let mut buffer: Vec<u64> = Vec::new();
        loop {
            let n_words = match memtrace_alloc::copy_peak(&mut buffer) {
                Peak::NotKept => return PeakTraces::NotKept,
                Peak::Now => return PeakTraces::Now,
                Peak::NoRoom { n_words } => n_words,
                Peak::Copied(copy) => {
                    let has_details =
                        memtrace_alloc::records_threads() || memtrace_alloc::records_generations();
                    let mut copied = Self::default();
                    for trace in copy.traces() {
                        let PeakTrace { domain, size, site, thread, birth, is_tracked, .. } = trace;
                        if is_tracked {
                            let trace =
                                SingleTrace { domain, size, site, thread, birth, is_tracked };
                            copied.others.push(trace);
                            continue;
                        }
                        copied.push_block(size, site);
                        if has_details {
                            copied.details.push((thread, birth));
                        }
                    }
                    return PeakTraces::Copied(copied);
                }
            };
            // Some more, as memory may have grown when this is asked again.
            buffer.resize(n_words + n_words / 8, 0);
        }
    }

    /// Adds a block, but not its details.
    #[inline(always)]
    fn push_block(&mut self, size: u64, site: SiteId) {
        let narrow = u32::try_from(size).unwrap_or(LARGE);
        if narrow == LARGE {
            self.large.push((self.sizes.len(), size));
        }
        self.sizes.push(narrow);
        self.sites.push(site);
    }

    fn with_capacity(n_blocks: usize, has_details: bool) -> Self {
        Self {
            sizes: Vec::with_capacity(n_blocks),
            sites: Vec::with_capacity(n_blocks),
            details: Vec::with_capacity(if has_details { n_blocks } else { 0 }),
            ..Self::default()
        }
    }

    /// Whether the columns of sizes and sites tell all there is of the blocks.
    pub(crate) fn is_plain(&self) -> bool {
        self.large.is_empty() && self.details.is_empty()
    }

    /// The blocks of the global allocator as single traces.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = SingleTrace> {
        let mut large = self.large.iter();
        let mut details = self.details.iter();
        self.sizes.iter().zip(&self.sites).map(move |(&size, &site)| {
            let size = match size {
                LARGE => large.next().map_or(u64::from(LARGE), |large| large.1),
                _ => u64::from(size),
            };
            let &(thread, birth) = details.next().unwrap_or(&(0, 0));
            SingleTrace { domain: HEAP_DOMAIN, size, site, thread, birth, is_tracked: false }
        })
    }
}

pub(crate) fn copy_tracked() -> Vec<TrackedTrace> {
    let mut tracked = Vec::new();
    loop {
        let n = memtrace_alloc::copy_tracked(&mut tracked);
        if n <= tracked.len() {
            tracked.truncate(n);
            return tracked;
        }
        tracked.resize(n + n / 8 + 16, TrackedTrace::EMPTY);
    }
}
