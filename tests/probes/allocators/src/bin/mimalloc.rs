//! The workload around mimalloc.

#[global_allocator]
static ALLOC: memtrace::Alloc<mimalloc::MiMalloc> = memtrace::Alloc::new(mimalloc::MiMalloc);

fn main() {
    allocators::run();
}
