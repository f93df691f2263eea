//! Views of a memtrace snapshot, and of a ledger, for other tools.
//!
//! Each view is a pure writer: a snapshot or a ledger, or what was computed from one, goes into any
//! [`std::io::Write`], and the same input always gives the same bytes.
//!
//! - [`folded`]: stacks as flame graph programs read them;
//! - [`json`]: statistics and differences for scripts;
//! - [`ledger`]: where the memory of the process is, for scripts.
//!
//! Writers make many small writes: give them something buffered.

#![forbid(unsafe_code)]

pub mod folded;
pub mod json;
pub mod ledger;
