//! The way from the hook to the wrapped allocator, and from there into the recorder.
//!
//! # Mechanism
//!
//! A capture begins at the registers of some function that is still running. Where there is a walker of our own,
//! that is whoever called these functions, which are written out in instructions: they call the wrapped allocator
//! for the block, and the recorder with where their own return address lies. Whatever the recorder runs then, however
//! it divides its work among functions that jump to each other, the caller is where it was. So stacks begin with the
//! program, or with what of the hook the compiler has left around it; and the address of the call, by which most
//! stacks differ from each other, is known before a walk begins.
//!
//! Block and size lie on the stack meanwhile, where the recorder finds them when it needs them: it has few registers.
//! Nor could it keep any while it looks for the thread's state, which in a library is a call of a function. So it is
//! given that, too, by who has called the wrapped allocator and had to keep its registers anyway.
//!
//! # Cost
//!
//! Twelve instructions, and three to find the state.
#![cfg_attr(
    all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)),
    expect(
        unsafe_code,
        reason = "functions that lay out their frames themselves, and what lies there"
    )
)]
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))),
    expect(unsafe_code, reason = "calls the wrapped allocator")
)]

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod by_target {
    use crate::recorder::Recorder;
    use crate::thread::{self, ThreadState};
    use core::alloc::{GlobalAlloc, Layout};
    use core::arch::naked_asm;
    use memtrace_unwind::Registers;

    /// Whence the recorder was entered, as long as it has not returned there: the word after the return address. Below
    /// that lie the caller's frame pointer, size and block (see [`entry`]).
    #[derive(Clone, Copy)]
    pub(crate) struct Entry(*const u64);

    impl Entry {
        /// The registers of the caller.
        #[inline(always)]
        pub(crate) fn registers(self) -> Registers {
            // SAFETY: made below, where all this lies; it stays there until the recorder returns, and entries are used
            // no longer.
            let fp = unsafe { self.0.wrapping_sub(2).read() };
            // SAFETY: as above.
            unsafe { memtrace_unwind::caller(self.0, fp) }
        }

        /// The block that the wrapped allocator has handed out, or null.
        #[inline(always)]
        pub(crate) fn block(self) -> *mut u8 {
            // SAFETY: as above.
            unsafe { self.0.wrapping_sub(4).cast::<*mut u8>().read() }
        }

        /// The size that was asked for.
        #[inline(always)]
        pub(crate) fn size(self) -> usize {
            // SAFETY: as above.
            unsafe { self.0.wrapping_sub(3).cast::<usize>().read() }
        }
    }

    /// A block, and the state of the thread: in two registers.
    #[repr(C)]
    struct Allocated {
        block: *mut u8,
        state: *const ThreadState,
    }

    /// The instructions of a function that has the parameters of `alloc_in`, returns the block, and calls the recorder
    /// in between.
    macro_rules! entry {
        ($alloc_in:path) => {
            naked_asm!(
                // A frame as those who follow frame pointers expect it, described at each instruction for those who
                // do not.
                ".cfi_startproc",
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "push rdi",
                "push rax",
                "call {alloc_in}",
                "mov [rsp], rax",
                "lea rdi, [rbp + 16]",
                "mov rsi, rdx",
                "call {allocated_from}",
                "pop rax",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                alloc_in = sym $alloc_in,
                allocated_from = sym allocated_from,
            )
        };
    }

    /// Allocates, and tells the recorder.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc`] of a layout with this size and alignment.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn alloc_and_tell<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        entry!(alloc_in::<A>)
    }

    /// The same of zeroed blocks.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc_zeroed`] of a layout with this size and alignment.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn alloc_zeroed_and_tell<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        entry!(alloc_zeroed_in::<A>)
    }

    // Of an ABI that the calls can rely on.
    unsafe extern "C-unwind" fn alloc_in<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> Allocated {
        // SAFETY: they are a layout's.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: the caller's promise.
        let block = unsafe { inner.alloc(layout) };
        Allocated { block, state: thread::state() }
    }

    unsafe extern "C-unwind" fn alloc_zeroed_in<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> Allocated {
        // SAFETY: they are a layout's.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: the caller's promise.
        let block = unsafe { inner.alloc_zeroed(layout) };
        Allocated { block, state: thread::state() }
    }

    extern "C-unwind" fn allocated_from(sp: *const u64, state: *const ThreadState) {
        // SAFETY: the thread's own, which it has as long as it runs.
        Recorder::allocated(Entry(sp), unsafe { &*state });
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))))]
mod by_target {
    use crate::recorder::Recorder;
    use crate::thread;
    use core::alloc::{GlobalAlloc, Layout};
    use memtrace_unwind::{Registers, here};

    /// Whence the recorder was entered, as long as it has not returned there.
    #[derive(Clone, Copy)]
    pub(crate) struct Entry {
        here: Registers,
        block: *mut u8,
        size: usize,
    }

    impl Entry {
        /// The registers at the entry.
        #[inline(always)]
        pub(crate) fn registers(self) -> Registers {
            self.here
        }

        /// The block that the wrapped allocator has handed out, or null.
        #[inline(always)]
        pub(crate) fn block(self) -> *mut u8 {
            self.block
        }

        /// The size that was asked for.
        #[inline(always)]
        pub(crate) fn size(self) -> usize {
            self.size
        }
    }

    /// Allocates, and tells the recorder.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc`] of a layout with this size and alignment.
    #[inline(never)]
    pub(crate) unsafe fn alloc_and_tell<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        // SAFETY: they are a layout's.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: the caller's promise.
        let block = unsafe { inner.alloc(layout) };
        tell(Entry { here: here(), block, size });
        block
    }

    /// The same of zeroed blocks.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc_zeroed`] of a layout with this size and alignment.
    #[inline(never)]
    pub(crate) unsafe fn alloc_zeroed_and_tell<A: GlobalAlloc>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        // SAFETY: they are a layout's.
        let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
        // SAFETY: the caller's promise.
        let block = unsafe { inner.alloc_zeroed(layout) };
        tell(Entry { here: here(), block, size });
        block
    }

    #[inline(always)]
    fn tell(entry: Entry) {
        if thread::with_state(|state| Recorder::allocated(entry, state)).is_none() {
            Recorder::allocated_otherwise(entry);
        }
    }
}

pub(crate) use by_target::{Entry, alloc_and_tell, alloc_zeroed_and_tell};
