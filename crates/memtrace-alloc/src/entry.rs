//! The way into the recorder for an allocation: it takes the registers of whoever called, before anything
//! else is done.
//!
//! # Mechanism
//!
//! A capture begins at the registers of some function that is still running. Taken in a function of the
//! recorder's own, they would tie all that is done for an allocation into that one function, with a frame and
//! saved registers. So where there is a walker of our own, the way in is three instructions without a frame:
//! they hand on where the return address lies, and the frame pointer, and jump. Whatever runs then, however it
//! divides its work among functions that jump to each other, the caller is where it was: its return address
//! is not touched before it has control again. Stacks begin with the hook, not with the recorder.
//!
//! # Cost
//!
//! Three instructions.
#![cfg_attr(
    all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)),
    expect(
        unsafe_code,
        reason = "a function without a frame, and the return address of its caller"
    )
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod by_target {
    use crate::recorder::RECORDER;
    use core::arch::naked_asm;
    use memtrace_unwind::Registers;

    /// Whence the recorder was entered, as long as it has not returned there.
    #[derive(Clone, Copy)]
    pub(crate) struct Entry {
        /// The word after the return address.
        sp: *const u64,
        fp: u64,
    }

    impl Entry {
        /// The registers of the caller.
        #[inline(always)]
        pub(crate) fn registers(self) -> Registers {
            // SAFETY: made below, where the caller's return address lies below that word; it stays there until
            // the recorder returns, and entries are used no longer.
            unsafe { memtrace_unwind::caller(self.sp, self.fp) }
        }
    }

    /// Records a block that the wrapped allocator has handed out; null is passed over.
    #[unsafe(naked)]
    pub(crate) extern "C-unwind" fn allocated(block: *mut u8, size: usize) {
        naked_asm!(
            // It has no frame, from its first instruction to its last; the assembler does not say so by itself.
            ".cfi_startproc",
            "lea rdx, [rsp + 8]",
            "mov rcx, rbp",
            "jmp {allocated_from}",
            ".cfi_endproc",
            allocated_from = sym allocated_from,
        )
    }

    // Of an ABI that the jump can rely on, and which adds nothing for panics that never come.
    extern "C-unwind" fn allocated_from(block: *mut u8, size: usize, sp: *const u64, fp: u64) {
        RECORDER.allocated(block, size, Entry { sp, fp });
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))))]
mod by_target {
    use crate::recorder::RECORDER;
    use memtrace_unwind::{Registers, here};

    /// Whence the recorder was entered, as long as it has not returned there.
    #[derive(Clone, Copy)]
    pub(crate) struct Entry(Registers);

    impl Entry {
        /// The registers at the entry.
        #[inline(always)]
        pub(crate) fn registers(self) -> Registers {
            self.0
        }
    }

    /// Records a block that the wrapped allocator has handed out; null is passed over.
    #[inline(never)]
    pub(crate) fn allocated(block: *mut u8, size: usize) {
        RECORDER.allocated(block, size, Entry(here()));
    }
}

pub(crate) use by_target::{Entry, allocated};
