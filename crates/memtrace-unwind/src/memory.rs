//! Memory, as the C library tells of it and gives it: the stack of a thread, and pages.
//!
//! On glibc the main thread's stack ends at `__libc_stack_end`, which costs a load; what
//! `pthread_getattr_np` does there instead (open and parse `/proc/self/maps`) has no place in an
//! allocator. For every other thread `pthread_getattr_np` reads the thread's own control block.
//!
//! # Invariants
//!
//! - **I1** [`Words`] of length `n` own `n` initialised, mapped words, which nothing else refers to; a [`Slot`]
//!   that holds some owns them.
#![expect(unsafe_code, reason = "calls the C library, and refers to mapped memory")]

use core::ops::{Deref, DerefMut, Range};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

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
    let mut base = ptr::null_mut();
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

/// Bytes from which a mapping is to lie in huge pages, where the system has them.
#[cfg(target_os = "linux")]
const MIN_HUGE: usize = 4 << 20;

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
                ptr::null_mut(),
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
        {
            // What is small is touched sparsely; what is large is filled from its beginning.
            let advice =
                if n_bytes < MIN_HUGE { libc::MADV_NOHUGEPAGE } else { libc::MADV_HUGEPAGE };
            // SAFETY: advice on the mapping made above.
            unsafe { libc::madvise(start, n_bytes, advice) };
        }
        NonNull::new(start.cast()).map(|start| Self { start, len })
    }
}

/// A place for words of one length, for any thread to put them there and take them.
pub(crate) struct Slot {
    len: usize,
    /// Null, or where words of this length begin, which the slot owns.
    start: AtomicPtr<u64>,
}

impl Slot {
    pub(crate) const fn for_len(len: usize) -> Self {
        Self { len, start: AtomicPtr::new(ptr::null_mut()) }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Takes words from `from` if they are of this length and none are here.
    pub(crate) fn put(&self, from: &mut Option<Words>) {
        let Some(words) = from.take_if(|words| words.len == self.len && self.len != 0) else {
            return;
        };
        let start = words.start.as_ptr();
        // Release pairs with the Acquire in `take`: whoever takes the words has them to itself.
        if self.start.compare_exchange(ptr::null_mut(), start, Release, Relaxed).is_ok() {
            core::mem::forget(words);
        } else {
            *from = Some(words);
        }
    }

    /// Takes the words that are here.
    pub(crate) fn take(&self) -> Option<Words> {
        // A look first, so that who finds nothing writes to nothing that others share.
        if self.start.load(Relaxed).is_null() {
            return None;
        }
        let start = NonNull::new(self.start.swap(ptr::null_mut(), Acquire))?;
        Some(Words { start, len: self.len })
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

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn a_slot_takes_one_of_its_length_and_gives_it_back_as_it_was() {
        let slot = Slot::for_len(512);
        assert!(slot.take().is_none());
        let mut other = Words::map(1024);
        slot.put(&mut other);
        assert!(other.is_some() && slot.take().is_none(), "of another length");
        let mut words = Words::map(512);
        words.as_mut().unwrap()[3] = 5;
        let start = words.as_ref().unwrap().start;
        slot.put(&mut words);
        assert!(words.is_none());
        let mut second = Words::map(512);
        slot.put(&mut second);
        assert!(second.is_some(), "it is taken");
        let taken = slot.take().unwrap();
        assert_eq!((taken.start, taken.len(), taken[3]), (start, 512, 5));
        assert!(slot.take().is_none());
        let (nothing, mut none) = (Slot::for_len(0), Some(Words::none()));
        nothing.put(&mut none);
        assert!(none.is_some() && nothing.take().is_none());
    }

    #[test]
    fn threads_that_share_a_slot_never_have_the_same_words() {
        let slots = [const { Slot::for_len(512) }; 2];
        std::thread::scope(|scope| {
            for mark in 1..=4 {
                let slots = &slots;
                scope.spawn(move || {
                    for _ in 0..10_000 {
                        let mut words =
                            slots.iter().find_map(Slot::take).or_else(|| Words::map(512));
                        words.as_mut().unwrap().fill(mark);
                        assert!(words.as_deref().unwrap().iter().all(|&word| word == mark));
                        slots.iter().for_each(|slot| slot.put(&mut words));
                    }
                });
            }
        });
        drop(slots.map(|slot| slot.take()));
    }
}
