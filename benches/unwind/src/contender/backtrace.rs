//! The `backtrace` crate, that is, libgcc's unwinder: the truth.
#![expect(unsafe_code, reason = "the synchronised variant takes a lock")]

use crate::buffer::{self, MAX_FRAMES};
use memtrace_unwind::{End, Walk, function_range};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Frames of the crate that come before the contender's.
static N_OWN: AtomicUsize = AtomicUsize::new(0);

/// Finds out how many frames are the crate's own.
pub(super) fn prepare() {
    let n_own = own_frames(
        || {
            let _ = site(8);
            // SAFETY: the capture is over.
            let frames = unsafe { buffer::frames() };
            frames[..8].iter().map(|addr| addr + 1).collect()
        },
        site as *const () as u64,
    );
    // Relaxed: this thread goes on to make all others.
    N_OWN.store(n_own, Ordering::Relaxed);
}

/// Captures, and returns the number of the stack.
#[inline(never)]
pub(crate) fn site(limit: usize) -> Option<NonZeroU32> {
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = walk(limit, frames);
    buffer::intern(frames, walk)
}

#[inline(always)]
fn walk(limit: usize, frames: &mut [u64; MAX_FRAMES]) -> Walk {
    // Relaxed: written before there were other threads.
    let mut n_own = N_OWN.load(Ordering::Relaxed);
    let mut walk = Walk { len: 0, end: End::Outermost };
    let visit = |frame: &backtrace::Frame| {
        let pc = frame.ip() as u64;
        if n_own > 0 {
            n_own -= 1;
            return true;
        }
        if pc == 0 {
            return false;
        }
        if walk.len == limit {
            walk.end = End::Limit;
            return false;
        }
        frames[walk.len] = pc - 1;
        walk.len += 1;
        true
    };
    // SAFETY: synchronisation is asked for by Windows' dbghelp only.
    unsafe { backtrace::trace_unsynchronized(visit) };
    walk
}

/// The number of return addresses that come before those of a function's frame.
pub(super) fn own_frames(capture: impl FnOnce() -> Vec<u64>, function: u64) -> usize {
    let range = function_range(function).expect("the contender has unwind tables");
    let frames = capture();
    let found = frames.iter().position(|addr| range.contains(&addr.wrapping_sub(1)));
    found.expect("the contender is in its own stack")
}
