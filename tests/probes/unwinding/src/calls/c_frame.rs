//! Frames of C: of variable size, and with the stack realigned.

use super::Next;
use crate::plan::Step;
use libc::c_void;

/// A function that is called from C, and what it is called with.
pub(super) type Callback = unsafe extern "C-unwind" fn(*mut c_void);

unsafe extern "C-unwind" {
    fn memtrace_alloca(n_bytes: usize, f: Callback, data: *mut c_void);
    fn memtrace_variable_array(n_bytes: usize, f: Callback, data: *mut c_void);
    fn memtrace_realigned(n_bytes: usize, f: Callback, data: *mut c_void);
    fn memtrace_realigned_array(n_bytes: usize, f: Callback, data: *mut c_void);
}

/// Calls the [`Next`] that `data` points to.
///
/// # Safety
///
/// `data` is what [`data_of`] returned, and the reference is alive.
pub(super) unsafe extern "C-unwind" fn call_next(data: *mut c_void) {
    // SAFETY: `data` points to a live reference (above).
    let next = unsafe { &mut *data.cast::<Next<'_>>() };
    next();
}

/// What [`call_next`] takes.
pub(super) fn data_of(next: &mut Next<'_>) -> *mut c_void {
    (next as *mut Next<'_>).cast()
}

/// Whether an address lies in a function whose frame is, at both of its ends, counted from neither
/// stack pointer nor frame pointer.
pub(crate) fn counts_from_another_register(call_addr: u64) -> bool {
    let function = memtrace_realigned_array as *const () as u64;
    memtrace_unwind::function_range(function).is_some_and(|range| range.contains(&call_addr))
}

/// Sizes small and large, and many that come again.
fn size(step: Step) -> usize {
    8 + 24 * step.below(12) as usize + if step.number & 0x8000 == 0 { 0 } else { 5000 }
}

#[inline(never)]
pub(crate) fn alloca(step: Step, mut next: Next<'_>) {
    // SAFETY: the callback gets what it expects, while it is alive.
    unsafe { memtrace_alloca(size(step), call_next, data_of(&mut next)) };
}

#[inline(never)]
pub(crate) fn variable_array(step: Step, mut next: Next<'_>) {
    // SAFETY: the callback gets what it expects, while it is alive.
    unsafe { memtrace_variable_array(size(step), call_next, data_of(&mut next)) };
}

#[inline(never)]
pub(crate) fn realigned(step: Step, mut next: Next<'_>) {
    let f = if step.number & 1 == 0 { memtrace_realigned } else { memtrace_realigned_array };
    // SAFETY: the callback gets what it expects, while it is alive.
    unsafe { f(size(step), call_next, data_of(&mut next)) };
}
