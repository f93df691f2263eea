//! All that this crate takes from `std`: the system's allocator, thread-local storage, a rest, and a call of
//! the global allocator to find out who answers it. The rest of the crate cannot name `std`, and so
//! cannot allocate by mistake.

extern crate std;

pub(crate) use std::alloc::System;
pub(crate) use std::thread_local;

use core::alloc::Layout;
use core::hint::black_box;
use core::time::Duration;

/// Lets other threads run, for a time.
pub(crate) fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// Makes the program's global allocator serve something, if it never did.
#[expect(unsafe_code, reason = "calls the global allocator; nothing is read or written")]
pub(crate) fn touch_global_allocator() {
    const LAYOUT: Layout = Layout::new::<[u64; 4]>();
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { std::alloc::alloc(LAYOUT) });
    if !block.is_null() {
        // SAFETY: a live block of this layout.
        unsafe { std::alloc::dealloc(block, LAYOUT) };
    }
}

/// Calls each allocating function of the program's global allocator once.
///
/// Never inlined, so that its frame tells the hook's frames from all others.
#[inline(never)]
#[expect(unsafe_code, reason = "calls the global allocator; nothing is read or written")]
pub(crate) fn probe_global_allocator() {
    const SMALL: Layout = Layout::new::<[u64; 4]>();
    const LARGE: Layout = Layout::new::<[u64; 8]>();
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { std::alloc::alloc(SMALL) });
    if !block.is_null() {
        // SAFETY: a live block of this layout; the new size is neither zero nor too large.
        let resized = black_box(unsafe { std::alloc::realloc(block, SMALL, LARGE.size()) });
        let (block, layout) = if resized.is_null() { (block, SMALL) } else { (resized, LARGE) };
        // SAFETY: the live block, with the layout that it has now.
        unsafe { std::alloc::dealloc(block, layout) };
    }
    // SAFETY: the size is not zero.
    let zeroed = black_box(unsafe { std::alloc::alloc_zeroed(SMALL) });
    if !zeroed.is_null() {
        // SAFETY: a live block of this layout.
        unsafe { std::alloc::dealloc(zeroed, SMALL) };
    }
}
