//! The workloads on the C library's.

use std::error::Error;

#[global_allocator]
static ALLOC: std::alloc::System = std::alloc::System;

fn main() -> Result<(), Box<dyn Error>> {
    memtrace_bench_heap::main()
}
