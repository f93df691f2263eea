//! The border: where numbers that the recorder wrote inside `malloc` become a [`Snapshot`].
//!
//! # The order of things
//!
//! The traces are copied first, in one pass over the live table, as pairs of size and site number.
//! Only then are the sites' addresses named, each once in the life of the process, and stacks and
//! traces handed to the builder. All of it runs untraced: what is allocated here, and what is kept
//! for the next snapshot, is in no snapshot.

use crate::copied::{CopiedTraces, HEAP_DOMAIN, PeakTraces, SingleTrace};
use crate::lent::{Lent, Loan};
use crate::names::{Names, unknown_frame};
use crate::thread_names::ThreadNames;
use hashbrown::HashMap;
use memtrace_alloc::{SiteId, untraced};
use memtrace_core::{
    Frame, FrameId, Generation, Snapshot, SnapshotBuilder, StackId, Thread, ThreadId, Traceback,
    set_analysis_section,
};
use memtrace_unwind::End;

static KNOWN: Lent<Known> = Lent::empty();

/// Why there is no snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Tracing is off.
    #[error(
        "tracing is off: call memtrace::start(25), or set MEMTRACE=25 in the environment, first"
    )]
    NotTracing,
    /// Nobody asked to keep the traces of the peak.
    #[error(
        "the peak was not kept: start with memtrace::start_with(Config::new().peak_percent(1))"
    )]
    PeakNotKept,
}

/// Takes a snapshot of all live traces.
///
/// The program runs on meanwhile; see the [crate's documentation](crate#snapshots) for what that
/// means.
///
/// **Cost**: one pass over the live table (a few milliseconds for a million blocks), and for each
/// address seen for the first time, 5 to 50 µs to name it; the first snapshot of a program reads its
/// debug information. 8 bytes a trace; and every frame and stack that the process has met so far,
/// shared with the snapshot before if no new one was met in between: with 100,000 stacks of 25 frames
/// some 12 MB, for each snapshot that is kept.
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

/// Returns a snapshot of all traces as they were when memory was highest, since tracing started or
/// since [`reset_peak`](crate::reset_peak).
///
/// To be asked for beforehand, with [`Config::peak_percent`](crate::Config::peak_percent), which says
/// how near to the peak it is. It belongs to no generation.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use memtrace::{Config, KeyType};
///
/// memtrace::start_with(Config::new().frames(25).peak_percent(1))?;
/// let report = vec![0u8; 10_000_000];
/// drop(report);
/// let peak = memtrace::peak_snapshot()?;
/// assert!(peak.total_size() >= 10_000_000);
/// println!("{}", peak.top(KeyType::Lineno, 1)[0]);
/// # Ok(())
/// # }
/// ```
///
/// **Cost**: like [`take_snapshot`]; nothing is scanned.
///
/// **Errors**: if tracing is off, or was not asked to keep the peak.
pub fn peak_snapshot() -> Result<Snapshot, SnapshotError> {
    set_analysis_section(|work| untraced(work));
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(SnapshotError::NotTracing);
        }
        let copied = match CopiedTraces::of_peak() {
            PeakTraces::NotKept => return Err(SnapshotError::PeakNotKept),
            PeakTraces::Now => CopiedTraces::of_now(),
            PeakTraces::Copied(copied) => copied,
        };
        let mut known = known();
        let stacks = known.with_traces(copied, Naming::Now);
        stacks.builder.set_generation(None);
        Ok(stacks.builder.snapshot())
    })
}

fn snapshot_with(naming: Naming) -> Result<Snapshot, SnapshotError> {
    // What statistics and files of this snapshot need is in no later snapshot.
    set_analysis_section(|work| untraced(work));
    untraced(|| {
        if !memtrace_alloc::is_tracing() {
            return Err(SnapshotError::NotTracing);
        }
        let run = memtrace_alloc::run_id();
        let has_births = memtrace_alloc::records_generations();
        // Blocks that are allocated from here on belong to the next generation, though this snapshot
        // may hold some of them.
        let generation = memtrace_alloc::advance_generation();
        let copied = CopiedTraces::of_now();
        // Unless tracing was started anew meanwhile: then traces of two runs may be among these.
        let is_one_run = memtrace_alloc::run_id() == run;
        let mut known = known();
        let stacks = known.with_traces(copied, naming);
        let generation =
            (has_births && is_one_run).then_some(Generation { run, number: generation });
        stacks.builder.set_generation(generation);
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
        Some(traceback_of_site(trace.site, &mut known().names))
    })
}

