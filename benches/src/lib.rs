//! Workloads, and the harness that times them, for the table of what tracing costs.
//!
//! A [`Workload`] is a deterministic piece of work that allocates, and returns a checksum of what it
//! computed; a [`Shape`] is something to be kept live, to see what a tracer needs for it. Each
//! *configuration* is a small program that installs one allocator, reads a [`Request`] from its
//! arguments and prints a [`Measurement`], a [`Kept`] or a [`Count`] as a line of JSON: `untraced`,
//! `hooked`, `pooled`, `counting` and `least` (no tracer, but what none that is exact can leave out) in
//! `configurations/`, those of other tools in `peers/`.
//! `cargo xtask bench` runs them in turn and compares.
//!
//! The library depends on none of memtrace's crates, so every configuration times the same code. With
//! the feature `workloads`, which is on by default, it has what the workloads do; without it only what
//! the programs and `cargo xtask bench` tell each other.
//!
//! [`flat`] is the other question, whether the tracer's own memory stays flat under load that comes
//! and goes. [`analysis`] is a third one, how fast snapshots of a large heap are analysed. [`unwind`]
//! is what the contenders of `unwind/`, from allocation to call site, print, [`heap`] what the
//! allocators of `heap/` do.

#![forbid(unsafe_code)]

pub mod analysis;
pub mod flat;
pub mod heap;
mod measurement;
mod request;
pub mod resident;
mod sequence;
mod shape;
pub mod stopwatch;
pub mod unwind;
#[cfg(feature = "workloads")]
mod work;
mod workload;

pub use measurement::{Count, Kept, Latency, LineError, Measurement, Repeated, TracerFigures};
pub use request::{More, Request, RequestError, Task, Tracing};
pub use shape::{Shape, UnknownShape};
#[cfg(feature = "workloads")]
pub use work::{Input, InputError, RunError};
pub use workload::{Kind, UnknownWorkload, Workload};
