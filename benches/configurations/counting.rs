//! Counts the allocations of one batch, by which the times of all configurations are divided, or the
//! blocks that live while a shape is kept, by which their memory is.

use memtrace_benches::{Count, Input, Kept, Request, Task};
use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOC: Counting = Counting;

/// Relaxed: read when the threads that count have been joined.
static N_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Relaxed: read by the only thread that keeps anything.
static N_FREED: AtomicU64 = AtomicU64::new(0);
/// Relaxed, as above.
static N_RESIZED: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with every allocation, reallocation and release counted.
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
        N_FREED.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Relaxed);
        N_RESIZED.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    let count = match request.task {
        Task::Time(workload, _) | Task::Repeat(workload, _) => {
            let input = Input::read(workload, &request.inputs)?;
            // The first batch may allocate what stays for the others.
            if !workload.is_long() {
                workload.run_batch(&input);
            }
            let before = N_ALLOCATIONS.load(Relaxed);
            let checksum = workload.run_batch(&input);
            Count { checksum, n_allocations: N_ALLOCATIONS.load(Relaxed) - before }
        }
        Task::Keep(..) => {
            let before = n_live();
            let mut n_kept = 0;
            let line = request.run(|| {
                n_kept = n_live() - before;
                None
            })?;
            Count { checksum: Kept::from_output(&line)?.checksum, n_allocations: n_kept }
        }
    };
    println!("{}", count.to_line());
    Ok(())
}

/// Blocks allocated and not freed. A block that was resized is the block that it was.
fn n_live() -> u64 {
    N_ALLOCATIONS.load(Relaxed) - N_RESIZED.load(Relaxed) - N_FREED.load(Relaxed)
}
