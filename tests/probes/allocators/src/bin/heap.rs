//! The workload around the pooled heap of memtrace.

#[global_allocator]
static ALLOC: memtrace::Alloc<memtrace::heap::Heap> =
    memtrace::Alloc::new(memtrace::heap::Heap::new(memtrace::heap::Config::new()));

fn main() {
    allocators::run();
}
