//! `longjmp` over frames of Rust that have nothing to drop.

use super::Next;
use crate::plan::Step;
use libc::{c_int, c_void};
use std::hint::black_box;

unsafe extern "C-unwind" {
    fn memtrace_jump_over(
        f: unsafe extern "C-unwind" fn(*mut c_void, *mut c_void),
        data: *mut c_void,
    ) -> c_int;
    fn memtrace_jump_to(target: *mut c_void) -> !;
}

struct Jump<'a> {
    depth: u64,
    next: Next<'a>,
}

#[inline(never)]
pub(crate) fn call(step: Step, next: Next<'_>) {
    let mut jump = Jump { depth: step.below(5), next };
    // SAFETY: the callback gets what it expects, while it is alive, and jumps back here.
    let has_jumped = unsafe { memtrace_jump_over(go_down, (&raw mut jump).cast()) };
    assert_eq!(has_jumped, 1);
}

unsafe extern "C-unwind" fn go_down(data: *mut c_void, target: *mut c_void) {
    // SAFETY: the data is what `call` passed.
    let jump = unsafe { &mut *data.cast::<Jump<'_>>() };
    deeper(jump.depth, jump.next, target);
}

#[inline(never)]
fn deeper(depth: u64, next: Next<'_>, target: *mut c_void) -> u64 {
    if depth > 0 {
        return black_box(deeper(depth - 1, next, target)) + 1;
    }
    next();
    // SAFETY: the frame that set the target is alive, and no frame between has anything to drop.
    unsafe { memtrace_jump_to(target) }
}
