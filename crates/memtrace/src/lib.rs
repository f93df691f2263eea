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
//! `MEMTRACE=25` in the environment starts tracing at the first allocation, before `main`;
//! `MEMTRACE=25,sample_every=512K` in samples (`K`, `M` and `G` are powers of 1024 bytes).
//!
//! [`traced_memory`] gives the bytes traced now and at most, [`tracer_memory`] what the tracer needs
//! for itself, [`traceback_of`] the stack that allocated one block. Memory that no allocator sees is
//! told of with [`track`] and [`untrack`].
//!
//! Where every allocation is too many, [`Config::sample_every`] records one in so many bytes, and all
//! blocks of that size or more. Sums are estimates then, and say how far they may be off
//! ([`SamplingError`]):
//!
//! ```
//! # #[global_allocator]
//! # static ALLOC: memtrace::Alloc = memtrace::Alloc::system();
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use memtrace::{Config, KeyType};
//!
//! memtrace::start_with(Config::new().frames(25).sample_every(16 * 1024))?;
//! let kept: Vec<String> = (0..100_000).map(|i| format!("entry number {i}")).collect();
//! let snapshot = memtrace::take_snapshot()?;
//! for stat in snapshot.top(KeyType::Lineno, 3) {
//!     // src/main.rs:5: size≈1690 KiB (±322 KiB), count≈99876 (±19044), average≈17 B
//!     println!("{stat}");
//! }
//! # let lower = *snapshot.statistics(KeyType::Lineno)[0].size_interval().start();
//! # assert!(lower > 0 && snapshot.sample_period().is_some());
//! # drop(kept);
//! # Ok(())
//! # }
//! ```
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
//! # Where the memory of the process is
//!
//! A snapshot tells who holds what was asked for. Whether a process is as large as it is for that reason,
//! or because its allocator keeps half-empty pages, tells a [`Ledger`]: [`ledger_of`] for the pooled heap,
//! exactly, page by page; [`ledger`] for the C library's allocator and [`ledger_with`] for others, as
//! far as they know. Its lines sum to what the system says is resident. Here every second of 140,000
//! blocks was freed, and the process stayed as large as before:
//!
//! ```text
//! resident                75.22 MiB
//!   live                  36.58 MiB   48.6 %
//!   rounding               0.80 MiB    1.1 %  of 1.10 MiB in its books
//!   free in pools         34.23 MiB   45.5 %  of 34.94 MiB in its books
//!   unused units           0.00 MiB    0.0 %  of 31.38 MiB in its books
//!   heap's records         1.38 MiB    1.8 %  of 1.51 MiB in its books
//!   C library: in use      0.00 MiB    0.0 %  at most
//!   C library: free        0.13 MiB    0.2 %  at most
//!   tracer                 0.00 MiB    0.0 %
//!   code and files         2.11 MiB    2.8 %
//!   unaccounted           -0.02 MiB    0.0 %
//! ```
//!
//! What stands before the notes is resident; books are in bytes of address space, of which pages never
//! touched take no memory. "At most" are figures of somebody who does not know what is resident: what
//! they say too much is missing from the last line, which also has the stacks of threads, variables of
//! modules, and memory that was mapped past all allocators. [`Ledger::compare_to`] tells what has grown.
//!
//! # Other allocators
//!
//! [`Alloc::new`] wraps any `GlobalAlloc`, such as mimalloc, jemalloc, or [`heap::Heap`], the pooled
//! heap of this project, which explains its own memory. With [`Alloc::pooled`] that heap keeps the traces
//! beside its own records, which takes a third of the memory or less.

#![forbid(unsafe_code)]

mod border;
mod churn;
mod copied;
mod ledger;
mod lent;
mod names;
mod pinned;
mod resident;
mod thread_names;

pub use border::{SnapshotError, peak_snapshot, take_raw_snapshot, take_snapshot, traceback_of};
pub use churn::{ChurnError, ChurnStatistic, churn, churn_by};
pub use ledger::{LedgerError, ledger, ledger_of, ledger_with};
pub use pinned::{
    PinnedMemory, PinnedMemoryError, PinningSite, Pins, pinned_memory, pinned_memory_by,
};

pub use memtrace_alloc::{
    Alloc, Lifetimes, Losses, Options as Config, Pooled, StartError, Started, TracedMemory,
    TracerMemory, TrackError, clear_traces, is_tracing, reset_peak, sample_period, start,
    start_with, stop, traceback_limit, traced_memory, tracer_memory, track, untraced, untrack,
};
pub use memtrace_core::{
    AnyFilter, Attribution, DiffSets, DomainFilter, FileError, Filter, Frame, Generation, KeyType,
    KeyTypeError, LeakFindings, LeakSearch, LeakSearchError, LeakVerdict, Ledger, LedgerDiff,
    LedgerKind, LedgerLine, LedgerLineDiff, MissingSource, Module, SamplingError, SinceError,
    SlopeUnit, Snapshot, SourceCache, Statistic, StatisticDiff, SuppressionError, SuppressionUse,
    Suppressions, Thread, Trace, Traceback, UnknownKeyType, Verdict, report,
};
/// The pooled heap: blocks in pools in arenas, usable as the wrapped allocator or alone.
pub use memtrace_heap as heap;

/// The code in the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
