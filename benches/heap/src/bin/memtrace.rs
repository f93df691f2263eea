//! The workloads on memtrace's heap.

use std::error::Error;

#[global_allocator]
static ALLOC: memtrace_heap::Heap = memtrace_heap::Heap::new(memtrace_heap::Config::new());

fn main() -> Result<(), Box<dyn Error>> {
    memtrace_bench_heap::main()
}
