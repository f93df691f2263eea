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
//! Block and size lie on the stack meanwhile, where the recorder finds them when it needs them: it has few registers. So
//! does the trace of a block that is being resized, which was taken out before.
//! Nor could it keep any while it looks for the thread's state, which in a library is a call of a function. So it is
//! given that, too, by who has called the wrapped allocator and had to keep its registers anyway.
//!
//! # Cost
//!
//! Twelve instructions, and three to find the state; for a resize 16, and four stores of the earlier trace and of when it was born.
#![expect(
    unsafe_code,
    reason = "calls the wrapped allocator, by functions that lay out their frames themselves"
)]

use crate::lifetime::Birth;
use crate::live::LiveTrace;
use core::alloc::{GlobalAlloc, Layout};

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable)))]
mod by_target {
    use super::{Old, block_of, realloc};
    use crate::lifetime::Birth;
    use crate::recorder::{RECORDER, Recorder};
    use crate::state::State;
    use crate::thread::{self, ThreadState};
    use core::alloc::GlobalAlloc;
    use core::arch::naked_asm;
    use core::mem::MaybeUninit;
    use memtrace_unwind::Registers;

    /// Whence the recorder was entered, as long as it has not returned there: the word after the return address. Below
    /// that lie the caller's frame pointer, size and block (see [`alloc_and_tell`]).
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

    /// Whence the recorder was entered for a block that was resized. Below what lies there for any [`Entry`], there is
    /// the rest of a [`Frame`].
    #[derive(Clone, Copy)]
    pub(crate) struct ResizedEntry(Entry);

    impl ResizedEntry {
        #[inline(always)]
        pub(crate) fn entry(self) -> Entry {
            self.0
        }

        /// What was known of the block before.
        #[inline(always)]
        pub(crate) fn old(&self) -> &Old {
            // SAFETY: `resize_in_frame` has written it.
            unsafe { self.frame().old.assume_init_ref() }
        }

        /// The state in which that was recorded.
        #[inline(always)]
        pub(crate) fn state(&self) -> State {
            self.frame().state
        }

        #[inline(always)]
        fn frame(&self) -> &Frame<()> {
            let after_frame = self.0.0.wrapping_sub(2).cast::<Frame<()>>();
            // SAFETY: made below, where the frame lies as long as entries are used, and nobody writes to it any more.
            unsafe { &*after_frame.wrapping_sub(1) }
        }
    }

    /// What lies on the stack while a block is being resized, below the caller's frame pointer.
    #[repr(C)]
    struct Frame<A> {
        old: MaybeUninit<Old>,
        inner: *const A,
        state: State,
        /// The block as it was, then as it is.
        block: *mut u8,
        size: usize,
    }

    /// A block, and the state of the thread: in two registers.
    #[repr(C)]
    struct Allocated {
        block: *mut u8,
        state: *const ThreadState,
    }

    /// The instructions of a function that may leave what it likes on the stack: in a frame as those who follow frame
    /// pointers expect it, described at each instruction for those who do not.
    macro_rules! in_frame {
        ($($instruction:literal,)* ; $($operands:tt)*) => {
            naked_asm!(
                ".cfi_startproc",
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                $($instruction,)*
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                $($operands)*
            )
        };
    }

