//! The global-allocator hook of memtrace and the recorder behind it.
//!
//! [`Alloc`] wraps any `GlobalAlloc`. While tracing is on, each block that it hands out is recorded
//! with its size and the stack that asked for it, and forgotten when it is given back. Programs use
//! this crate through the facade, `memtrace`, which adds names, snapshots and comparisons; what is
//! here works inside `malloc`, deals in addresses, and never allocates.
//!
//! The path of one allocation, in the order of the modules below: the **hook** calls the wrapped
//! allocator and, if tracing is on, the **recorder**, unless the **sampler** leaves the block out; the
//! **thread** guards against re-entry; the stack becomes a **site**, by what the thread remembers or by a
//! walk; the block goes into the **live table** (memory that the hook cannot see, into the table of **tracked**
//! memory) and its size into the **totals**. All tables lie in **mapped** memory of their own.
//!
//! # Laws of the hook
//!
//! 1. It never allocates through the traced allocator: its memory is mapped.
//! 2. It never panics: no indexing, unwrapping, unchecked arithmetic or formatting. In doubt it
//!    counts a loss in [`Losses`] and goes on: the user's allocation succeeds whatever happens here.
//! 3. It takes only its own leaf locks, one at a time, for bounded work, and none while it calls the
//!    wrapped allocator, user code or the loader. A stack and an address seen before take none. Where
//!    traces stand beside the blocks of a pooled heap, that of a directly mapped block is under the
//!    heap's lock, which is such a leaf. Once
//!    for each thread it asks the C library for the bounds of the stack, which may call `malloc`.
//! 4. The recorder is told of an allocation after the wrapped allocator returned, and of a release
//!    **before** the block is given back, since another thread may get that address at once. A
//!    `realloc` that fails leaves the record as it was.
//! 5. Thread state is const-initialised, has no destructor, and is read in a way that tolerates a
//!    dead thread. What captures remember is given back by a destructor of the C library's
//!    thread-specific data; they go on without it.
//! 6. Around a fork, all locks are taken in rank order before and released after, in parent and
//!    child. A signal that arrives inside the hook sees the guard: what it allocates goes straight
//!    to the wrapped allocator.
//! 7. A snapshot reserves its memory before it holds a lock, and never stops the world.
//!
//! # What a trace is
//!
//! As in CPython's tracemalloc: a block that was allocated, or last resized, while tracing was on.
//! Its size is what was requested; its site is the stack of that last call. Blocks from before
//! [`start`], and blocks forgotten by [`clear_traces`], are not known, and their release is ignored.

#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod array_memory;
mod c_library;
mod c_symbols;
mod control;
mod entry;
mod environment;
mod errno;
mod flat_shadow;
mod fork;
mod generation;
mod hook;
mod hook_frames;
mod lifetime;
mod live;
mod live_blocks;
mod live_samples;
mod lock;
mod mapped;
mod membarrier;
mod operation;
mod options;
mod pace;
mod page_array;
mod page_directory;
mod page_line;
mod page_mark;
mod page_shadow;
mod page_word;
mod peak;
mod platform;
mod pooled;
mod recorder;
mod sampled_pages;
mod sampler;
mod scratch;
mod segments;
mod site;
mod site_totals;
mod stacks;
mod state;
mod thread;
mod thread_slot;
mod thread_table;
mod totals;
mod tracked;

pub use c_library::{CLibraryMemory, c_library_memory};
pub use control::{
    StartError, Started, clear_traces, records_generations, records_threads, reset_peak,
    sample_period, start, start_with, stop,
};
pub use hook::Alloc;
pub use lifetime::Lifetimes;
pub use live::LiveBlock;
pub use live_blocks::{pooled_heap, site_of_word};
pub use mapped::resident_bytes;
pub use options::Options;
pub use peak::{Peak, PeakCopy, PeakTrace};
pub use pooled::Pooled;
pub use recorder::{
    Losses, TracerMemory, advance_generation, copy_peak, for_each_block, for_each_site_lifetimes,
    for_each_site_totals, generation, is_tracing, losses, n_threads, n_traces, run_id, site_frames,
    thread_info, trace_at, traceback_limit, traced_memory, tracer_memory,
};
pub use sampler::Sampler;
pub use site::{Site, SiteId};
pub use site_totals::SiteTotals;
pub use stacks::CallAddrs;
pub use thread::untraced;
pub use thread_table::ThreadInfo;
pub use totals::TracedMemory;
pub use tracked::{TrackError, TrackedTrace, copy_tracked, track, untrack};
