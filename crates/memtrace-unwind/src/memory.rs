//! Memory, as the C library tells of it and gives it: the stack of a thread, and pages.
//!
//! On glibc the main thread's stack ends at `__libc_stack_end`, which costs a load; what
//! `pthread_getattr_np` does there instead (open and parse `/proc/self/maps`) has no place in an
//! allocator. For every other thread `pthread_getattr_np` reads the thread's own control block.
//!
//! # Invariants
//!
//! - **I1** [`Words`] of length `n` own `n` zero-initialised, mapped words, which nothing else refers
//!   to.
#![expect(unsafe_code, reason = "calls the C library, and refers to mapped memory")]

use core::ops::{Deref, DerefMut, Range};
use core::ptr::NonNull;

/// Returns the addresses of the current thread's stack, if the system tells.
pub(crate) fn stack_range() -> Option<Range<u64>> {
    // The thread that a process was forked by has the number of a main thread, and another stack.
    let local = 0u64;
    let here = &raw const local as u64;
    main_stack().filter(|stack| stack.contains(&here)).or_else(pthread_stack)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn main_stack() -> Option<Range<u64>> {
    unsafe extern "C" {
        static __libc_stack_end: *const u8;
    }
    // SAFETY: a system call without arguments.
    let pid = unsafe { libc::getpid() };
    // SAFETY: a system call without arguments.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    if i64::from(pid) != tid {
        return None;
    }
    // SAFETY: the loader sets this variable before any code of the program runs and never again.
    let end = unsafe { __libc_stack_end } as u64;
    if end == 0 {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &mut limit) } != 0;
    // The lower bound only tells this stack from others; an unlimited one is cut to what no
    // other mapping can be close to.
    let size = if failed { 8 << 20 } else { limit.rlim_cur.clamp(1 << 20, 1 << 30) };
    // The words above the end are the arguments, in the same mapping and the same page.
    let high = end.checked_next_multiple_of(4096)?;
    Some(high.saturating_sub(size)..high)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main_stack() -> Option<Range<u64>> {
    None
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn pthread_stack() -> Option<Range<u64>> {
    let mut attr = core::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: returns the calling thread's handle.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: `attr` is a valid place for the result, initialised when 0 is returned.
    if unsafe { libc::pthread_getattr_np(thread, attr.as_mut_ptr()) } != 0 {
        return None;
    }
    let mut base = core::ptr::null_mut();
    let mut size = 0;
    // SAFETY: `attr` was initialised by the call above.
    let failed = unsafe { libc::pthread_attr_getstack(attr.as_ptr(), &mut base, &mut size) } != 0;
    // SAFETY: `attr` was initialised above and is not used again.
    unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
    if failed {
        return None;
    }
    let low = base as u64;
    Some(low..low.checked_add(size as u64)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn pthread_stack() -> Option<Range<u64>> {
    None
}

/// Mapped words, unmapped when dropped.
pub(crate) struct Words {
    start: NonNull<u64>,
    len: usize,
}

impl Words {
    pub(crate) const fn none() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }

    /// Maps `len` words of zeros; `None` if there is no memory.
    pub(crate) fn map(len: usize) -> Option<Self> {
        let n_bytes = len.checked_mul(8).filter(|&n_bytes| n_bytes != 0)?;
        // SAFETY: a new private mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                n_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        #[cfg(target_os = "linux")]
        // SAFETY: advice on the mapping made above. It is touched sparsely.
        unsafe {
            libc::madvise(start, n_bytes, libc::MADV_NOHUGEPAGE)
        };
        NonNull::new(start.cast()).map(|start| Self { start, len })
    }
}

impl Deref for Words {
    type Target = [u64];

    #[inline(always)]
    fn deref(&self) -> &[u64] {
        // SAFETY: so many initialised words, borrowed as long as `self` is (I1).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Words {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: so many initialised words, exclusively borrowed as long as `self` is (I1).
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if self.len != 0 {
            let n_bytes = self.len.wrapping_mul(8);
            // SAFETY: the mapping that `map` made, to which nothing refers any more (I1).
            unsafe { libc::munmap(self.start.as_ptr().cast(), n_bytes) };
        }
    }
}
