//! What is recorded, for who asks: copied or visited while the program runs on.

use super::RECORDER;
use crate::control;
use crate::lifetime::Lifetimes;
use crate::live::{LiveBlock, LiveTable};
use crate::peak::Peak;
use crate::site::{Site, SiteId};
use crate::site_totals::SiteTotals;
use crate::thread_table::ThreadInfo;
use crate::totals::TracedMemory;
use crate::tracked::TrackedTrace;

/// Whether tracing is on; starts it if `MEMTRACE` asks for it and nothing has allocated before.
pub fn is_tracing() -> bool {
    control::is_on_or_asked_for()
}

/// Returns the number of frames last given to [`crate::start`]; 1 before.
pub fn traceback_limit() -> u16 {
    control::limit()
}

/// Returns the requested bytes of all live traces, now and at most; zeros while tracing is off.
///
/// While tracing is sampled ([`crate::Options::sample_every`]), estimates of the bytes of all blocks: each
/// recorded one counts for those it stands for.
///
/// **Cost**: two loads. Exact when no other thread is allocating.
pub fn traced_memory() -> TracedMemory {
    if control::is_on() { RECORDER.totals.read() } else { TracedMemory::default() }
}

/// Returns the record of the block or the tracked memory (domain 0) that starts at an address.
pub fn trace_at(addr: u64) -> Option<LiveBlock> {
    let block = || {
        // Another block may take this one's place between the two.
        let trace = RECORDER.live.get(addr)?;
        Some(LiveBlock::new(addr, trace, RECORDER.told(RECORDER.live.detail(addr))))
    };
    block().or_else(|| RECORDER.tracked.lock().get(0, addr).map(TrackedTrace::as_block))
}

/// Returns the stack of a site; `None` for [`SiteId::UNKNOWN`].
pub fn site_frames(site: SiteId) -> Option<Site> {
    RECORDER.sites.get(site)
}

/// Visits every site with what was allocated there, and what of that was given back, since tracing began or
/// traces were cleared, if tracing was started with [`crate::Options::site_totals`] or
/// [`crate::Options::lifetimes`]; then returns `true`.
///
/// Sites at which nothing was are left out; what was allocated without a known stack is told of as
/// [`SiteId::UNKNOWN`]. While tracing is sampled the figures are estimates.
///
/// **Cost**: up to eight loads of a cache line a site.
pub fn for_each_site_totals(mut visit: impl FnMut(SiteId, SiteTotals)) -> bool {
    if !RECORDER.by_site.is_on() {
        return false;
    }
    for number in 0..=RECORDER.sites.n_sites() {
        let site = SiteId(number);
        let totals = RECORDER.by_site.of_site(site);
        if totals != SiteTotals::default() {
            visit(site, totals);
        }
    }
    true
}

/// Visits every site with how long the blocks lived that were allocated there and have been given back, if tracing
/// was started with [`crate::Options::lifetimes`]; then returns `true`.
///
/// Sites of which none was given back are left out. There are as many blocks as [`SiteTotals::n_freed`] says if no other
/// thread is allocating, less those that there was no room for ([`Losses::n_blocks_without_detail`](crate::Losses)).
///
/// **Cost**: up to eight times four loads of a cache line a site.
pub fn for_each_site_lifetimes(mut visit: impl FnMut(SiteId, Lifetimes)) -> bool {
    if !RECORDER.by_site.is_on() || !control::records().lifetimes {
        return false;
    }
    for number in 0..=RECORDER.sites.n_sites() {
        let site = SiteId(number);
        let lifetimes = RECORDER.by_site.lifetimes_of_site(site);
        if lifetimes != Lifetimes::default() {
            visit(site, lifetimes);
        }
    }
    true
}

