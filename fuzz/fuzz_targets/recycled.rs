//! The system's pages, used again by the next heap: most of a short-lived heap's time goes into mapping.

use std::sync::Mutex;

use memtrace_heap::{PageSource, SystemPages};

/// Mappings of one kind that wait for the next heap.
const MAX_WAITING: usize = 32;
/// Up to how many resident pages are zeroed by writing: having them made anew takes longer.
const MAX_WRITTEN: usize = 256;
/// Of the system, in bytes.
const PAGE_SIZE: usize = 4096;

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
    let fits = |mapping: &Waiting| mapping.size == size && mapping.addr.is_multiple_of(align);
    // The latest, whose pages are resident.
    let at = waiting.iter().rposition(fits)?;
    Some(std::ptr::with_exposed_provenance_mut(waiting.remove(at).addr))
}

/// Keeps a mapping, all zero, and returns the one that it takes the place of: the oldest.
fn keep(waiting: &Mutex<Vec<Waiting>>, ptr: *mut u8, size: usize) -> Option<(*mut u8, usize)> {
    let mut waiting = waiting.lock().expect("nothing fails here");
    waiting.push(Waiting { addr: ptr.expose_provenance(), size });
    if waiting.len() <= MAX_WAITING {
        return None;
    }
    let oldest = waiting.remove(0);
    Some((std::ptr::with_exposed_provenance_mut(oldest.addr), oldest.size))
}

/// Makes memory zero: by writing where few pages are resident, and else through the system. Pages in
/// swap would be missed; the limit of the process's memory keeps it far from there.
///
/// # Safety
/// Mapped memory of whole pages, which nobody uses any more.
unsafe fn zero(ptr: *mut u8, size: usize) -> bool {
    let mut residence = [0_u8; 8192];
    let n_pages = size / PAGE_SIZE;
    let is_known = n_pages <= residence.len()
        // SAFETY: mapped memory, and a byte for each of its pages.
        && unsafe { libc::mincore(ptr.cast(), size, residence.as_mut_ptr()) } == 0;
    let resident = || (0..n_pages).filter(|page| residence[*page] & 1 == 1);
    if !is_known || resident().count() > MAX_WRITTEN {
        // SAFETY: the caller's promise.
        return unsafe { SystemPages.discard(ptr, size) };
    }
    for page in resident() {
        // SAFETY: a page of this memory.
        unsafe { ptr.add(page * PAGE_SIZE).write_bytes(0, PAGE_SIZE) };
    }
    true
}

// SAFETY: all memory is the system's, and zero when it is handed out again.
unsafe impl PageSource for Recycled {
    // What is kept here are whole mappings, which may be given back to the system as well.
    const IS_SYSTEM: bool = true;

    fn map(&self, size: usize, align: usize) -> *mut u8 {
        take(&FOR_BLOCKS, size, align).unwrap_or_else(|| SystemPages.map(size, align))
    }

    unsafe fn unmap(&self, ptr: *mut u8, size: usize) {
        // SAFETY: a whole mapping that nobody uses any more.
        let is_zero = unsafe { zero(ptr, size) };
        let dropped = if is_zero { keep(&FOR_BLOCKS, ptr, size) } else { Some((ptr, size)) };
        if let Some((ptr, size)) = dropped {
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
        unsafe { zero(ptr, size) }
    }

    fn millis(&self) -> u64 {
        SystemPages.millis()
    }

    fn map_records(&self, size: usize) -> *mut u8 {
        take(&FOR_RECORDS, size, 1).unwrap_or_else(|| SystemPages.map_records(size))
    }

    unsafe fn unmap_records(&self, ptr: *mut u8, size: usize) {
        // SAFETY: a whole mapping that nobody uses any more.
        let is_zero = unsafe { zero(ptr, size) };
        let dropped = if is_zero { keep(&FOR_RECORDS, ptr, size) } else { Some((ptr, size)) };
        if let Some((ptr, size)) = dropped {
            // SAFETY: as above.
            unsafe { SystemPages.unmap_records(ptr, size) };
        }
    }
}