    /// Allocates, and tells the recorder.
    ///
    /// # Safety
    ///
    /// As for [`block_of`].
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn alloc_and_tell<A: GlobalAlloc, const IS_ZEROED: bool>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        in_frame!(
            "push rdi",
            "push rax",
            "call {alloc_in}",
            "mov [rsp], rax",
            "lea rdi, [rbp + 16]",
            "mov rsi, rdx",
            "call {allocated_from}",
            "pop rax",
            ;
            alloc_in = sym alloc_in::<A, IS_ZEROED>,
            allocated_from = sym allocated_from,
        )
    }

    // Of an ABI that the call can rely on.
    unsafe extern "C-unwind" fn alloc_in<A: GlobalAlloc, const IS_ZEROED: bool>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> Allocated {
        // SAFETY: the caller's promise.
        let block = unsafe { block_of::<A, IS_ZEROED>(size, align, inner) };
        Allocated { block, state: thread::state() }
    }

    extern "C-unwind" fn allocated_from(sp: *const u64, state: *const ThreadState) {
        // SAFETY: the thread's own, which it has as long as it runs.
        Recorder::allocated(Entry(sp), unsafe { &*state });
    }

    /// Resizes a block, and tells the recorder before and afterwards.
    ///
    /// # Safety
    ///
    /// As for [`realloc`].
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn realloc_and_tell<A: GlobalAlloc>(
        block: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        state: State,
        inner: &A,
    ) -> *mut u8 {
        in_frame!(
            "push rcx",
            "push rdi",
            "push r8",
            "push r9",
            "sub rsp, {old_size}",
            "mov rcx, rsp",
            "call {resize_in_frame}",
            "mov [rbp - 16], rax",
            "lea rdi, [rbp + 16]",
            "mov rsi, rdx",
            "call {resized_from}",
            "mov rax, [rbp - 16]",
            ;
            old_size = const size_of::<Old>(),
            resize_in_frame = sym resize_in_frame::<A>,
            resized_from = sym resized_from,
        )
    }

    // The stack pointer is a multiple of 16 at a call: with the return address and the frame pointer above the frame.
    const _: () = assert!(size_of::<Frame<()>>().is_multiple_of(16) && align_of::<Old>() <= 8);

    /// Nearly all blocks are resized with two registers saved: whatever else there is to do is done by functions that
    /// this one jumps to.
    unsafe extern "C-unwind" fn resize_in_frame<A: GlobalAlloc>(
        block: *mut u8,
        size: usize,
        align: usize,
        frame: *mut Frame<A>,
    ) -> Allocated {
        // SAFETY: the caller's own, of which it has filled in all but what is old.
        let filled = unsafe { &mut *frame };
        let addr = block.addr() as u64;
        let trace = if filled.state.is_plain() { RECORDER.live.take_at_home(addr) } else { None };
        if trace.is_none() {
            // SAFETY: the caller's promise.
            return unsafe { resize_otherwise_in_frame(block, size, align, frame) };
        }
        filled.old.write(Old { trace, birth: Birth::UNKNOWN });
        // SAFETY: the caller's promise.
        unsafe { resize_taken(block, size, align, frame) }
    }

    /// The same for any block in any state.
    #[inline(never)]
    unsafe extern "C-unwind" fn resize_otherwise_in_frame<A: GlobalAlloc>(
        block: *mut u8,
        size: usize,
        align: usize,
        frame: *mut Frame<A>,
    ) -> Allocated {
        // SAFETY: as in `resize_in_frame`.
        let filled = unsafe { &mut *frame };
        filled.old.write(RECORDER.resizing(block, filled.size, filled.state));
        // SAFETY: the caller's promise.
        unsafe { resize_taken(block, size, align, frame) }
    }

    /// The same for a block whose trace was taken out.
    #[inline(always)]
    unsafe fn resize_taken<A: GlobalAlloc>(
        block: *mut u8,
        size: usize,
        align: usize,
        frame: *mut Frame<A>,
    ) -> Allocated {
        // SAFETY: as in `resize_in_frame`.
        let filled = unsafe { &*frame };
        // SAFETY: as above: the caller has a reference.
        let inner = unsafe { &*filled.inner };
        // SAFETY: the caller's promise.
        let block = unsafe { realloc(block, size, align, filled.size, inner) };
        if block.is_null() {
            // SAFETY: what is old has been filled in, too.
            return unsafe { put_back_in_frame(frame.cast()) };
        }
        Allocated { block, state: thread::state() }
    }

    /// Puts the trace back of a block that could not be resized.
    #[cold]
    #[inline(never)]
    unsafe extern "C-unwind" fn put_back_in_frame(frame: *const Frame<()>) -> Allocated {
        // SAFETY: the caller's promise: all of it has been filled in.
        let filled = unsafe { &*frame };
        // SAFETY: as above.
        let old = unsafe { filled.old.assume_init() };
        RECORDER.not_resized(filled.block, old, filled.state);
        Allocated { block: core::ptr::null_mut(), state: thread::state() }
    }

    extern "C-unwind" fn resized_from(sp: *const u64, state: *const ThreadState) {
        // SAFETY: the thread's own, which it has as long as it runs.
        Recorder::resized(ResizedEntry(Entry(sp)), unsafe { &*state });
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(memtrace_portable))))]
mod by_target {
    use super::{Old, block_of, realloc};
    use crate::recorder::{RECORDER, Recorder};
    use crate::state::State;
    use crate::thread;
    use core::alloc::GlobalAlloc;
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
    /// As for [`block_of`].
    #[inline(never)]
    pub(crate) unsafe fn alloc_and_tell<A: GlobalAlloc, const IS_ZEROED: bool>(
        size: usize,
        align: usize,
        inner: &A,
    ) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { block_of::<A, IS_ZEROED>(size, align, inner) };
        let entry = Entry { here: here(), block, size };
        if thread::with_state(|state| Recorder::allocated(entry, state)).is_none() {
            Recorder::allocated_otherwise(entry);
        }
        block
    }

    /// Whence the recorder was entered for a block that was resized.
    #[derive(Clone, Copy)]
    pub(crate) struct ResizedEntry {
        entry: Entry,
        old: Old,
        state: State,
    }

    impl ResizedEntry {
        #[inline(always)]
        pub(crate) fn entry(self) -> Entry {
            self.entry
        }

        /// What was known of the block before.
        #[inline(always)]
        pub(crate) fn old(&self) -> &Old {
            &self.old
        }

        /// The state in which that was recorded.
        #[inline(always)]
        pub(crate) fn state(&self) -> State {
            self.state
        }
    }

    /// Resizes a block, and tells the recorder before and afterwards.
    ///
    /// # Safety
    ///
    /// As for [`realloc`].
    #[inline(never)]
    pub(crate) unsafe fn realloc_and_tell<A: GlobalAlloc>(
        block: *mut u8,
        size: usize,
        align: usize,
        new_size: usize,
        state: State,
        inner: &A,
    ) -> *mut u8 {
        let old = RECORDER.resizing(block, new_size, state);
        // SAFETY: the caller's promise.
        let new_block = unsafe { realloc(block, size, align, new_size, inner) };
        if new_block.is_null() {
            RECORDER.not_resized(block, old, state);
        }
        let entry = Entry { here: here(), block: new_block, size: new_size };
        let resized = ResizedEntry { entry, old, state };
        if thread::with_state(|state| Recorder::resized(resized, state)).is_none() {
            Recorder::resized_otherwise(resized);
        }
        new_block
    }
}

