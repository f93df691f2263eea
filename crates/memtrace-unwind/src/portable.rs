//! The walker for targets without one of their own: the system's unwinder, through `backtrace`.
//!
//! It takes 130 to 250 ns a frame. On some systems it takes the loader's lock.

use crate::bounds::StackBounds;
use crate::rule::{End, Walk};
use core::ops::Range;

/// Nothing needs to be prepared here.
pub fn prepare() {}

/// Captures the stack of the caller into `call_addrs`, newest frame first.
///
/// The first address lies in the caller itself. The system's unwinder does not tell a stack that it
/// could not follow from one that it followed to the end: [`End::Truncated`] is never returned.
#[inline(never)]
pub fn capture(_: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    let this_function = capture as fn(&StackBounds, &mut [u64]) -> Walk as usize;
    let mut walk = Walk { len: 0, end: End::Outermost };
    let mut is_below = false;
    let mut visit = |frame: &backtrace::Frame| {
        let pc = frame.ip() as u64;
        if !is_below {
            is_below = frame.symbol_address() as usize == this_function;
            return true;
        }
        if pc == 0 {
            return false;
        }
        match call_addrs.get_mut(walk.len) {
            Some(slot) => {
                *slot = pc.wrapping_sub(1);
                walk.len = walk.len.saturating_add(1);
                true
            }
            None => {
                walk.end = End::Limit;
                false
            }
        }
    };
    trace(&mut visit);
    walk
}

#[expect(unsafe_code, reason = "the synchronised variant takes a lock")]
fn trace(visit: &mut dyn FnMut(&backtrace::Frame) -> bool) {
    // SAFETY: synchronisation is asked for by Windows' dbghelp, which this crate does not support.
    unsafe { backtrace::trace_unsynchronized(visit) };
}

/// The extent of functions is not known here.
pub fn function_range(_: u64) -> Option<Range<u64>> {
    None
}

/// Nothing is kept here.
pub fn forget_unloaded() {}

/// There is no table here.
pub fn rule_table() -> (*const u8, usize) {
    (core::ptr::null(), 0)
}
