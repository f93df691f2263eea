//! The truth about a stack: what the system's unwinder, `_Unwind_Backtrace`, says of it.
//!
//! It calls back for every frame, and once more with a program counter of zero when it has left the
//! outermost one. Where it finds no unwind tables for a program counter, that frame is the last it
//! reports: the stack is truncated there, and no zero follows.

use crate::pool::die;
use libc::{c_int, c_void};
use memtrace_unwind::End;

/// More frames than any stack here has.
pub(crate) const MAX_FRAMES: usize = 512;

#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

type Trace = unsafe extern "C" fn(*mut Context, *mut c_void) -> c_int;

unsafe extern "C-unwind" {
    fn _Unwind_Backtrace(trace: Trace, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut Context, is_before_instruction: *mut c_int) -> usize;
}

/// A stack.
pub(crate) struct Truth {
    call_addrs: [u64; MAX_FRAMES],
    len: usize,
    has_left_outermost: bool,
}

impl Truth {
    pub(crate) const fn new() -> Self {
        Self { call_addrs: [0; MAX_FRAMES], len: 0, has_left_outermost: false }
    }

    /// Takes the stack of the caller, newest frame first: this function's may or may not be among
    /// them. Allocates nothing.
    pub(crate) fn take(&mut self) {
        (self.len, self.has_left_outermost) = (0, false);
        // SAFETY: `add_frame` is given the exclusive reference that it expects.
        unsafe { _Unwind_Backtrace(add_frame, (self as *mut Self).cast()) };
    }

    /// The call addresses.
    pub(crate) fn call_addrs(&self) -> &[u64] {
        &self.call_addrs[..self.len]
    }

    /// How the walk ended.
    pub(crate) fn end(&self) -> End {
        if self.has_left_outermost { End::Outermost } else { End::Truncated }
    }
}

unsafe extern "C" fn add_frame(context: *mut Context, argument: *mut c_void) -> c_int {
    // SAFETY: `Truth::take` passes a live exclusive reference.
    let truth = unsafe { &mut *argument.cast::<Truth>() };
    let mut is_before_instruction = 0;
    // SAFETY: the context is the unwinder's, good for the time of this call.
    let pc = unsafe { _Unwind_GetIPInfo(context, &mut is_before_instruction) } as u64;
    if pc == 0 {
        truth.has_left_outermost = true;
        return 0;
    }
    let call_addr = if is_before_instruction == 0 { pc - 1 } else { pc };
    match truth.call_addrs.get_mut(truth.len) {
        Some(slot) => *slot = call_addr,
        None => die("a stack is deeper than the truth has room for\n"),
    }
    truth.len += 1;
    0
}