/// Returns the tracebacks of sites.
pub(crate) fn tracebacks_of(sites: &[SiteId]) -> Vec<Traceback> {
    let mut known = known();
    sites.iter().map(|&site| traceback_of_site(site, &mut known.names)).collect()
}

fn traceback_of_site(site: SiteId, names: &mut Names) -> Traceback {
    let Some(site) = memtrace_alloc::site_frames(site) else {
        return Traceback::new([unknown_frame()]);
    };
    let mut frames: Vec<Frame> = Vec::new();
    for call_addr in site.call_addrs() {
        frames.extend(names.frames_at(call_addr).iter().cloned());
    }
    frames.reverse();
    let traceback = Traceback::new(frames);
    match total_nframe(traceback.len(), site.end) {
        Some(total) => traceback.with_total_nframe(total),
        None => traceback.with_unknown_depth(),
    }
}

/// The stack depth to state for a stack of `n_frames`, if it is known.
fn total_nframe(n_frames: usize, end: End) -> Option<u16> {
    (end == End::Outermost).then(|| u16::try_from(n_frames).unwrap_or(u16::MAX))
}

/// What the process knows of its sites, after a look at what is loaded now.
fn known() -> Loan<'static, Known> {
    let mut known = KNOWN.take_or_make(Known::new);
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
    thread_names: ThreadNames,
}

impl Known {
    fn new() -> Self {
        Self {
            names: Names::new(),
            named: Stacks::new(Naming::Now),
            raw: Stacks::new(Naming::Later),
            thread_names: ThreadNames::default(),
        }
    }

    /// Adds traces to the next snapshot of a kind, and returns the stacks that it is made with.
    fn with_traces(&mut self, copied: CopiedTraces, naming: Naming) -> &mut Stacks {
        let stacks = match naming {
            Naming::Now => &mut self.named,
            Naming::Later => &mut self.raw,
        };
        stacks.add_traces(copied, &mut self.names, &mut self.thread_names);
        stacks.builder.set_traceback_limit(memtrace_alloc::traceback_limit());
        stacks.builder.set_sample_period(memtrace_alloc::sample_period());
        stacks
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
                for call_addr in found.call_addrs() {
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

    /// Adds a trace for each that was copied.
    fn add_traces(
        &mut self,
        copied: CopiedTraces,
        names: &mut Names,
        thread_names: &mut ThreadNames,
    ) {
        thread_names.refresh();
        let (blocks, others) = if copied.is_plain() {
            let CopiedTraces { sizes, sites, others, .. } = copied;
            // In the memory of the sites.
            let stacks = sites.into_iter().map(|site| self.learn(site, names)).collect();
            self.builder.trace_columns(HEAP_DOMAIN, sizes, stacks);
            (None, others)
        } else {
            (Some(copied.blocks()), copied.others.clone())
        };
        let mut threads = HashMap::new();
        for trace in blocks.into_iter().flatten().chain(others) {
            let stack = self.learn(trace.site, names);
            let thread = thread_id(&mut self.builder, &mut threads, thread_names, trace.thread);
            let birth = birth_of(trace.birth);
            let SingleTrace { domain, size, .. } = trace;
            if trace.is_tracked {
                self.builder.certain_trace_of(domain, size, stack, thread, birth);
            } else {
                self.builder.trace_of(domain, size, stack, thread, birth);
            }
        }
    }
}

/// The recorder's 0 is an unknown birth.
fn birth_of(birth: u32) -> Option<u32> {
    (birth != 0).then_some(birth)
}

/// The builder's thread for the recorder's number, of which 0 is an unknown one.
fn thread_id(
    builder: &mut SnapshotBuilder,
    threads: &mut HashMap<u32, Option<ThreadId>>,
    thread_names: &mut ThreadNames,
    number: u32,
) -> Option<ThreadId> {
    *threads.entry(number).or_insert_with(|| {
        let info = memtrace_alloc::thread_info(number)?;
        let name = thread_names.name_of(&info);
        Some(builder.thread(Thread::new(number, info.os_id, name)))
    })
}
