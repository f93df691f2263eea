//! The chain of frame pointers, each checked to lie on the stack: it can be right only where all
//! code keeps them.
#![expect(unsafe_code, reason = "reads the stack")]

use crate::buffer::{self, MAX_FRAMES};
use memtrace_unwind::{End, Registers, Walk, here};
use std::num::NonZeroU32;

/// Captures, and returns the number of the stack.
#[inline(never)]
pub(super) fn site(limit: usize) -> Option<NonZeroU32> {
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = walk(here(), limit, frames);
    buffer::intern(frames, walk)
}

#[inline(always)]
fn walk(start: Registers, limit: usize, frames: &mut [u64; MAX_FRAMES]) -> Walk {
    let bounds = buffer::bounds();
    let mut call_addr = start.call_addr();
    let (mut sp, mut fp) = (start.sp, start.fp);
    let mut len = 0;
    loop {
        if len == limit {
            return Walk { len, end: End::Limit };
        }
        frames[len] = call_addr;
        len += 1;
        if fp == 0 {
            return Walk { len, end: End::Outermost };
        }
        let return_slot = fp.wrapping_add(8);
        if fp < sp || !fp.is_multiple_of(8) || !bounds.contains_word(return_slot) {
            return Walk { len, end: End::Truncated };
        }
        // SAFETY: an aligned word of this thread's stack, above the stack pointer.
        let return_addr = unsafe { (return_slot as *const u64).read() };
        if return_addr == 0 {
            return Walk { len, end: End::Outermost };
        }
        call_addr = return_addr - 1;
        sp = fp + 16;
        // SAFETY: the word below it.
        fp = unsafe { (fp as *const u64).read() };
    }
}
