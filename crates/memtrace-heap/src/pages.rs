//! Page sources: where a heap gets its address space from and gives it back to.
//!
//! # Mechanism
//! [`SystemPages`] asks the kernel for private anonymous memory (`mmap`), which arrives zeroed and
//! costs no physical memory until it is touched. The kernel aligns to a page; a larger alignment
//! is had by mapping `size + align - page` bytes and unmapping the two ends that are not wanted,
//! so that what stays mapped is exactly what was asked for.
//!
//! # Invariants
//! I1 to I4, which every [`PageSource`] promises and the heap relies on, stand at the trait.
//!
//! # Cost
//! One system call a map or unmap (about 1 µs), up to five for a map aligned above a page; the
//! first touch of each page costs a fault (about 0.1–0.25 µs for 4 KiB, and zeroing).
#![expect(unsafe_code, reason = "maps and unmaps memory with the system calls of libc")]

use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The granularity of every mapping, in bytes: sizes passed to a [`PageSource`] are multiples.
///
/// Where the hardware page is larger (16 or 64 KiB on some systems) the kernel rounds a mapping's
/// length up by itself; trimming then works in the larger unit as long as sizes are multiples of
/// it, which the arenas of a heap are.
pub const PAGE_SIZE: usize = 4096;

/// A supplier of zeroed, page-aligned memory.
///
/// # Safety
/// An implementation promises:
///
/// - **I1** A non-null result of [`map`](Self::map) is aligned to the alignment asked for, one of
///   [`remap`](Self::remap) to [`PAGE_SIZE`].
/// - **I2** The whole size is readable and writable, zero where it is new, and belongs to the
///   caller alone until it is unmapped.
/// - **I3** Failure is a null pointer: no panic, no partial mapping left behind.
/// - **I4** No method allocates through the global allocator, or uses the heap it serves.
/// - **I5** All of this holds for records in any case, and for blocks where [`HAS_MEMORY`] is true;
///   where it is false, blocks' addresses are aligned and belong to the caller alone, but nothing is
///   there.
///
/// [`HAS_MEMORY`]: Self::HAS_MEMORY
pub unsafe trait PageSource {
    /// Whether there is memory behind the addresses that [`map`](Self::map) returns. Where there is
    /// none, a heap places blocks and accounts for them, and touches none: it is a model.
    const HAS_MEMORY: bool = true;

    /// Whether this is [`SystemPages`], all values of which are the same.
    #[doc(hidden)]
    const IS_SYSTEM: bool = false;

    /// Maps `size` bytes of zeroed memory aligned to `align`, or returns null.
    ///
    /// `size` is a non-zero multiple of [`PAGE_SIZE`]; `align` is a power of two, and one below
    /// the page size is satisfied by any page.
    fn map(&self, size: usize, align: usize) -> *mut u8;

    /// Gives `size` bytes at `ptr` back.
    ///
    /// # Safety
    /// `ptr` and `size` are exactly those of one earlier [`map`](Self::map) (or of a later
    /// [`remap`](Self::remap) of it) on this source, not unmapped since, and nothing refers to
    /// that memory any more.
    unsafe fn unmap(&self, ptr: *mut u8, size: usize);

    /// Changes the size of a mapping, moving it if it must, and returns where it lies now; or
    /// returns null and leaves the mapping as it was.
    ///
    /// The first `min(old_size, new_size)` bytes are kept; bytes beyond `old_size` are zero. What
    /// moves is aligned to a page and to no more; what shrinks does not move. The default declines,
    /// and the heap then copies.
    ///
    /// # Safety
    /// As for [`unmap`](Self::unmap) with `old_size`; `new_size` is a non-zero multiple of
    /// [`PAGE_SIZE`]. On success the old address must not be used again.
    unsafe fn remap(&self, ptr: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
        let _ = (ptr, old_size, new_size);
        ptr::null_mut()
    }

    /// Gives the contents of `size` bytes at `ptr` back, so that they take no memory until they are
    /// touched again, and are zero then; the addresses stay. Returns whether that was done; the
    /// default declines, and the heap then keeps the pages.
    ///
    /// # Safety
    /// The range is whole pages inside one live mapping of this source, and nothing refers to it.
    unsafe fn discard(&self, ptr: *mut u8, size: usize) -> bool {
        let _ = (ptr, size);
        false
    }

    /// Asks for huge pages behind `size` bytes at `ptr`, where the system has any; the default does
    /// nothing.
    ///
    /// # Safety
    /// The range is one whole mapping of this source.
    unsafe fn prefer_huge(&self, ptr: *mut u8, size: usize) {
        let _ = (ptr, size);
    }

    /// The milliseconds since some moment, coarsely: what a heap goes by to keep pages that are used
    /// again soon. The default has no clock, and keeps them by their number alone.
    fn millis(&self) -> u64 {
        0
    }

