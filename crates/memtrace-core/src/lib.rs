//! Snapshots of live memory: statistics, comparison, filters and text, with the semantics of
//! Python's `tracemalloc`.
//!
//! Plain data in, plain data out: this crate knows no allocator, no debug information, no process
//! and no clock. Somebody else walks the stacks and names the frames; here the result is kept,
//! grouped, compared, filtered, printed, saved and loaded.
//!
//! # From frames to a report
//!
//! 1. A [`SnapshotBuilder`] takes [`Frame`]s, stacks of frames, and one [trace](Trace) for each
//!    live block, and yields a [`Snapshot`]. Frames, strings and stacks are stored once; a trace
//!    usually costs 8 bytes.
//! 2. The snapshot's [`Attribution`] says which frame of a stack is "the line of your code".
//! 3. [`Snapshot::filter_traces`] keeps the traces that [`Filter`]s ask for.
//! 4. [`Snapshot::statistics`] and [`Snapshot::compare_to`] group by [`KeyType`] and sort.
//! 5. [`LeakSearch`] follows the groups through three or more snapshots and says which leak.
//! 6. [`report`] prints the first few groups, with source lines from a [`SourceCache`].
//! 7. [`Snapshot::dump`] and [`Snapshot::load`] keep a snapshot in a file.
//!
//! A [`Ledger`] stands beside all that: it says where the memory of the whole process is.
//!
//! ```
//! use memtrace_core::{Frame, KeyType, SnapshotBuilder, SourceCache, report};
//!
//! let mut builder = SnapshotBuilder::new(25);
//! let main = builder.frame(Frame::new("src/main.rs", 7).with_function("app::main"));
//! let insert = builder.frame(Frame::new("src/cache.rs", 42).with_function("app::cache::insert"));
//! let stack = builder.stack(&[insert, main], Some(2));
//! let before = builder.clone().finish();
//! builder.trace(0, 2048, stack);
//! let after = builder.finish();
//!
//! let diffs = after.compare_to(&before, KeyType::Lineno);
//! let mut text = String::new();
//! report::write_top(&mut text, &diffs, 10, &SourceCache::without_files()).unwrap();
//! assert_eq!(
//!     text,
//!     "2.00 new KiB, 2.00 total KiB, 1 new blocks, 1 total blocks\n  File \"src/cache.rs\", line 42\n\n"
//! );
//! ```
//!
//! Where the program was sampled, a snapshot knows its [period](Snapshot::sample_period); sums are estimates
//! then, with a [`SamplingError`], and texts say so. Nothing else is different.
//!
//! Sums saturate at `u64::MAX`, differences at `±i64::MAX`. All sizes are bytes as requested from
//! the allocator.

#![forbid(unsafe_code)]

mod attribution;
mod builder;
mod columns;
mod diff_sets;
mod estimate;
mod file;
mod filter;
mod filtering;
mod frame;
mod function_path;
mod generation;
mod group;
mod hidden;
mod joint;
mod key_type;
mod leak;
mod leak_verdict;
mod ledger;
mod missing_source;
mod module;
mod naming;
mod pattern;
mod python_repr;
pub mod report;
mod section;
mod size_text;
mod snapshot;
mod source_cache;
mod stack_table;
mod statistic;
mod suppression;
mod thread;
mod trace;
mod traceback;
mod trend;

pub use attribution::Attribution;
pub use builder::{FrameId, SnapshotBuilder, StackId, ThreadId};
pub use diff_sets::DiffSets;
pub use estimate::SamplingError;
pub use file::FileError;
pub use filter::{AnyFilter, DomainFilter, Filter};
pub use frame::Frame;
pub use generation::Generation;
pub use key_type::{KeyType, KeyTypeError, UnknownKeyType};
pub use leak::{LeakFindings, LeakSearch, LeakSearchError};
pub use leak_verdict::{LeakVerdict, SlopeUnit, Verdict};
pub use ledger::{Ledger, LedgerDiff, LedgerKind, LedgerLine, LedgerLineDiff};
pub use missing_source::MissingSource;
pub use module::Module;
pub use pattern::Pattern;
pub use section::{Section, set_analysis_section};
pub use size_text::{format_size, format_size_diff};
pub use snapshot::{SinceError, Snapshot, Traces};
pub use source_cache::SourceCache;
pub use statistic::{Statistic, StatisticDiff};
pub use suppression::{SuppressionError, SuppressionUse, Suppressions};
pub use thread::Thread;
pub use trace::Trace;
pub use traceback::{FrameIter, Traceback};
