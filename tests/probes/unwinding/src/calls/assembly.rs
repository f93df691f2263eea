//! Frames that no compiler makes.

use super::Next;
use super::c_frame::{Callback, call_next, data_of};
use crate::plan::Step;
use core::arch::global_asm;
use libc::c_void;

// The frame pointer register holds `decoy`, which looks like a saved frame pointer and a return
// address on the live stack; where it was saved, CFI says.
global_asm!(
    ".text",
    ".p2align 4",
    ".type memtrace_decoy_frame_pointer, @function",
    "memtrace_decoy_frame_pointer:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_adjust_cfa_offset 8",
    ".cfi_rel_offset rbp, 0",
    "sub rsp, 64",
    ".cfi_adjust_cfa_offset 64",
    "mov [rsp + 16], rdx",
    "mov [rsp + 24], rdi",
    "lea rbp, [rsp + 16]",
    "test rdx, rdx",
    "jnz 2f",
    "lea rax, [rsp + 32]",
    "mov [rsp + 16], rax",
    "mov qword ptr [rsp + 32], 0",
    "mov rax, [rsp + 72]",
    "mov [rsp + 24], rax",
    "mov [rsp + 40], rax",
    "2:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "add rsp, 64",
    ".cfi_adjust_cfa_offset -64",
    "pop rbp",
    ".cfi_adjust_cfa_offset -8",
    ".cfi_restore rbp",
    "ret",
    ".cfi_endproc",
    ".size memtrace_decoy_frame_pointer, . - memtrace_decoy_frame_pointer",
);

// Nothing says how to leave this one: every walk ends here.
global_asm!(
    ".text",
    ".p2align 4",
    ".type memtrace_without_cfi, @function",
    "memtrace_without_cfi:",
    "sub rsp, 40",
    "mov rax, rdi",
    "mov rdi, rsi",
    "call rax",
    "add rsp, 40",
    "ret",
    ".size memtrace_without_cfi, . - memtrace_without_cfi",
);

unsafe extern "C-unwind" {
    fn memtrace_decoy_frame_pointer(f: Callback, data: *mut c_void, decoy: u64);
    fn memtrace_without_cfi(f: Callback, data: *mut c_void);
}

#[inline(never)]
pub(crate) fn decoy_frame_pointer(step: Step, mut next: Next<'_>) {
    // For zero the assembly makes a plausible frame, whose return address is its own.
    let decoy = if step.number & 1 == 0 { 0 } else { step.number };
    // SAFETY: the callback gets what it expects, while it is alive; the decoy is only data.
    unsafe { memtrace_decoy_frame_pointer(call_next, data_of(&mut next), decoy) };
}

#[inline(never)]
pub(crate) fn without_cfi(mut next: Next<'_>) {
    // SAFETY: the callback gets what it expects, while it is alive, and does not unwind.
    unsafe { memtrace_without_cfi(call_next, data_of(&mut next)) };
}
