//! The border: where numbers that the recorder wrote inside `malloc` become a [`Snapshot`].
//!
//! # The order of things
//!
//! The traces are copied first, in one pass over the live table, as pairs of size and site number.
//! Only then are the sites' addresses named, each once in the life of the process, and stacks and
//! traces handed to the builder. All of it runs untraced: what is allocated here, and what is kept
//! for the next snapshot, is in no snapshot.

use crate::names::{Names, unknown_frame};
use hashbrown::HashMap;
use memtrace_alloc::{LiveBlock, SiteId, TrackedTrace, untraced};
use memtrace_core::{
    Frame, FrameId, Snapshot, SnapshotBuilder, StackId, Traceback, set_analysis_section,
};
use memtrace_unwind::End;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The domain of blocks of the global allocator.
const HEAP_DOMAIN: u32 = 0;

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

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
/// **Cost**: one pass over the live table (a few milliseconds for a million blocks), and for each
/// address seen for the first time, 5 to 50 µs to name it; the first snapshot of a program reads its
/// debug information. 8 bytes a trace; frames and stacks are shared by all snapshots of the
/// process.
///
/// **Errors**: if tracing is off.
pub fn take_snapshot() -> Result<Snapshot, SnapshotError> {
    snapshot_with(Naming::Now)
}

/// Takes a snapshot of all live traces without naming anything: each frame is a module and an
/// address in it.
///
/// For programs that have no time to read debug information, or none to read. Save it with
/// [`Snapshot::dump`], and name it where the program and its libraries are, with
/// `memtrace name SNAPSHOT` or [`Snapshot::name_frames`]. Until then there are no functions, no
/// inlined frames, and no files; the module is known, and so is the thread.
///
/// **Cost**: like [`take_snapshot`], without the naming.
///
/// **Errors**: if tracing is off.
pub fn take_raw_snapshot() -> Result<Snapshot, SnapshotError> {
    snapshot_with(Naming::Later)
}

fn snapshot_with(naming: Naming) -> Result<Snapshot, SnapshotError> {
    // What statistics and files of this snapshot need is in no later snapshot.
    set_analysis_section(|work| untraced(work));
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(SnapshotError::NotTracing);
        }
        let live = copy_live();
        let tracked = copy_tracked();
        let mut guard = known();
        let Known { names, named, raw } = refreshed(&mut guard);
        let stacks = match naming {
            Naming::Now => named,
            Naming::Later => raw,
        };
        for trace in &live {
            stacks.learn(trace.site, names);
        }
        stacks.add_traces(HEAP_DOMAIN, &live, names);
        for trace in tracked {
            let stack = stacks.learn(trace.site, names);
            stacks.builder.trace(trace.domain, trace.size, stack);
        }
        stacks.builder.set_traceback_limit(memtrace_alloc::traceback_limit());
        Ok(stacks.builder.snapshot())
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
        let mut guard = known();
        let names = &mut refreshed(&mut guard).names;
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

fn copy_live() -> Vec<LiveBlock> {
    // Room for what is there and for what comes meanwhile, so that the scan seldom waits for memory.
    let n_expected = usize::try_from(memtrace_alloc::n_traces()).unwrap_or(0);
    let mut live = Vec::with_capacity(n_expected + n_expected / 8 + 1024);
    memtrace_alloc::for_each_block(|block| live.push(block));
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

/// What the process knows of its sites. A panic while it was used leaves it as it was: a cache.
fn known() -> MutexGuard<'static, Option<Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refreshed<'a>(guard: &'a mut MutexGuard<'static, Option<Known>>) -> &'a mut Known {
    let known = guard.get_or_insert_with(Known::new);
    if known.names.refresh() {
        // What was made of names that may be wrong now.
        known.named = Stacks::new(Naming::Now);
        known.raw = Stacks::new(Naming::Later);
    }
    known
}

/// Names, and the stacks that were made of them, for all snapshots of the process.
struct Known {
    names: Names,
    named: Stacks,
    raw: Stacks,
}

impl Known {
    fn new() -> Self {
        Self {
            names: Names::new(),
            named: Stacks::new(Naming::Now),
            raw: Stacks::new(Naming::Later),
        }
    }
}

/// When frames get their names.
#[derive(Clone, Copy, Debug)]
enum Naming {
    /// When they are first seen.
    Now,
    /// When somebody names the snapshot: until then they are addresses.
    Later,
}

/// Sites as the stacks of one builder.
struct Stacks {
    naming: Naming,
    builder: SnapshotBuilder,
    /// By site number.
    by_site: Vec<Option<StackId>>,
    by_addr: HashMap<u64, Box<[FrameId]>>,
}

impl Stacks {
    fn new(naming: Naming) -> Self {
        let builder = SnapshotBuilder::new(0);
        Self { naming, builder, by_site: Vec::new(), by_addr: HashMap::new() }
    }

    /// Returns the stack of a site, making it the first time.
    #[inline]
    fn learn(&mut self, site: SiteId, names: &mut Names) -> StackId {
        match self.by_site.get(site.get() as usize) {
            Some(&Some(stack)) => stack,
            _ => self.make_stack(site, names),
        }
    }

    #[cold]
    fn make_stack(&mut self, site: SiteId, names: &mut Names) -> StackId {
        let stack = match memtrace_alloc::site_frames(site) {
            Some(found) => {
                let mut frames = Vec::new();
                for &call_addr in found.call_addrs {
                    frames.extend_from_slice(self.frames(call_addr, names));
                }
                self.builder.stack(&frames, total_nframe(frames.len(), found.end))
            }
            None => {
                let frame = self.builder.frame(unknown_frame());
                self.builder.stack(&[frame], Some(1))
            }
        };
        let number = site.get() as usize;
        if number >= self.by_site.len() {
            self.by_site.resize(number + 1, None);
        }
        self.by_site[number] = Some(stack);
        stack
    }

    fn frames(&mut self, call_addr: u64, names: &mut Names) -> &[FrameId] {
        let Self { naming, builder, by_addr, .. } = self;
        by_addr.entry(call_addr).or_insert_with(|| match naming {
            Naming::Now => {
                let frames = names.frames_at(call_addr).iter();
                frames.map(|frame| builder.frame(frame.clone())).collect()
            }
            Naming::Later => [builder.frame(names.unnamed_frame_at(call_addr))].into(),
        })
    }

    /// Adds traces whose sites are all known.
    fn add_traces(&mut self, domain: u32, live: &[LiveBlock], names: &mut Names) {
        let unknown = self.learn(SiteId::UNKNOWN, names);
        let Self { builder, by_site, .. } = self;
        let known = |trace: &LiveBlock| {
            let stack = by_site.get(trace.site.get() as usize).copied().flatten();
            (trace.size, stack.unwrap_or(unknown))
        };
        builder.traces(domain, live.iter().map(known));
    }
}
