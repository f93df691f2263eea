//! memtrace's heap as the global allocator of programs, beside glibc's, mimalloc and jemalloc.
//!
//! ```text
//! ALLOCATOR names          the workloads, one a line
//! ALLOCATOR run NAME       checks and times one; prints its figures as JSON
//! ```
//!
//! ALLOCATOR is one of the programs in `src/bin`, which differ in one line, that of the global
//! allocator. `cargo xtask bench heap` builds them as a user builds a program (release profile, no
//! link-time optimisation, no feature of a peer that would slow it down), runs them in turn, each
//! workload in a process of its own, and compares.
//!
//! # How a workload is measured
//! It is first run with a part of its operations, and every `Block` is written in
//! whole when it is allocated, and compared in whole when it is freed: two blocks that overlap, or
//! contents that get lost, end the program. Then it is run again and timed, with a number of
//! operations that is fixed and the same for all allocators; now only the first word and the last
//! byte of a block are written and compared, as a program writes what it asked for. What it computes
//! is summed up, and the sums must agree among the allocators.
//!
//! A workload of one thread is timed without the time in which it waited for a CPU; one of several
//! threads by the clock, since there the allocator may be what a thread waits for.
//!
//! # The workloads
//! - `pair`: one block of one size, again and again: the shortest path.
//! - `table`: random replacement in a table of live blocks, small and mixed, or large.
//! - `server`: threads that inherit blocks from threads that ended.
//! - `handover`: blocks that another thread frees than the one that allocated them.
//! - `growth`: vectors and strings that grow; zeroed blocks of which little is touched.
//! - `programs`: a JSON document and an index of strings, as real code has them.
//! - `burst`: not the time but the memory that is left after many blocks came and went.

#![deny(unsafe_code)]

mod program;
mod workload;

mod burst;
mod growth;
mod handover;
mod pair;
mod programs;
mod server;
mod table;

mod block;
mod random;
mod sizes;

pub use program::main;
