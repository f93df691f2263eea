//! Threads that serve for a while and end; each has a successor that inherits its blocks.
//!
//! After Larson and Krishnan, "Memory allocation for long-running server applications", 1998.

use crate::sizes::Sizes;
use crate::table::Table;
use crate::workload::{Effort, Outcome};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::Instant;

const N_SLOTS: usize = 2_000;
/// Replacements in the life of one thread.
const N_IN_LIFE: u64 = 10_000;

/// What the generations of threads share.
struct Service {
    sizes: Sizes,
    effort: Effort,
    checksum: AtomicU64,
}

pub(crate) fn run<const N_THREADS: u64>(effort: Effort) -> Outcome {
    let service = &Service { sizes: Sizes::small(), effort, checksum: AtomicU64::new(0) };
    let tables: Vec<Table> = (0..N_THREADS)
        .map(|seed| Table::new(N_SLOTS, seed, &service.sizes, effort.contents))
        .collect();
    let n_left = effort.n_operations.div_ceil(N_THREADS);
    let start = Instant::now();
    thread::scope(|scope| {
        for table in tables {
            scope.spawn(move || service.serve(scope, table, n_left));
        }
    });
    let elapsed = start.elapsed();
    let checksum = service.checksum.load(Ordering::Relaxed);
    Outcome { elapsed, checksum, n_operations: n_left * N_THREADS }
}

impl Service {
    fn serve<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        mut table: Table,
        n_left: u64,
    ) {
        let contents = self.effort.contents;
        let mut checksum = 0;
        for _ in 0..n_left.min(N_IN_LIFE) {
            checksum += table.replace(&self.sizes, contents);
        }
        if n_left > N_IN_LIFE {
            scope.spawn(move || self.serve(scope, table, n_left - N_IN_LIFE));
        } else {
            checksum += table.free(contents);
        }
        // Relaxed: it is read after all threads were joined.
        self.checksum.fetch_add(checksum, Ordering::Relaxed);
    }
}
