//! The tracer's own memory: mapped, zeroed, accounted by part, and within a limit. Addresses are never given
//! back; memory behind them may be.
//!
//! # The limit
//!
//! What counts against it is memory that is, or will be, written to. A *dense* region is used from its beginning
//! to its end, and counts as it is mapped. Of a *sparse* one, found by address, few pages are; its user charges
//! for each of them before it is first written to. Whoever gets nothing goes without, as if the system had had
//! nothing to give.
//!
//! # Invariants
//!
//! - **I1** Every region is a list node followed by its payload; nodes are pushed at the head of one
//!   list and never removed, so that a reader may follow it at any time.
//! - **I2** A payload is zeroed, aligned to 64 bytes, and mapped until the process ends. Pages of it that are
//!   [given back](discard) are zero again.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `REGIONS` | `map` (Release) | `resident_bytes_of` (Acquire) | the node's fields |
//! | `LIMIT`, `CHARGED` | `set_limit`, `charge` (Relaxed) | `charge` (Relaxed) | nothing |
#![expect(unsafe_code, reason = "hands out mapped memory and asks the kernel about it")]

use crate::errno;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use memtrace_heap::{PAGE_SIZE, PageSource, SystemPages};

/// What a region is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Part {
    Sites,
    LiveTable,
    Tracked,
    Threads,
    Peak,
    Scratch,
}

#[repr(C, align(64))]
struct Node {
    next: *mut Node,
    /// Bytes mapped, this node included.
    size: usize,
    part: Part,
}

/// Bytes of a region that precede its payload.
pub(crate) const NODE_SIZE: usize = size_of::<Node>();

static REGIONS: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

/// What the charges may be together, in bytes.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);
/// What they are.
static CHARGED: AtomicU64 = AtomicU64::new(0);

/// Sets what may be charged, in bytes; what has been charged before stays.
pub(crate) fn set_limit(limit: u64) {
    LIMIT.store(limit, Relaxed);
}

/// Counts `size` bytes against the limit; `false` if they go beyond it.
pub(crate) fn charge(size: usize) -> bool {
    charge_up_to(LIMIT.load(Relaxed), size)
}

fn charge_up_to(limit: u64, size: usize) -> bool {
    let add = |charged: u64| charged.checked_add(size as u64).filter(|&charged| charged <= limit);
    CHARGED.fetch_update(Relaxed, Relaxed, add).is_ok()
}

/// Takes back a charge: for what was not used after all, or is used no more.
pub(crate) fn uncharge(size: usize) {
    CHARGED.fetch_sub(size as u64, Relaxed);
}

/// Returns what has been charged, in bytes.
pub(crate) fn charged() -> u64 {
    CHARGED.load(Relaxed)
}

/// Maps a dense region: zeroed, with room for `len` values of `T`; null if there is no memory for it.
///
/// Physical memory is taken page by page, as it is first written.
pub(crate) fn map<T>(len: usize, part: Part) -> *mut T {
    map_up_to(LIMIT.load(Relaxed), len, part)
}

/// The same for what is worth less than stacks and live blocks: not beyond half of the limit.
pub(crate) fn map_optional<T>(len: usize, part: Part) -> *mut T {
    map_up_to(LIMIT.load(Relaxed) / 2, len, part)
}

fn map_up_to<T>(limit: u64, len: usize, part: Part) -> *mut T {
    let size = len.saturating_mul(size_of::<T>());
    if !charge_up_to(limit, size) {
        return ptr::null_mut();
    }
    let region = map_sparse::<T>(len, part);
    if region.is_null() {
        uncharge(size);
    }
    region
}

