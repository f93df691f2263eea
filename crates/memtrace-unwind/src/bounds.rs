//! The memory that a walk on the current thread may read: the thread's own stack.
//!
//! On glibc the main thread's stack ends at `__libc_stack_end`, which costs a load; what
//! `pthread_getattr_np` does there instead (open and parse `/proc/self/maps`) has no place in an
//! allocator. For every other thread `pthread_getattr_np` reads the thread's own control block.
#![expect(unsafe_code, reason = "asks the C library about the thread's stack")]

use core::ops::Range;

/// The address range of a thread's own stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackBounds {
    /// A multiple of 8.
    low: u64,
    n_words: u64,
}

impl StackBounds {
    /// Bounds that contain nothing: every stack counts as a foreign one.
    pub const UNKNOWN: Self = Self { low: 0, n_words: 0 };

    /// Returns the bounds of the current thread's stack, or [`Self::UNKNOWN`] if the system does not
    /// tell.
    ///
    /// **Cost**: about half a microsecond; keep the result for the life of the thread. Calls the C
    /// library's `malloc` on threads other than the main one.
    pub fn current() -> Self {
        Self::of_main_thread().or_else(Self::of_pthread).unwrap_or(Self::UNKNOWN)
    }

    /// Makes bounds from a range, for walks over memory that is not a thread's stack.
    ///
    /// Of words that lie only partly within, none belongs to them.
    pub const fn from_range(range: Range<u64>) -> Self {
        let Some(low) = range.start.checked_next_multiple_of(8) else { return Self::UNKNOWN };
        let n_bytes = range.end.saturating_sub(low);
        Self { low, n_words: n_bytes >> 3 }
    }

    /// Whether these are [`Self::UNKNOWN`].
    pub const fn is_unknown(&self) -> bool {
        self.n_words == 0
    }

    /// Whether `addr` is a multiple of 8 and the eight bytes there lie within.
    #[inline(always)]
    pub const fn contains_word(&self, addr: u64) -> bool {
        // The low bits, which must be clear, become the highest ones: one comparison for all.
        addr.wrapping_sub(self.low).rotate_right(3) < self.n_words
    }

    /// Returns the part of a stack from `low` on, if `sp` lies within the stack.
    #[inline(always)]
    pub(crate) const fn above(&self, low: u64, sp: u64) -> Option<Self> {
        let end = self.low.wrapping_add(self.n_words.wrapping_mul(8));
        if sp < self.low || sp >= end {
            return None;
        }
        let low = if low < self.low || low > sp { self.low } else { low & !7 };
        Some(Self { low, n_words: end.wrapping_sub(low) >> 3 })
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn of_main_thread() -> Option<Self> {
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
        Some(Self::from_range(high.saturating_sub(size)..high))
    }

    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    fn of_main_thread() -> Option<Self> {
        None
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn of_pthread() -> Option<Self> {
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
        let failed =
            unsafe { libc::pthread_attr_getstack(attr.as_ptr(), &mut base, &mut size) } != 0;
        // SAFETY: `attr` was initialised above and is not used again.
        unsafe { libc::pthread_attr_destroy(attr.as_mut_ptr()) };
        if failed {
            return None;
        }
        let low = base as u64;
        Some(Self::from_range(low..low.checked_add(size as u64)?))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    fn of_pthread() -> Option<Self> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn a_local_variable_lies_within_the_bounds_of_its_thread() {
        let check = || {
            let local = 0u64;
            let bounds = StackBounds::current();
            assert!(bounds.contains_word(&raw const local as u64), "{bounds:x?}");
            bounds
        };
        let mine = check();
        let other = std::thread::spawn(check).join().unwrap();
        assert_ne!(mine, other);
    }

    #[test]
    fn a_heap_block_does_not_lie_within_the_bounds() {
        let block = std::boxed::Box::new(0u64);
        assert!(!StackBounds::current().contains_word(&raw const *block as u64));
        assert!(!StackBounds::UNKNOWN.contains_word(&raw const *block as u64));
    }
}
