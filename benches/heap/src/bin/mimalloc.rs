//! The workloads on mimalloc.

use std::error::Error;

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    memtrace_bench_heap::main()
}