    /// Maps `size` bytes for the heap's own records, always with memory behind them, or returns
    /// null. The default takes them from where blocks come from.
    fn map_records(&self, size: usize) -> *mut u8 {
        self.map(size, PAGE_SIZE)
    }

    /// As [`discard`](Self::discard), for records.
    ///
    /// # Safety
    /// As for `discard`, with an earlier [`map_records`](Self::map_records).
    unsafe fn discard_records(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise, and the records came from `map`.
        unsafe { self.discard(ptr, size) }
    }

    /// Gives back what [`map_records`](Self::map_records) mapped.
    ///
    /// # Safety
    /// As for [`unmap`](Self::unmap), with an earlier `map_records`.
    unsafe fn unmap_records(&self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise, and the records came from `map`.
        unsafe { self.unmap(ptr, size) }
    }
}

/// No memory at all: addresses are counted up from 4 GiB and never used again, records come from
/// the system. A heap over it is a model, to be fed with sizes and frees.
///
/// ```
/// use memtrace_heap::{NoMemory, PAGE_SIZE, PageSource};
///
/// let pages = NoMemory::new();
/// let far = pages.map(1 << 40, 1 << 30);
/// assert_eq!(far.addr() % (1 << 30), 0);
/// assert_ne!(far, pages.map(PAGE_SIZE, PAGE_SIZE));
/// ```
#[derive(Debug)]
pub struct NoMemory {
    next_addr: AtomicUsize,
    offset: usize,
}

impl NoMemory {
    /// A source that aligns as it is asked to.
    #[must_use]
    pub const fn new() -> NoMemory {
        NoMemory::misaligned_by(0)
    }

    /// A source whose mappings begin `offset` bytes past the alignment asked for: what a heap makes
    /// of a system that only aligns to pages.
    #[must_use]
    pub const fn misaligned_by(offset: usize) -> NoMemory {
        NoMemory { next_addr: AtomicUsize::new(1 << 32), offset }
    }
}

impl Default for NoMemory {
    fn default() -> NoMemory {
        NoMemory::new()
    }
}

// SAFETY: I1, unless a test asked for misaligned results; I2 for records by SystemPages; no address
// is given twice; I3 and I4 because this only counts.
unsafe impl PageSource for NoMemory {
    const HAS_MEMORY: bool = false;

    fn map(&self, size: usize, align: usize) -> *mut u8 {
        let mask = align.wrapping_sub(1);
        let place = |addr: usize| Some(addr.checked_add(mask)? & !mask);
        let end = |addr| place(addr)?.checked_add(size)?.checked_add(self.offset);
        // Relaxed: the counter publishes nothing but itself. Above 47 bits there are no addresses.
        let claimed = self.next_addr.try_update(Ordering::Relaxed, Ordering::Relaxed, |addr| {
            end(addr).filter(|&end| end < 1 << 47)
        });
        match claimed.ok().and_then(place) {
            Some(addr) => ptr::without_provenance_mut(addr.wrapping_add(self.offset)),
            None => ptr::null_mut(),
        }
    }

    unsafe fn unmap(&self, _: *mut u8, _: usize) {}

    unsafe fn discard(&self, _: *mut u8, _: usize) -> bool {
        true
    }

    fn map_records(&self, size: usize) -> *mut u8 {
        SystemPages.map_records(size)
    }

    unsafe fn discard_records(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.discard_records(ptr, size) }
    }

    unsafe fn unmap_records(&self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { SystemPages.unmap_records(ptr, size) }
    }
}

/// Pages from the kernel: private, anonymous, not reserved in swap, zeroed.
///
/// ```
/// use memtrace_heap::{PAGE_SIZE, PageSource, SystemPages};
///
/// let ptr = SystemPages.map(16 * PAGE_SIZE, 1 << 20);
/// assert!(!ptr.is_null());
/// assert_eq!(ptr.addr() % (1 << 20), 0);
/// // SAFETY: just mapped with this size, and nothing refers to it.
/// unsafe { SystemPages.unmap(ptr, 16 * PAGE_SIZE) };
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemPages;

// SAFETY: I1 by `map_trimmed` or the check before it; I2 by mmap's contract for private anonymous
// mappings; I3 because a failed call yields null and leaves nothing mapped; I4 because only system
// calls are made.
unsafe impl PageSource for SystemPages {
    const IS_SYSTEM: bool = true;

    fn map(&self, size: usize, align: usize) -> *mut u8 {
        // Tried plainly first: a second arena usually lands right below the first, aligned.
        let ptr = map_anonymous(size);
        if ptr.is_null() || align <= PAGE_SIZE || ptr.addr() & align.wrapping_sub(1) == 0 {
            return ptr;
        }
        // SAFETY: mapped above with this size and never handed out.
        unsafe { unmap(ptr, size) };
        map_trimmed(size, align)
    }

