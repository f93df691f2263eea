//! The workload around the system's allocator.

#[global_allocator]
static ALLOC: memtrace::Alloc<std::alloc::System> = memtrace::Alloc::new(std::alloc::System);

fn main() {
    allocators::run();
}
