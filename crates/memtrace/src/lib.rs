//! tracemalloc for Rust: which lines of your code hold memory, and what has grown, while the program
//! runs.
//!
//! ```
//! use memtrace::KeyType;
//!
//! #[global_allocator]
//! static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     memtrace::start(25)?;
//!     let first = memtrace::take_snapshot()?;
//!
//!     let kept: Vec<String> = (0..1000).map(|i| format!("entry number {i}")).collect();
//!
//!     let last = memtrace::take_snapshot()?;
//!     for stat in last.compare_to(&first, KeyType::Lineno).iter().take(10) {
//!         println!("{stat}");
//!     }
//!     # let grown = last.compare_to(&first, KeyType::Lineno);
//!     # assert_eq!(grown[0].count_diff, 1000);
//!     drop(kept);
//!     Ok(())
//! }
//! ```
//!
//! Every allocation of every thread is recorded, with up to [`traceback_limit`] frames of its stack,
//! in a default release build: no frame pointers, no compiler flags. While tracing is off, an
//! allocation costs one load and one branch more than without memtrace.
//!
//! To see files and lines and not functions alone, build with line tables:
//!
//! ```toml
//! [profile.release]
//! debug = "line-tables-only"
//! ```
//!
//! # Tracing
//!
//! [`start`], [`stop`], [`clear_traces`] and [`reset_peak`] may be called at any time from any
//! thread. Blocks from before [`start`] are not known; those that are resized later become known.
//! `MEMTRACE=25` in the environment starts tracing at the first allocation, before `main`.
//!
//! [`traced_memory`] gives the bytes traced now and at most, [`tracer_memory`] what the tracer needs
//! for itself, [`traceback_of`] the stack that allocated one block. Memory that no allocator sees is
//! told of with [`track`] and [`untrack`].
//!
//! # Snapshots
//!
//! [`take_snapshot`] copies all live traces, with names for their frames, into a [`Snapshot`]: plain
//! data that can be grouped ([`Snapshot::statistics`]), compared ([`Snapshot::compare_to`]),
//! filtered ([`Snapshot::filter_traces`]), and saved ([`Snapshot::dump`]). Its functions, orders and
//! texts are those of Python's `tracemalloc`.
//!
//! The program is never stopped for a snapshot. A block that is live from its beginning to its end
//! is in it; a block that is allocated or released meanwhile may or may not be. What the snapshot
//! itself allocates is in no snapshot.
//!
//! # The line of your code
//!
//! The newest frame of nearly every allocation lies in `alloc` or `std`. So that `raw_vec.rs` does
//! not get the blame, a snapshot groups by the newest frame that its [`Attribution`] does not hide:
//! by default, the newest one outside of Rust's own libraries, hashbrown and memtrace.
//!
//! ```
//! # #[global_allocator]
//! # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # memtrace::start(25)?;
//! use memtrace::{Attribution, Filter, KeyType};
//!
//! let snapshot = memtrace::take_snapshot()?;
//! // Blame only lines of the workspace that was built, never those of a dependency.
//! let mine = snapshot.with_attribution(Attribution::default().only_workspace());
//! // Leave out what tokio allocates for itself.
//! let rest = mine.filter_traces(&[Filter::exclude("*/tokio-*")]);
//! println!("{:?}", rest.statistics(KeyType::Filename).first());
//! # Ok(())
//! # }
//! ```
//!
//! # Other allocators
//!
//! [`Alloc::new`] wraps any `GlobalAlloc`, such as mimalloc, jemalloc, or [`heap::Heap`], the pooled
//! heap of this project, which explains its own memory. With [`Alloc::pooled`] that heap keeps the traces
//! beside its own records, which takes a third of the memory or less.

#![forbid(unsafe_code)]

mod border;
mod copied;
mod lent;
mod names;
mod pinned;
mod thread_names;

pub use border::{SnapshotError, peak_snapshot, take_raw_snapshot, take_snapshot, traceback_of};
pub use pinned::{
    PinnedMemory, PinnedMemoryError, PinningSite, Pins, pinned_memory, pinned_memory_by,
};

pub use memtrace_alloc::{
    Alloc, Losses, Options as Config, Pooled, StartError, Started, TracedMemory, TracerMemory,
    TrackError, clear_traces, is_tracing, reset_peak, start, start_with, stop, traceback_limit,
    traced_memory, tracer_memory, track, untraced, untrack,
};
pub use memtrace_core::{
    AnyFilter, Attribution, DiffSets, DomainFilter, FileError, Filter, Frame, Generation, KeyType,
    KeyTypeError, LeakFindings, LeakSearch, LeakSearchError, LeakVerdict, MissingSource, Module,
    SinceError, SlopeUnit, Snapshot, SourceCache, Statistic, StatisticDiff, SuppressionError,
    SuppressionUse, Suppressions, Thread, Trace, Traceback, UnknownKeyType, Verdict, report,
};
/// The pooled heap: blocks in pools in arenas, usable as the wrapped allocator or alone.
pub use memtrace_heap as heap;

/// The code in the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
