//! The hook: a `GlobalAlloc` around another.

#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use crate::control::is_hook_needed;
use crate::live::GRANULE;
use crate::platform::System;
use crate::recorder::RECORDER;
use core::alloc::{GlobalAlloc, Layout};

/// A global allocator that can be traced, around any other.
///
/// ```
/// use memtrace_alloc::Alloc;
///
/// #[global_allocator]
/// static ALLOC: Alloc = Alloc::system();
///
/// memtrace_alloc::start(25).unwrap();
/// let kept = vec![0u8; 1000];
/// assert!(memtrace_alloc::traced_memory().current >= 1000);
/// drop(kept);
/// ```
///
/// The wrapped allocator gets each request as it came, but for its alignment: it is raised to 16
/// bytes, which `malloc` gives anyway, so that no two blocks start within the same 16 bytes. With an
/// allocator that packs blocks of 8 bytes or less more tightly (mimalloc, jemalloc), such a block
/// takes up 16.
///
/// **Cost**: while tracing is off, one load and a branch that is never taken.
#[derive(Debug, Default)]
pub struct Alloc<A = System> {
    inner: A,
}

impl Alloc<System> {
    /// Wraps the system's allocator.
    pub const fn system() -> Self {
        Self::new(System)
    }
}

impl<A> Alloc<A> {
    /// Wraps an allocator.
    pub const fn new(inner: A) -> Self {
        Self { inner }
    }

    /// Returns the wrapped allocator, for what it has to tell beside allocating.
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

/// The layout that is passed on. Law: the same for a block's release as for its allocation.
#[inline(always)]
const fn widen(layout: Layout) -> Layout {
    match Layout::from_size_align(layout.size(), GRANULE) {
        Ok(wide) if layout.align() < GRANULE => wide,
        // Sizes within 16 bytes of isize::MAX do not round up to the granule; nobody has so much.
        _ => layout,
    }
}

// SAFETY: every request goes to the wrapped allocator, with a layout that asks for no less, and its
// answer goes back unchanged. Nothing here unwinds or allocates (the laws of the hook).
unsafe impl<A: GlobalAlloc> GlobalAlloc for Alloc<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise: the size is not zero.
        let block = unsafe { self.inner.alloc(widen(layout)) };
        if is_hook_needed() {
            RECORDER.allocated(block, layout.size());
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise: the size is not zero.
        let block = unsafe { self.inner.alloc_zeroed(widen(layout)) };
        if is_hook_needed() {
            RECORDER.allocated(block, layout.size());
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // Before the block is given back: another thread may get its address at once.
        if is_hook_needed() {
            RECORDER.releasing(block);
        }
        // SAFETY: the caller's promise; the layout is the one it was allocated with.
        unsafe { self.inner.dealloc(block, widen(layout)) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_hook_needed() {
            // SAFETY: the caller's promise; the layout is the one it was allocated with.
            return unsafe { self.inner.realloc(block, widen(layout), new_size) };
        }
        let record = RECORDER.resizing(block);
        // SAFETY: as above.
        let resized = unsafe { self.inner.realloc(block, widen(layout), new_size) };
        if resized.is_null() {
            RECORDER.not_resized(block, record);
        } else {
            RECORDER.resized(resized, new_size, record);
        }
        resized
    }
}
