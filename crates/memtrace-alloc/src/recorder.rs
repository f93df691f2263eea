//! The recorder: what happens to an allocation between the hook and the tables.
//!
//! [`allocation`], [`release`] and [`resize`] are what the hook calls. [`capture`] finds the site of the caller,
//! [`detail`] its thread and generation, [`insertion`] puts the trace into the tables; [`peaks`] copies all of
//! them when memory begins to shrink. What is there others ask of [`reading`], [`losses`](mod@losses) and
//! [`tracer_memory`](mod@tracer_memory).
//!
//! # The order of things
//!
//! A trace is put into the live table if tracing is still on, in an operation that whoever stops it waits for,
//! and added to the totals. Whoever takes a trace out of the table
//! subtracts it from the totals, and a trace can be taken out once: so table and totals agree as
//! soon as no thread is inside the hook, whatever starts, stops and clears there were.
//!
//! While tracing is sampled, the totals have for each recorded block what it stands for: a function of its
//! size and of the state that it was recorded in. [`crate::control`] says how whoever takes a trace out
//! knows that state. Memory that the program told of counts as it is.

mod allocation;
mod capture;
mod detail;
mod insertion;
mod losses;
mod peaks;
mod reading;
mod release;
mod resize;
mod tracer_memory;

pub(crate) use release::Released;

use crate::generation::Generations;
use crate::hook_frames::HookFrames;
use crate::live::LiveTable;
use crate::live_blocks::LiveBlocks;
use crate::lock::LeafLock;
use crate::peak::PeakKeeper;
use crate::site::Sites;
use crate::site_totals::TotalsBySite;
use crate::state::{Recording, State};
use crate::thread_table::ThreadTable;
use crate::totals::Totals;
use crate::tracked::{Tracked, TrackedTable};
use core::sync::atomic::AtomicU64;
pub use losses::{Losses, losses};
pub use reading::{
    advance_generation, copy_peak, for_each_block, for_each_site_lifetimes, for_each_site_totals,
    generation, is_tracing, n_threads, n_traces, run_id, site_frames, thread_info, trace_at,
    traceback_limit, traced_memory,
};
pub use tracer_memory::{TracerMemory, tracer_memory};

/// The one recorder of the process.
pub(crate) static RECORDER: Recorder = Recorder {
    live: LiveBlocks::new(),
    sites: Sites::new(),
    tracked: LeafLock::new(TrackedTable::new()),
    peak: LeafLock::new(PeakKeeper::new()),
    threads: ThreadTable::new(),
    generations: Generations::new(),
    totals: Totals::new(),
    by_site: TotalsBySite::new(),
    hook_frames: HookFrames::new(),
    track_frames: HookFrames::new(),
    n_blocks_without_record: AtomicU64::new(0),
    n_blocks_without_site: AtomicU64::new(0),
    n_blocks_without_detail: AtomicU64::new(0),
    n_nested: AtomicU64::new(0),
};

/// The tables, the totals, and counts of what was lost.
pub(crate) struct Recorder {
    pub(crate) live: LiveBlocks,
    pub(crate) sites: Sites,
    pub(crate) tracked: Tracked,
    pub(crate) peak: LeafLock<PeakKeeper>,
    threads: ThreadTable,
    pub(crate) generations: Generations,
    pub(crate) totals: Totals,
    pub(crate) by_site: TotalsBySite,
    hook_frames: HookFrames,
    /// The frames between [`track`](crate::track) and its caller.
    track_frames: HookFrames,
    n_blocks_without_record: AtomicU64,
    n_blocks_without_site: AtomicU64,
    n_blocks_without_detail: AtomicU64,
    n_nested: AtomicU64,
}

impl Recorder {
    /// Maps the first tables; `false` if there is no memory for them.
    pub(crate) fn prepare(&self) -> bool {
        self.live.prepare() && self.sites.prepare()
    }

    /// Empties the tables of traces, which were recorded in `state`.
    pub(crate) fn forget_all(&self, state: State) {
        self.live.clear(&mut |trace| {
            self.totals.remove(state.counted(trace.size));
        });
        self.tracked.lock().clear(|trace| {
            self.totals.remove(trace.size);
        });
    }

    /// Counts the totals anew from the tables. Called in a forked child, by its only thread, which
    /// holds all locks.
    pub(crate) fn recount(&self) {
        let state = State::now();
        let (mut n_blocks, mut bytes) = (0u64, 0u64);
        let mut count = |size: u64| {
            n_blocks = n_blocks.saturating_add(1);
            bytes = bytes.saturating_add(size);
        };
        self.live.for_each::<false>(|_, trace, _| count(state.counted(trace.size)));
        self.tracked.with_acquired(|table| table.for_each(&mut |trace| count(trace.size)));
        self.totals.set(n_blocks, bytes);
    }
}