/// Maps a sparse region, which does not count against the limit before its user [charges](charge) for it.
pub(crate) fn map_sparse<T>(len: usize, part: Part) -> *mut T {
    const { assert!(align_of::<T>() <= 64) };
    let Some(size) = len
        .checked_mul(size_of::<T>())
        .and_then(|size| size.checked_add(size_of::<Node>()))
        .and_then(|size| size.checked_next_multiple_of(PAGE_SIZE))
    else {
        return ptr::null_mut();
    };
    let node = map_node(size, PAGE_SIZE, part);
    if node.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: one past the node still lies within the region, whose size includes it.
    unsafe { node.add(1) }.cast()
}

/// Maps a sparse region of `size` bytes, a power of two and no less than a page, that is aligned to as many, and
/// returns where it begins: with [`NODE_SIZE`] bytes that are not the caller's. Null if there is no memory.
pub(crate) fn map_aligned(size: usize, part: Part) -> *mut u8 {
    map_node(size, size, part).cast()
}

/// Bytes of a huge page, and what is aligned to one.
pub(crate) const HUGE_PAGE_SIZE: usize = 2 << 20;

/// Maps a dense region of `size` bytes, [`HUGE_PAGE_SIZE`] at least, which is accessed all over at random: in huge
/// pages where the system has them, of which the processor keeps track more easily. Aligned to such a page. Null if
/// there is no memory.
pub(crate) fn map_huge(size: usize, part: Part) -> *mut u8 {
    if !charge(size) {
        return ptr::null_mut();
    }
    let region = map_sparse::<u8>(size.saturating_add(HUGE_PAGE_SIZE), part);
    if region.is_null() {
        uncharge(size);
        return region;
    }
    // The node is at the beginning of a page, and so less than a huge page before the next of them.
    let to_next = region.addr().wrapping_neg() & HUGE_PAGE_SIZE.wrapping_sub(1);
    let region = region.wrapping_add(to_next);
    #[cfg(target_os = "linux")]
    // SAFETY: advice on memory of our own.
    unsafe {
        libc::madvise(region.cast(), size, libc::MADV_HUGEPAGE)
    };
    region
}