/// Visits every traced block while the program runs on.
///
/// A block that is live throughout is visited exactly once; one that is allocated or given back
/// meanwhile may or may not be. Memory that the program told of is copied by
/// [`crate::copy_tracked`].
///
/// Not to wait, in `visit`, for a thread that stops tracing or clears traces: it waits for this one, and goes on without it
/// only after a second or two.
///
/// **Cost**: reads 8 to 13 bytes for each block, and 8 more if threads or generations are recorded: 2 to 6 ms
/// for a million blocks of 64 bytes.
pub fn for_each_block(mut visit: impl FnMut(LiveBlock)) {
    RECORDER.live.tend_if_due();
    if control::records().details() {
        RECORDER.live.for_each::<true>(|addr, trace, detail| {
            visit(LiveBlock::new(addr, trace, RECORDER.told(detail)));
        });
    } else {
        RECORDER.live.for_each::<false>(|addr, trace, detail| {
            visit(LiveBlock::new(addr, trace, detail));
        });
    }
}

/// Copies all traces as they were when memory was highest into `buffer`, if tracing was started with
/// [`crate::Options::peak_percent`].
///
/// The copy is forgotten when the peak is reset or traces are cleared, and when tracing stops. A forked
/// child begins with its parent's.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();
/// use memtrace_alloc::{Options, Peak};
///
/// memtrace_alloc::start_with(Options::new().peak_percent(1)).unwrap();
/// drop(std::hint::black_box(vec![0u8; 1_000_000]));
///
/// let mut buffer = memtrace_alloc::untraced(|| vec![0; 1000]);
/// loop {
///     match memtrace_alloc::copy_peak(&mut buffer) {
///         Peak::NoRoom { n_words } => {
///             memtrace_alloc::untraced(|| buffer.resize(n_words + n_words / 8, 0));
///         }
///         Peak::Copied(copy) => {
///             assert!(copy.traces().any(|trace| trace.size == 1_000_000));
///             break;
///         }
///         Peak::Now | Peak::NotKept => unreachable!("a megabyte was released"),
///     }
/// }
/// ```
///
/// **Cost**: copies 8 bytes a block, or 16; waits for a copy of the peak that is being made. While this
/// runs no other copy is made, so that a peak of this very moment may be missed.
pub fn copy_peak(buffer: &mut [u64]) -> Peak<'_> {
    let now = u64::try_from(RECORDER.totals.bytes()).unwrap_or(0);
    RECORDER.peak.lock().read(now, buffer)
}

/// Returns how many blocks there are, about: to reserve memory for [`for_each_block`].
pub fn n_traces() -> u64 {
    RECORDER.totals.n_blocks().saturating_add(RECORDER.tracked.lock().len() as u64)
}

/// Ends the current generation and returns its number: called just before a snapshot is copied.
///
/// Every block that was recorded before this call was born in the generation that ends, or in an
/// earlier one; every one whose recording begins after it, in a later one. A block that another thread
/// is recording at this very moment may be of the generation that ends and yet be missing from the
/// snapshot.
///
/// Numbers are counted up as long as the process lives, over stops, starts, clears and forks; the first
/// of a run of tracing is greater than the last of the run before. 0 is none.
///
/// **Cost**: one addition.
pub fn advance_generation() -> u32 {
    RECORDER.generations.advance()
}

/// Returns the number of the current generation; 0 before the first [`crate::start`].
pub fn generation() -> u32 {
    RECORDER.generations.current()
}

/// Returns the identity of this run of tracing, from one start to the next; 0 before the first.
///
/// Random: no other run of this process or any other has it, a forked child's included, whose
/// generations go different ways from its parent's.
pub fn run_id() -> u64 {
    RECORDER.generations.run_id()
}

/// Returns what is known of the thread that has a number; `None` if there is none.
pub fn thread_info(number: u32) -> Option<ThreadInfo> {
    RECORDER.threads.get(number)
}

/// Returns the highest number that a thread has: numbers go from 1 to this one.
pub fn n_threads() -> u32 {
    RECORDER.threads.n_threads()
}
