//! Counts the allocations of one batch, by which the times of all configurations are divided.

use memtrace_benches::{Count, Request};
use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOC: Counting = Counting;

/// Relaxed: read when the threads that count have been joined.
static N_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with every allocation and reallocation counted.
struct Counting;

// SAFETY: every request goes unchanged to the system's allocator, and its answer back.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    let input = request.input()?;
    // The first batch may allocate what stays for the others.
    request.workload.run_batch(&input);
    let before = N_ALLOCATIONS.load(Relaxed);
    let checksum = request.workload.run_batch(&input);
    let n_allocations = N_ALLOCATIONS.load(Relaxed) - before;
    println!("{}", Count { checksum, n_allocations }.to_line());
    Ok(())
}