/// Maps a region and puts it into the list.
fn map_node(size: usize, align: usize, part: Part) -> *mut Node {
    #[cfg(test)]
    if refusal::is_now() {
        return ptr::null_mut();
    }
    let node = SystemPages.map(size, align).cast::<Node>();
    if node.is_null() {
        return node;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: advice on a mapping of our own. Most tables are touched sparsely: with huge pages, one entry
    // would cost 2 MiB.
    unsafe {
        libc::madvise(node.cast(), size, libc::MADV_NOHUGEPAGE)
    };
    let mut head = REGIONS.load(Relaxed);
    loop {
        // SAFETY: `node` points to fresh memory, large enough and aligned to a page.
        unsafe { node.write(Node { next: head, size, part }) };
        match REGIONS.compare_exchange_weak(head, node, Release, Relaxed) {
            Ok(_) => break,
            Err(now) => head = now,
        }
    }
    node
}

/// Gives the memory behind some pages of payloads back to the system; they are zero again afterwards. Whether it
/// did: if not, they are as they were.
///
/// # Safety
/// Whole pages of one region, without its first; nobody stores into them meanwhile, and nobody minds their being
/// zero.
pub(crate) unsafe fn discard(page: *mut u8, size: usize) -> bool {
    // SAFETY: the caller's promise.
    errno::kept(|| unsafe { SystemPages.discard(page, size) })
}

/// Returns the bytes of `part` that are resident, as the kernel counts them.
pub(crate) fn resident_bytes_of(part: Part) -> u64 {
    let mut total = 0u64;
    // Acquire: pairs with the Release in `map`.
    let mut node = REGIONS.load(Acquire);
    // SAFETY: null, or a node that stays mapped and unchanged (I1).
    while let Some(region) = unsafe { node.as_ref() } {
        if region.part == part {
            total = total.saturating_add(resident_bytes(node.cast(), region.size));
        }
        node = region.next;
    }
    total
}

/// Returns how many bytes of a mapped range are resident, counted in whole pages.
///
/// Zero where the range is not mapped or the system does not tell.
///
/// **Cost**: one system call a 4 MiB.
pub fn resident_bytes(start: *const u8, len: usize) -> u64 {
    const N_PAGES: usize = 1024;
    let mut flags = [0u8; N_PAGES];
    let end = start.addr().saturating_add(len);
    let mut page = start.addr() & !PAGE_SIZE.wrapping_sub(1);
    let mut n_resident = 0u64;
    while page < end {
        let bytes = end.saturating_sub(page).min(N_PAGES.saturating_mul(PAGE_SIZE));
        // SAFETY: `flags` has room for a byte a page; the range is only asked about.
        if unsafe { libc::mincore(page as *mut _, bytes, flags.as_mut_ptr()) } != 0 {
            break;
        }
        let n_pages = bytes.div_ceil(PAGE_SIZE);
        let resident = flags.iter().take(n_pages).filter(|flag| **flag & 1 != 0).count();
        n_resident = n_resident.saturating_add(resident as u64);
        page = page.saturating_add(bytes);
    }
    n_resident.saturating_mul(PAGE_SIZE as u64)
}

/// Mappings that are refused to one thread.
#[cfg(test)]
pub(crate) mod refusal {
    extern crate std;
    use std::cell::Cell;

    std::thread_local! {
        static N_LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    /// Runs `f` with the mapping refused before which there are `n_before`; says whether there was one.
    pub(crate) fn during(n_before: u32, f: impl FnOnce()) -> bool {
        N_LEFT.set(n_before);
        f();
        N_LEFT.replace(u32::MAX) > n_before
    }

    pub(super) fn is_now() -> bool {
        match N_LEFT.get() {
            u32::MAX => false,
            // Above all numbers to come, so that one is refused.
            0 => N_LEFT.replace(u32::MAX - 1) == 0,
            n_left => N_LEFT.replace(n_left - 1) == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_zeroed_and_becomes_resident_as_it_is_written() {
        const LEN: usize = 8 << 20;
        let region = map::<u8>(LEN, Part::Scratch);
        let count = || resident_bytes(region, LEN);
        let before = count();
        assert!(before <= 2 * PAGE_SIZE as u64, "{before}");
        for page in 0..100 {
            // SAFETY: within the region, which nothing else refers to.
            let byte = unsafe { &mut *region.wrapping_add(page * PAGE_SIZE * 3) };
            assert_eq!(core::mem::replace(byte, 1), 0);
        }
        assert!((99..=101).contains(&((count() - before) / PAGE_SIZE as u64)));
        assert!(resident_bytes_of(Part::Scratch) >= count());
    }

    #[test]
    fn a_huge_region_is_zero_and_aligned() {
        let n_words = 2 * HUGE_PAGE_SIZE / size_of::<u64>() + 1;
        let region = map_huge(8 * n_words, Part::Scratch).cast::<u64>();
        assert!(!region.is_null() && region.addr().is_multiple_of(HUGE_PAGE_SIZE));
        for at in [region, region.wrapping_add(n_words / 2), region.wrapping_add(n_words - 1)] {
            // SAFETY: within the region, which nothing else refers to.
            let word = unsafe { &mut *at };
            assert_eq!(core::mem::replace(word, 1), 0);
        }
        assert!(map_huge(usize::MAX, Part::Scratch).is_null());
        assert!(refusal::during(0, || assert!(map_huge(8 * n_words, Part::Scratch).is_null())));
    }

    #[test]
    fn what_goes_beyond_the_limit_is_not_charged() {
        // Without a limit only what no sum can hold does.
        assert!(charge(1));
        for _ in 0..2 {
            assert!(!charge(usize::MAX));
        }
        assert!(charge(1000));
        uncharge(1001);
    }

    #[test]
    fn a_size_that_cannot_be_mapped_gives_null() {
        assert!(map::<u64>(usize::MAX / 8, Part::Scratch).is_null());
        assert!(map::<u64>(usize::MAX, Part::Scratch).is_null());
    }
}
