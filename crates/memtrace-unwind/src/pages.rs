//! Memory for caches: mapped pages within a budget, given back when a cache is dropped.
//!
//! # Invariants
//!
//! - **I1** A [`Pages`] of length `n` owns `n` zero-initialised, mapped words, which nothing else
//!   refers to.
//! - **I2** `USED` is the sum of the bytes of all [`Pages`] there are, and those being mapped.
//!
//! # Orderings
//!
//! `USED` and `BUDGET` are `Relaxed`: they are figures and publish nothing.
#![expect(unsafe_code, reason = "maps and unmaps memory")]

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that the caches of all threads may take, unless [`set_cache_budget`] says otherwise.
pub(crate) const DEFAULT_BUDGET: u64 = 256 << 20;

static BUDGET: AtomicU64 = AtomicU64::new(DEFAULT_BUDGET);
static USED: AtomicU64 = AtomicU64::new(0);

/// Limits what the caches of all threads take together, in bytes; 256 MiB at first.
///
/// Small caches, of 20 KiB, are given out until the budget is used up, larger ones until half of it
/// is. A thread that gets none walks its stack each time. What is in use already stays in use.
pub fn set_cache_budget(bytes: u64) {
    BUDGET.store(bytes, Relaxed);
}

/// Returns how many bytes are mapped for the caches of all threads; what was never touched of them is
/// not resident.
pub fn cache_memory() -> u64 {
    USED.load(Relaxed)
}

/// Mapped words.
pub(crate) struct Pages {
    words: NonNull<u64>,
    len: usize,
}

impl Pages {
    pub(crate) const fn empty() -> Self {
        Self { words: NonNull::dangling(), len: 0 }
    }

    /// Maps room for `len` words, if all caches together then take at most one `part`-th of the
    /// budget; `None` if there is no room.
    pub(crate) fn map(len: usize, part: u64) -> Option<Self> {
        let n_bytes = len.checked_mul(8).filter(|&n_bytes| n_bytes != 0)?;
        let limit = BUDGET.load(Relaxed).checked_div(part)?;
        let reserve = |used: u64| used.checked_add(n_bytes as u64).filter(|&used| used <= limit);
        USED.fetch_update(Relaxed, Relaxed, reserve).ok()?;
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
            USED.fetch_sub(n_bytes as u64, Relaxed);
            return None;
        }
        NonNull::new(start.cast()).map(|words| Self { words, len })
    }
}

impl Deref for Pages {
    type Target = [u64];

    #[inline(always)]
    fn deref(&self) -> &[u64] {
        // SAFETY: so many initialised words, borrowed as long as `self` is (I1).
        unsafe { core::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }
}

impl DerefMut for Pages {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: so many initialised words, exclusively borrowed as long as `self` is (I1).
        unsafe { core::slice::from_raw_parts_mut(self.words.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.len != 0 {
            let n_bytes = self.len.wrapping_mul(8);
            // SAFETY: the mapping that `map` made, to which nothing refers any more (I1).
            unsafe { libc::munmap(self.words.as_ptr().cast(), n_bytes) };
            USED.fetch_sub(n_bytes as u64, Relaxed);
        }
    }
}
