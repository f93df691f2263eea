//! What the C library's allocator tells of itself.
//!
//! # Mechanism
//! `mallinfo2` of glibc 2.33 and later sums over all of its arenas. Other C libraries tell nothing.
//!
//! # Cost
//! A walk over the lists of free chunks, under the lock of one arena after the other. Not for the hook.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "asks the C library about its allocator")
)]

/// What the C library's allocator holds, in bytes of address space.
///
/// Of which pages are resident, it knows nothing: each figure is an upper bound of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CLibraryMemory {
    /// Blocks in use, with their headers and what rounding adds, and the blocks in its threads' caches.
    pub used_bytes: u64,
    /// Free chunks.
    pub free_bytes: u64,
}

/// Returns what the C library's allocator holds; `None` if it does not tell.
pub fn c_library_memory() -> Option<CLibraryMemory> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: reads figures of the allocator, under its own locks.
        let info = unsafe { libc::mallinfo2() };
        Some(CLibraryMemory {
            used_bytes: (info.uordblks as u64).saturating_add(info.hblkhd as u64),
            free_bytes: info.fordblks as u64,
        })
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn a_block_is_in_use_until_it_is_freed() {
        const SIZE: u64 = 100 << 20;
        let before = c_library_memory().unwrap();
        let block = std::hint::black_box(std::vec![0u8; SIZE as usize]);
        let with_it = c_library_memory().unwrap();
        assert!(with_it.used_bytes >= before.used_bytes + SIZE / 2, "{before:?} {with_it:?}");
        drop(block);
        let after = c_library_memory().unwrap();
        assert!(after.used_bytes <= with_it.used_bytes - SIZE / 2, "{with_it:?} {after:?}");
    }
}
