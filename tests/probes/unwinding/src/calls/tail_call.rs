//! Last calls, which an optimizer turns into jumps: the caller has no frame when the callee runs.

use super::Next;
use super::c_frame::{Callback, call_next, data_of};
use crate::plan::Step;
use libc::c_void;
use memtrace_unwind::{StackBounds, capture, function_range};
use std::hint::black_box;
use std::sync::Once;

unsafe extern "C-unwind" {
    fn memtrace_tail_call(n: usize, f: Callback, data: *mut c_void);
}

/// In builds without optimization, ordinary calls.
#[inline(never)]
pub(crate) fn call(step: Step, next: Next<'_>) {
    if step.number & 1 == 0 { first(step.number, next) } else { second(step.number, next) }
}

#[inline(never)]
fn first(number: u64, next: Next<'_>) {
    black_box(number + 1);
    second(number / 2, next)
}

#[inline(never)]
fn second(number: u64, next: Next<'_>) {
    let kept = black_box([number; 9]);
    next();
    black_box(kept);
}

#[inline(never)]
pub(crate) fn call_in_c(step: Step, next: Next<'_>) {
    static SEEN: Once = Once::new();
    let mut go_on = || {
        SEEN.call_once(assert_no_frame);
        next();
    };
    let mut next: Next<'_> = &mut go_on;
    // SAFETY: the callback gets what it expects, while it is alive.
    unsafe { memtrace_tail_call(step.below(4) as usize, call_next, data_of(&mut next)) };
}

/// The C function that called last has no frame here, or this kind would check nothing.
fn assert_no_frame() {
    let jumped = function_range(memtrace_tail_call as *const () as u64).expect("it has CFI");
    let mut frames = [0; 8];
    let walk = capture(&StackBounds::current(), &mut frames);
    assert!(frames[..walk.len].iter().all(|frame| !jumped.contains(frame)), "{frames:x?}");
}
