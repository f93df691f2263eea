//! Where a capture begins: the registers of the caller, and the memory of this process.
#![expect(unsafe_code, reason = "takes the caller's registers and reads its stack")]

use crate::bounds::StackBounds;
use crate::object;
use crate::rule::{End, Registers, Walk};
use crate::table::ProcessRules;
use crate::walker::walk;
use core::ops::Range;

/// Prepares for captures; called once, before the first of them, it keeps them off the loader's lock.
///
/// Without it captures are right but look new addresses up with `dl_iterate_phdr`.
pub fn prepare() {
    object::prepare();
}

/// Captures the stack of the caller into `call_addrs`, newest frame first.
///
/// The first address lies in the caller itself. `stack` are the bounds of the current thread's own
/// stack; on another stack (a signal's, a coroutine's) a capture works, too, and trusts at most
/// 16 MiB above the stack pointer.
///
/// **Cost**: 5 to 8 ns a frame for addresses seen before, 100 to 200 ns more for each new one.
#[inline(always)]
pub fn capture(stack: &StackBounds, call_addrs: &mut [u64]) -> Walk {
    let mut request = Request { stack, call_addrs, walk: Walk { len: 0, end: End::Truncated } };
    // SAFETY: `request` is exclusively borrowed for the time of the call.
    unsafe { capture_from_caller(&mut request) };
    request.walk
}

/// Returns the extent of the function that holds `call_addr`, as its unwind table states it.
///
/// The parts of a function that the compiler split off count as functions of their own.
pub fn function_range(call_addr: u64) -> Option<Range<u64>> {
    object::with_unwind_tables(call_addr, |tables| tables.function_range(call_addr))?
}

struct Request<'a> {
    stack: &'a StackBounds,
    call_addrs: &'a mut [u64],
    walk: Walk,
}

/// Hands the registers that the caller has after this call returns to [`capture_with_registers`].
///
/// A naked function: with a prologue of the compiler's making, the frame pointer register might
/// already be the callee's.
#[unsafe(naked)]
unsafe extern "C" fn capture_from_caller(request: &mut Request<'_>) {
    core::arch::naked_asm!(
        "mov rsi, [rsp]",     // return address
        "lea rdx, [rsp + 8]", // stack pointer after the return
        "mov rcx, rbp",
        "jmp {walk}",
        walk = sym capture_with_registers,
    )
}

unsafe extern "C" fn capture_with_registers(request: &mut Request<'_>, pc: u64, sp: u64, fp: u64) {
    let start = Registers { pc, sp, fp, is_exact_pc: false };
    let read = |addr: u64| {
        // SAFETY: the walk asks only for aligned words above the stack pointer of a live frame: in
        // the thread's own stack, or where the unwind tables of the running code say that a caller's
        // frame lies (the walker's I1).
        Some(unsafe { (addr as *const u64).read() })
    };
    request.walk = walk(start, request.stack, &mut ProcessRules, read, request.call_addrs);
}
