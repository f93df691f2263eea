//! Traces as they were copied from the recorder: columns of numbers, without a name.

use memtrace_alloc::{SiteId, TrackedTrace};

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
        let Self { sizes, sites, large, details, .. } = &mut copied;
        memtrace_alloc::for_each_block(|block| {
            let size = u32::try_from(block.size).unwrap_or(LARGE);
            if size == LARGE {
                large.push((sizes.len(), block.size));
            }
            if has_details {
                details.push((block.thread, block.birth));
            }
            sizes.push(size);
            sites.push(block.site);
        });
        copied.others.extend(copy_tracked().into_iter().map(|trace| SingleTrace {
            domain: trace.domain,
            size: trace.size,
            site: trace.site,
            thread: trace.thread,
            birth: trace.birth,
        }));
        copied
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
            SingleTrace { domain: HEAP_DOMAIN, size, site, thread, birth }
        })
    }
}

fn copy_tracked() -> Vec<TrackedTrace> {
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
