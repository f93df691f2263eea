//! The system's pages, used again by the next heap: most of a short-lived heap's time goes into mapping.

use std::sync::Mutex;

use memtrace_heap::{PageSource, SystemPages};

/// Mappings of one kind that wait for the next heap.
const MAX_WAITING: usize = 8;

/// A mapping that waits, all zero.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Waiting {
    addr: usize,
    size: usize,
}

/// For blocks.
static FOR_BLOCKS: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());
/// For records.
static FOR_RECORDS: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

/// A page source.
pub struct Recycled;

fn take(waiting: &Mutex<Vec<Waiting>>, size: usize, align: usize) -> Option<*mut u8> {
    let mut waiting = waiting.lock().expect("nothing fails here");
    let fits = |mapping: &Waiting| mapping.size == size && mapping.addr % align == 0;
    let at = waiting.iter().position(fits)?;
    Some(std::ptr::with_exposed_provenance_mut(waiting.swap_remove(at).addr))
}

/// Keeps a mapping, unless enough wait; says whether it does.
fn keep(waiting: &Mutex<Vec<Waiting>>, ptr: *mut u8, size: usize) -> bool {
    let mut waiting = waiting.lock().expect("nothing fails here");
    let has_room = waiting.iter().filter(|mapping| mapping.size == size).count() < MAX_WAITING
        && waiting.len() < 8 * MAX_WAITING;
    if has_room {
        waiting.push(Waiting { addr: ptr.expose_provenance(), size });
    }
    has_room
}

// SAFETY: all memory is the system's, and zero when it is handed out again.
unsafe impl PageSource for Recycled {
    // What is kept here are whole mappings, which may be given back to the system as well.
    const IS_SYSTEM: bool = true;

    fn map(&self, size: usize, align: usize) -> *mut u8 {
        take(&FOR_BLOCKS, size, align).unwrap_or_else(|| SystemPages.map(size, align))
    }

    unsafe fn unmap(&self, ptr: *mut u8, size: usize) {
        // SAFETY: a whole mapping that nobody uses any more; zero afterwards.
        let is_zero = unsafe { SystemPages.discard(ptr, size) };
        if !is_zero || !keep(&FOR_BLOCKS, ptr, size) {
            // SAFETY: as above.
            unsafe { SystemPages.unmap(ptr, size) };
        }
    }

    unsafe fn remap(&self, ptr: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.remap(ptr, old_size, new_size) }
    }

    unsafe fn discard(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.discard(ptr, size) }
    }

    fn millis(&self) -> u64 {
        SystemPages.millis()
    }

    fn map_records(&self, size: usize) -> *mut u8 {
        take(&FOR_RECORDS, size, 1).unwrap_or_else(|| SystemPages.map_records(size))
    }

    unsafe fn unmap_records(&self, ptr: *mut u8, size: usize) {
        // Writing zeros is faster than having pages made anew, if there are few.
        let is_kept = size <= 1 << 18 && {
            // SAFETY: a whole mapping that nobody uses any more.
            unsafe { ptr.write_bytes(0, size) };
            keep(&FOR_RECORDS, ptr, size)
        };
        if !is_kept {
            // SAFETY: as above.
            unsafe { SystemPages.unmap_records(ptr, size) };
        }
    }
}
