//! The workloads on jemalloc.

use std::error::Error;

#[global_allocator]
static ALLOC: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<(), Box<dyn Error>> {
    memtrace_bench_heap::main()
}
