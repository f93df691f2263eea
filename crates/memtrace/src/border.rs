//! The border: where numbers that the recorder wrote inside `malloc` become a [`Snapshot`].
//!
//! # The order of things
//!
//! The traces are copied first, in one pass over the live table, as pairs of size and site number.
//! Only then are the sites' addresses named, each once, and stacks and traces handed to the builder.
//! All of it runs untraced: what is allocated here, and in the cache of names, is in no snapshot.

use crate::names::{Names, unknown_frame};
use hashbrown::HashMap;
use memtrace_alloc::{LiveTrace, SiteId, TrackedTrace, untraced};
use memtrace_core::{Frame, FrameId, Snapshot, SnapshotBuilder, StackId, Traceback};
use memtrace_unwind::End;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The domain of blocks of the global allocator.
const HEAP_DOMAIN: u32 = 0;

static NAMES: Mutex<Option<Names>> = Mutex::new(None);

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Tracing is off.
    #[error(
        "tracing is off: call memtrace::start(25), or set MEMTRACE=25 in the environment, first"
    )]
    NotTracing,
}

/// Takes a snapshot of all live traces.
///
/// The program runs on meanwhile; see the [crate's documentation](crate#snapshots) for what that
/// means.
///
/// **Cost**: one pass over the live table (about 10 ms for 100 MiB of heap), and for each address
/// seen for the first time, 5 to 50 µs to name it; the first snapshot of a
/// program reads its debug information. 16 bytes a trace.
///
/// **Errors**: if tracing is off.
pub fn take_snapshot() -> Result<Snapshot, SnapshotError> {
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(SnapshotError::NotTracing);
        }
        let live = copy_live();
        let tracked = copy_tracked();
        let mut stacks = Stacks::new(memtrace_alloc::traceback_limit());
        for trace in live {
            let stack = stacks.stack(trace.site);
            stacks.builder.trace(HEAP_DOMAIN, trace.size, stack);
        }
        for trace in tracked {
            let stack = stacks.stack(trace.site);
            stacks.builder.trace(trace.domain, trace.size, stack);
        }
        Ok(stacks.builder.finish())
    })
}

/// Returns the traceback of the block that starts at `block`, if it is traced.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// memtrace::start(25)?;
/// let block = Box::new(0u64);
/// let traceback = memtrace::traceback_of(&raw const *block).ok_or("not traced")?;
/// for line in traceback.format(None, true, &memtrace::SourceCache::new()) {
///     println!("{line}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: a look-up; naming the frames as for [`take_snapshot`].
pub fn traceback_of<T: ?Sized>(block: *const T) -> Option<Traceback> {
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return None;
        }
        let trace = memtrace_alloc::trace_at(block.cast::<u8>().addr() as u64)?;
        let Some(site) = memtrace_alloc::site_frames(trace.site) else {
            return Some(Traceback::new([unknown_frame()]));
        };
        let mut guard = names();
        let names = refreshed(&mut guard);
        let mut frames: Vec<Frame> = Vec::new();
        for &call_addr in site.call_addrs {
            frames.extend(names.frames_at(call_addr).iter().cloned());
        }
        frames.reverse();
        let traceback = Traceback::new(frames);
        Some(match total_nframe(traceback.len(), site.end) {
            Some(total) => traceback.with_total_nframe(total),
            None => traceback.with_unknown_depth(),
        })
    })
}

/// The stack depth to state for a stack of `n_frames`, if it is known.
fn total_nframe(n_frames: usize, end: End) -> Option<u16> {
    (end == End::Outermost).then(|| u16::try_from(n_frames).unwrap_or(u16::MAX))
}

fn copy_live() -> Vec<LiveTrace> {
    // Room for what is there and for what comes meanwhile, so that the scan seldom waits for memory.
    let n_expected = usize::try_from(memtrace_alloc::n_traces()).unwrap_or(0);
    let mut live = Vec::with_capacity(n_expected + n_expected / 8 + 1024);
    memtrace_alloc::for_each_trace(&mut |_, trace| live.push(trace));
    live
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

/// The process's names. A panic while they were used leaves them as they were: a cache.
fn names() -> MutexGuard<'static, Option<Names>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refreshed<'a>(guard: &'a mut MutexGuard<'static, Option<Names>>) -> &'a mut Names {
    let names = guard.get_or_insert_with(Names::new);
    names.refresh();
    names
}

/// Sites and addresses as one builder knows them.
struct Stacks {
    builder: SnapshotBuilder,
    by_site: HashMap<SiteId, StackId>,
    by_addr: HashMap<u64, Vec<FrameId>>,
    names: MutexGuard<'static, Option<Names>>,
}

impl Stacks {
    fn new(limit: u16) -> Self {
        let mut names = names();
        refreshed(&mut names);
        Self {
            builder: SnapshotBuilder::new(limit),
            by_site: HashMap::new(),
            by_addr: HashMap::new(),
            names,
        }
    }

    fn stack(&mut self, site: SiteId) -> StackId {
        if let Some(&stack) = self.by_site.get(&site) {
            return stack;
        }
        let stack = match memtrace_alloc::site_frames(site) {
            Some(found) => {
                let mut frames = Vec::new();
                for &call_addr in found.call_addrs {
                    frames.extend_from_slice(self.frames(call_addr));
                }
                self.builder.stack(&frames, total_nframe(frames.len(), found.end))
            }
            None => {
                let frame = self.builder.frame(unknown_frame());
                self.builder.stack(&[frame], Some(1))
            }
        };
        self.by_site.insert(site, stack);
        stack
    }

    fn frames(&mut self, call_addr: u64) -> &[FrameId] {
        let Self { builder, by_addr, names, .. } = self;
        by_addr.entry(call_addr).or_insert_with(|| {
            let names = names.get_or_insert_with(Names::new);
            names.frames_at(call_addr).iter().map(|frame| builder.frame(frame.clone())).collect()
        })
    }
}
