//! A page source that can fail, and checks how it is used.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use memtrace_heap::{PAGE_SIZE, PageSource, SystemPages};

/// The system's pages, with a record of what is mapped and a call that fails on demand.
#[derive(Default)]
pub struct CheckedPages {
    mapped: Mutex<BTreeMap<usize, usize>>,
    n_calls: AtomicUsize,
    /// Calls of `map` and `remap` from this one on fail, for `n_failing` calls; 0 is never.
    pub first_failing: usize,
    pub n_failing: usize,
}

impl CheckedPages {
    pub fn failing(first_failing: usize, n_failing: usize) -> CheckedPages {
        CheckedPages { first_failing, n_failing, ..CheckedPages::default() }
    }

    pub fn n_mapped_bytes(&self) -> usize {
        self.mapped.lock().unwrap().values().sum()
    }

    pub fn n_calls(&self) -> usize {
        self.n_calls.load(Ordering::Relaxed)
    }

    fn fails_now(&self) -> bool {
        let call = self.n_calls.fetch_add(1, Ordering::Relaxed) + 1;
        (self.first_failing..self.first_failing + self.n_failing).contains(&call)
    }
}

// SAFETY: every result is one of SystemPages.
unsafe impl PageSource for &CheckedPages {
    fn map(&self, size: usize, align: usize) -> *mut u8 {
        assert!(size > 0 && size.is_multiple_of(PAGE_SIZE) && align.is_power_of_two());
        if self.fails_now() {
            return std::ptr::null_mut();
        }
        let ptr = SystemPages.map(size, align);
        if !ptr.is_null() {
            self.mapped.lock().unwrap().insert(ptr.addr(), size);
        }
        ptr
    }

    unsafe fn unmap(&self, ptr: *mut u8, size: usize) {
        // The record goes first: once unmapped, another thread may map the same address.
        assert_eq!(self.mapped.lock().unwrap().remove(&ptr.addr()), Some(size));
        // SAFETY: recorded as one whole mapping of this size.
        unsafe { SystemPages.unmap(ptr, size) };
    }

    unsafe fn remap(&self, ptr: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
        let mut mapped = self.mapped.lock().unwrap();
        assert_eq!(mapped.get(&ptr.addr()), Some(&old_size));
        if self.fails_now() {
            return std::ptr::null_mut();
        }
        // SAFETY: recorded as one whole mapping of this size.
        let moved = unsafe { SystemPages.remap(ptr, old_size, new_size) };
        if !moved.is_null() {
            mapped.remove(&ptr.addr());
            mapped.insert(moved.addr(), new_size);
        }
        moved
    }

    unsafe fn discard(&self, ptr: *mut u8, size: usize) -> bool {
        let mapped = self.mapped.lock().unwrap();
        let (base, whole) =
            mapped.range(..=ptr.addr()).next_back().expect("nothing is mapped here");
        assert!(ptr.addr() + size <= base + whole, "more than what is mapped");
        // SAFETY: whole pages of a recorded mapping, which nobody refers to.
        unsafe { SystemPages.discard(ptr, size) }
    }

    fn millis(&self) -> u64 {
        SystemPages.millis()
    }
}
