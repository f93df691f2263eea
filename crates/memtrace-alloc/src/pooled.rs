//! The pooled heap as the wrapped allocator, which the recorder keeps its words in.
//!
//! # How the recorder gets to know it
//!
//! [`control::start`](crate::start) allocates to find out who answers. A [`Pooled`] that answers then
//! tells of its heap, so the one that is learned is the one that the program's allocations go through,
//! whatever else wraps it. No other allocation pays for that: only zeroed ones look.
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use crate::recorder::RECORDER;
use crate::thread::{self, Probe};
use core::alloc::{GlobalAlloc, Layout};
use memtrace_heap::Heap;

/// A pooled heap that the recorder may keep its words in: what [`Alloc::pooled`](crate::Alloc::pooled)
/// wraps.
#[derive(Clone, Copy, Debug)]
pub struct Pooled(&'static Heap);

impl Pooled {
    /// Serves requests from `heap`.
    pub const fn new(heap: &'static Heap) -> Self {
        Self(heap)
    }

    /// Returns the heap.
    pub const fn heap(&self) -> &'static Heap {
        self.0
    }
}

// SAFETY: every request goes to the heap as it came.
unsafe impl GlobalAlloc for Pooled {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if thread::probe() == Probe::Functions {
            RECORDER.live.use_words_of(self.0);
        }
        // SAFETY: the caller's promise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.0.realloc(block, layout, new_size) }
    }
}
