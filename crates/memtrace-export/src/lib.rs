//! Views of a memtrace snapshot for other tools.
//!
//! Each view is a pure writer: a snapshot, or what was computed from one, goes into any
//! [`std::io::Write`], and the same input always gives the same bytes.
//!
//! - [`folded`]: stacks as flame graph programs read them;
//! - [`json`]: statistics and differences for scripts.
//!
//! Writers make many small writes: give them something buffered.

#![forbid(unsafe_code)]

pub mod folded;
pub mod json;