pub(crate) use by_target::{Entry, ResizedEntry, alloc_and_tell, realloc_and_tell};

/// What is known of a block that is being resized: its trace, which was taken out, and when it was born.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Old {
    pub(crate) trace: Option<LiveTrace>,
    pub(crate) birth: Birth,
}

/// Has the wrapped allocator resize a block; returns that, or null if it could not be resized.
///
/// # Safety
///
/// As for [`GlobalAlloc::realloc`] of a layout with this size and alignment.
#[inline(always)]
unsafe fn realloc<A: GlobalAlloc>(
    block: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
    inner: &A,
) -> *mut u8 {
    // SAFETY: they are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    // SAFETY: the caller's promise.
    unsafe { inner.realloc(block, layout, new_size) }
}

/// Asks the wrapped allocator for a block, zeroed or not.
///
/// # Safety
///
/// As for [`GlobalAlloc::alloc`] of a layout with this size and alignment.
#[inline(always)]
unsafe fn block_of<A: GlobalAlloc, const IS_ZEROED: bool>(
    size: usize,
    align: usize,
    inner: &A,
) -> *mut u8 {
    // SAFETY: they are a layout's.
    let layout = unsafe { Layout::from_size_align_unchecked(size, align) };
    if IS_ZEROED {
        // SAFETY: the caller's promise.
        unsafe { inner.alloc_zeroed(layout) }
    } else {
        // SAFETY: as above.
        unsafe { inner.alloc(layout) }
    }
}
