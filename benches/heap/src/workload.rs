//! All workloads, and how one is measured.

use crate::block::Contents;
use crate::burst::{self, End};
use crate::{growth, handover, pair, programs, server, table};
use memtrace_benches::heap::Figures;
use std::io;
use std::time::Duration;

/// A part of the operations that is checked in whole before all are timed: one in so many.
const CHECKED_PART: u64 = 8;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// At least.
    pub(crate) n_operations: u64,
    pub(crate) contents: Contents,
}

/// What was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) n_operations: u64,
    pub(crate) elapsed: Duration,
    pub(crate) checksum: u64,
}

/// A piece of work that is the same under all allocators.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// What one operation is.
    unit: &'static str,
    question: Question,
}

/// What a workload asks.
enum Question {
    /// How long so many operations take: some 100 ms under a good allocator.
    Time(u64, fn(Effort) -> Outcome),
    /// What is resident after a burst in so many threads.
    Memory(usize, End),
}

impl Workload {
    pub(crate) const ALL: &[Self] = &[
        Self::time("pair-16", "pair", 10_000_000, pair::run::<16>),
        Self::time("pair-32", "pair", 10_000_000, pair::run::<32>),
        Self::time("pair-64", "pair", 10_000_000, pair::run::<64>),
        Self::time("pair-256", "pair", 10_000_000, pair::run::<256>),
        Self::time("pair-1024", "pair", 10_000_000, pair::run::<1024>),
        Self::time("table-mixed", "replacement", 1_000_000, table::mixed),
        Self::time("table-large", "replacement", 50_000, table::large),
        Self::time("server-2", "replacement", 2_000_000, server::run::<2>),
        Self::time("server-4", "replacement", 2_000_000, server::run::<4>),
        Self::time("ring-16", "block", 500_000, handover::one_way::<16>),
        Self::time("ring-1024", "block", 500_000, handover::one_way::<1024>),
        Self::time("swap", "block", 1_000_000, handover::both_ways),
        Self::time("vectors-1k", "vector", 200_000, growth::vectors::<{ 1 << 10 }, 256>),
        Self::time("vectors-64k", "vector", 3_000, growth::vectors::<{ 64 << 10 }, 64>),
        Self::time("vectors-16m", "vector", 8, growth::vectors::<{ 16 << 20 }, 4>),
        Self::time("strings", "string", 200_000, growth::strings),
        Self::time("zeroed-1m", "block", 3_000, growth::zeroed),
        Self::time("json", "document", 8, programs::json),
        Self::time("index", "order", 300_000, programs::index),
        Self::memory("burst", 1, End::All),
        Self::memory("burst-4", 4, End::All),
        Self::memory("burst-left", 1, End::ButATenth),
    ];

    const fn time(
        name: &'static str,
        unit: &'static str,
        n_operations: u64,
        run: fn(Effort) -> Outcome,
    ) -> Self {
        Self { name, unit, question: Question::Time(n_operations, run) }
    }

    const fn memory(name: &'static str, n_threads: usize, end: End) -> Self {
        Self { name, unit: "burst", question: Question::Memory(n_threads, end) }
    }

    /// Checks it, then measures it.
    ///
    /// **Errors**: if the kernel does not tell what is resident.
    ///
    /// **Panics**: if contents are not what was written.
    pub(crate) fn measure(&self) -> io::Result<Figures> {
        let (workload, unit) = (self.name.to_owned(), self.unit.to_owned());
        match self.question {
            Question::Time(n_operations, run) => {
                let n_checked = n_operations / CHECKED_PART;
                let checked = run(Effort { n_operations: n_checked, contents: Contents::Whole });
                let timed = run(Effort { n_operations, contents: Contents::Ends });
                let ns = timed.elapsed.as_secs_f64() * 1e9 / timed.n_operations as f64;
                Ok(Figures {
                    workload,
                    unit,
                    checksum: checked.checksum.wrapping_add(timed.checksum),
                    n_operations: timed.n_operations,
                    ns: Some(ns),
                    memory: None,
                })
            }
            Question::Memory(n_threads, end) => {
                let (memory, checksum) = burst::run(n_threads, end)?;
                let memory = Some(memory);
                Ok(Figures { workload, unit, checksum, n_operations: 1, ns: None, memory })
            }
        }
    }
}
