//! One block of one size, allocated and freed again and again.

use crate::block::Block;
use crate::workload::{Effort, Outcome};
use memtrace_benches::stopwatch::Stopwatch;
use std::hint::black_box;

pub(crate) fn run<const SIZE: usize>(effort: Effort) -> Outcome {
    let stopwatch = Stopwatch::start();
    let mut checksum = 0;
    for i in 0..effort.n_operations {
        checksum += Block::new(black_box(SIZE), i as u32, effort.contents).free(effort.contents);
    }
    let n_operations = effort.n_operations;
    Outcome { elapsed: stopwatch.lap().elapsed, checksum, n_operations }
}
