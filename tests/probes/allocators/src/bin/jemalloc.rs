//! The workload around jemalloc.

#[global_allocator]
static ALLOC: memtrace::Alloc<tikv_jemallocator::Jemalloc> =
    memtrace::Alloc::new(tikv_jemallocator::Jemalloc);

fn main() {
    allocators::run();
}