    unsafe fn unmap(&self, ptr: *mut u8, size: usize) {
        // SAFETY: the caller's promise is the one `unmap` asks for.
        unsafe { unmap(ptr, size) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn remap(&self, ptr: *mut u8, old_size: usize, new_size: usize) -> *mut u8 {
        // SAFETY: the caller names one whole live mapping that nothing else refers to; the kernel
        // moves it or fails without touching it.
        let moved = unsafe { libc::mremap(ptr.cast(), old_size, new_size, libc::MREMAP_MAYMOVE) };
        if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn prefer_huge(&self, ptr: *mut u8, size: usize) {
        // SAFETY: a hint about a mapping of the caller's, which changes no contents.
        let _ = unsafe { libc::madvise(ptr.cast(), size, libc::MADV_HUGEPAGE) };
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn millis(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is writable. Not a system call, and exact to a few milliseconds.
        if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) } != 0 {
            return 0;
        }
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
        seconds.wrapping_mul(1000).wrapping_add(millis)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe fn discard(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: nothing refers to the range, which is whole pages of a private anonymous mapping:
        // the kernel takes the pages and gives zeroed ones at the next touch.
        unsafe { libc::madvise(ptr.cast(), size, libc::MADV_DONTNEED) == 0 }
    }
}

/// Maps `size` bytes wherever the kernel likes; null on failure.
fn map_anonymous(size: usize) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing that
    // exists.
    let ptr = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if ptr == libc::MAP_FAILED { ptr::null_mut() } else { ptr.cast() }
}

/// Maps more than `size` bytes and unmaps both ends so that `size` aligned bytes remain.
fn map_trimmed(size: usize, align: usize) -> *mut u8 {
    // The kernel's own alignment is at least PAGE_SIZE, so this much surely holds an aligned run.
    let Some(padded) = size.checked_add(align.wrapping_sub(PAGE_SIZE)) else {
        return ptr::null_mut();
    };
    let raw = map_anonymous(padded);
    if raw.is_null() {
        return raw;
    }
    let mask = align.wrapping_sub(1);
    let head = align.wrapping_sub(raw.addr() & mask) & mask;
    let kept = raw.wrapping_add(head);
    let tail = padded.wrapping_sub(head).wrapping_sub(size);
    if head != 0 {
        // SAFETY: the first `head` bytes of `raw`'s mapping, never handed out.
        unsafe { unmap(raw, head) };
    }
    if tail != 0 {
        // SAFETY: the last `tail` bytes of `raw`'s mapping, never handed out.
        unsafe { unmap(kept.wrapping_add(size), tail) };
    }
    kept
}

/// Unmaps; a failure (the kernel out of mapping slots) leaks the pages, which stay harmless.
///
/// # Safety
/// The range is whole pages of a live mapping that nothing refers to.
unsafe fn unmap(ptr: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    let _ = unsafe { libc::munmap(ptr.cast(), size) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map_write_unmap(size: usize, align: usize) {
        let ptr = SystemPages.map(size, align);
        assert!(!ptr.is_null(), "size {size} align {align}");
        assert_eq!(ptr.addr() % align, 0);
        for at in [0, size / 2, size - 1] {
            // SAFETY: inside the `size` bytes just mapped, which nothing else refers to.
            let byte = unsafe { &mut *ptr.wrapping_add(at) };
            assert_eq!(*byte, 0);
            *byte = 0xa5;
        }
        // SAFETY: mapped above with this size; the references are gone.
        unsafe { SystemPages.unmap(ptr, size) };
    }

    #[test]
    fn every_alignment_is_honoured_and_the_memory_is_zero() {
        for shift in 0..=26 {
            map_write_unmap(PAGE_SIZE, 1 << shift);
            map_write_unmap(5 * PAGE_SIZE, 1 << shift);
        }
    }

    #[test]
    fn an_impossible_size_is_null_and_not_a_panic() {
        assert!(SystemPages.map(usize::MAX & !(PAGE_SIZE - 1), 1).is_null());
        assert!(SystemPages.map(1 << 62, 1 << 62).is_null());
        assert!(SystemPages.map(PAGE_SIZE, 1 << 63).is_null());
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn remap_keeps_the_contents_and_zeroes_what_it_adds() {
        let ptr = SystemPages.map(PAGE_SIZE, 1);
        // SAFETY: one mapped page.
        unsafe { ptr.write_bytes(7, PAGE_SIZE) };
        // SAFETY: `ptr` is one whole live mapping of PAGE_SIZE bytes.
        let grown = unsafe { SystemPages.remap(ptr, PAGE_SIZE, 64 * PAGE_SIZE) };
        assert!(!grown.is_null());
        // SAFETY: 64 pages are mapped at `grown`.
        let bytes = unsafe { core::slice::from_raw_parts(grown, 64 * PAGE_SIZE) };
        assert!(bytes[..PAGE_SIZE].iter().all(|&byte| byte == 7));
        assert!(bytes[PAGE_SIZE..].iter().all(|&byte| byte == 0));
        // SAFETY: the mapping as `remap` left it.
        unsafe { SystemPages.unmap(grown, 64 * PAGE_SIZE) };
    }
}
