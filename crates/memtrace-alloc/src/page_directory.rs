//! The entries of all pages of the address space, in chunks that are mapped on demand.
//!
//! # Invariants
//!
//! - **I1** Every entry that is not zero lies on a page of entries that is marked as used, and charged for.
//! - **I2** Chunks are linked into a list and never removed.
//! - **I3** Entries become other than zero in an operation that marks their page ([`page_mark`]), or has seen
//!   that they are.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | directory entry | `map_chunk` (Release) | `chunk` (Acquire) | the chunk's header |
//! | chunk list | `map_chunk` (SeqCst, before the directory) | scans (SeqCst) | the chunk's header |
//! | mark | [`page_mark`] (SeqCst, before the entry) | `mark_used`, `quick_entry_in_use` (Acquire), scans (SeqCst) | itself |
//!
//! # Cost
//!
//! Two loads to an entry. 8 bytes for each page of 4 KiB, in as many pages of entries as are in use: 4 KiB for
//! 2 MiB of heap. Pages of entries that are all zero go back to the system.
#![expect(unsafe_code, reason = "chunks in mapped memory, found by address")]

use crate::live::NoRoom;
use crate::lock::LeafLock;
use crate::mapped::{self, NODE_SIZE, Part};
use crate::page_mark::{self, is_staying, is_used, use_page};
use crate::page_word::Granule;
use crate::sampled_pages::SHARED_CHUNK_MASK;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};
use memtrace_heap::PAGE_SIZE;

pub(crate) const PAGE_BITS: u32 = 12;
/// A chunk covers 64 MiB of addresses with 128 KiB of entries.
pub(crate) const CHUNK_BITS: u32 = 26;
const CHUNK_ENTRIES: usize = 1 << (CHUNK_BITS - PAGE_BITS);
/// User space ends here; 57-bit addresses are given out by the kernel on request only.
pub(crate) const ADDRESS_BITS: u32 = 47;
const DIRECTORY_LEN: usize = 1 << (ADDRESS_BITS - CHUNK_BITS);
/// Entries for which there is one mark: those of 4 KiB.
const MARK_ENTRIES: usize = 512;
const _: () = assert!(MARK_ENTRIES * size_of::<AtomicU64>() == PAGE_SIZE);
const N_MARKS: usize = CHUNK_ENTRIES / MARK_ENTRIES;
const USED: u8 = page_mark::FIRST;
/// Pages of entries that are given back at once, marks in use that are looked at for them, and marks that are met.
const N_AT_ONCE: usize = 16;
const N_LOOKED_AT: usize = 16;
const N_MET: usize = 1024;

#[repr(C, align(64))]
struct Header {
    next: *mut Chunk,
    /// The address that the first entry stands for.
    base_addr: u64,
    is_used: [AtomicU8; N_MARKS],
}

/// Entries begin with a page of the system's, after the node before the chunk.
#[repr(C)]
pub(crate) struct Chunk {
    header: Header,
    _padding: [u8; PAGE_SIZE - NODE_SIZE - size_of::<Header>()],
    entries: [AtomicU64; CHUNK_ENTRIES],
}

const _: () = assert!((NODE_SIZE + offset_of!(Chunk, entries)).is_multiple_of(PAGE_SIZE));

/// All entries.
pub(crate) struct Directory {
    /// `DIRECTORY_LEN` chunk pointers, mapped by [`Self::prepare`].
    chunks_by_addr: AtomicPtr<AtomicPtr<Chunk>>,
    /// The same, or null where [`Self::quick_entry`] is to return none.
    quick: AtomicPtr<AtomicPtr<Chunk>>,
    chunks: AtomicPtr<Chunk>,
    /// Held by who gives pages back.
    giving: LeafLock<Giving>,
}

type Giving = page_mark::Giving<Chunk, N_AT_ONCE, N_LOOKED_AT, N_MET>;

/// A page with its entry.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a> {
    /// Its address by the size of a page.
    pub(crate) number: u64,
    pub(crate) entry: &'a AtomicU64,
    /// The entry of the page before, if that is of the same chunk.
    pub(crate) neighbour: Option<&'a AtomicU64>,
    mark: &'a AtomicU8,
    giving: &'a LeafLock<Giving>,
}

impl Directory {
    pub(crate) const fn new() -> Self {
        Self {
            chunks_by_addr: AtomicPtr::new(ptr::null_mut()),
            quick: AtomicPtr::new(ptr::null_mut()),
            chunks: AtomicPtr::new(ptr::null_mut()),
            giving: LeafLock::new(Giving::new()),
        }
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.giving.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.giving.release();
    }

    /// Maps it; `false` if that fails. Not to be called by two threads at once.
    pub(crate) fn prepare(&self) -> bool {
        if self.chunks_by_addr.load(Relaxed).is_null() {
            let directory = mapped::map_sparse::<AtomicPtr<Chunk>>(DIRECTORY_LEN, Part::LiveTable);
            self.chunks_by_addr.store(directory, Release);
            self.quick.store(directory, Release);
            return !directory.is_null();
        }
        true
    }

    /// Lets [`Self::quick_entry`] return no entries any more.
    pub(crate) fn refuse_quickly(&self) {
        // Relaxed: publishes nothing.
        self.quick.store(ptr::null_mut(), Relaxed);
    }

    /// Returns the entry of a block's page, if that is mapped and the block starts where blocks do: in fewer
    /// instructions than [`Self::entry`], and only where that is wanted.
    #[inline(always)]
    pub(crate) fn quick_entry(&self, granule: Granule) -> Option<&AtomicU64> {
        self.quick_chunk(granule)?.entries.get(granule.page() as usize & (CHUNK_ENTRIES - 1))
    }

    /// The same for who is in an operation and may store into it; `None` if its page of entries is not in use yet,
    /// or about to be given back.
    #[inline(always)]
    pub(crate) fn quick_entry_in_use(&self, granule: Granule) -> Option<&AtomicU64> {
        let chunk = self.quick_chunk(granule)?;
        let index = granule.page() as usize & (CHUNK_ENTRIES - 1);
        let is_in_use = is_staying(chunk.header.is_used.get(index / MARK_ENTRIES)?, USED);
        if is_in_use { chunk.entries.get(index) } else { None }
    }

    #[inline(always)]
    fn quick_chunk(&self, granule: Granule) -> Option<&Chunk> {
        let directory = self.quick.load(Acquire);
        // SAFETY: null, or mapped with this length, zeroed: null pointers.
        let directory = unsafe { directory.cast::<[AtomicPtr<Chunk>; DIRECTORY_LEN]>().as_ref() }?;
        // One comparison tells addresses that are too high from others, and ones that no block starts at.
        let chunk = directory.get(opaque(granule.page() >> (CHUNK_BITS - PAGE_BITS)) as usize)?;
        // SAFETY: null, or a chunk that stays mapped (I2).
        unsafe { chunk.load(Acquire).as_ref() }
    }

    fn directory_entry(&self, addr: u64) -> Option<&AtomicPtr<Chunk>> {
        let directory = self.chunks_by_addr.load(Acquire);
        if directory.is_null() {
            return None;
        }
        // SAFETY: mapped with this length, zeroed: null pointers.
        let directory = unsafe { core::slice::from_raw_parts(directory, DIRECTORY_LEN) };
        directory.get((addr >> CHUNK_BITS) as usize)
    }

    /// Returns the chunk of an address, if it is mapped.
    #[inline(always)]
    fn chunk(&self, addr: u64) -> Option<&Chunk> {
        // SAFETY: null, or a chunk that stays mapped (I2).
        unsafe { self.directory_entry(addr)?.load(Acquire).as_ref() }
    }

    #[inline(always)]
    pub(crate) fn entry(&self, addr: u64) -> Option<&AtomicU64> {
        self.chunk(addr)?.entries.get(entry_index(addr))
    }

    #[cold]
    #[inline(never)]
    fn map_chunk(&self, addr: u64) -> Option<&Chunk> {
        let entry = self.directory_entry(addr)?;
        let chunk = mapped::map_sparse::<Chunk>(1, Part::LiveTable);
        if chunk.is_null() {
            return None;
        }
        // SAFETY: fresh zeroed memory of this size, which is a valid chunk.
        unsafe { (*chunk).header.base_addr = addr >> CHUNK_BITS << CHUNK_BITS };
        // Linked before it can be used: a sweep finds every chunk that a word may be in.
        let mut head = self.chunks.load(Relaxed);
        loop {
            // SAFETY: no other thread knows this chunk before it is in the list.
            unsafe { (*chunk).header.next = head };
            match self.chunks.compare_exchange_weak(head, chunk, SeqCst, Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        let chunk = match entry.compare_exchange(ptr::null_mut(), chunk, Release, Acquire) {
            Ok(_) => chunk,
            // Another thread was first. Ours stays linked, untouched: address space, not memory.
            Err(first) => first,
        };
        // SAFETY: a chunk that was published stays mapped (I2).
        unsafe { chunk.as_ref() }
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let mut next = self.first_chunk();
        core::iter::from_fn(move || {
            // SAFETY: null, or a chunk that stays mapped and linked (I2).
            let chunk = unsafe { next.as_ref() }?;
            next = chunk.header.next;
            Some(chunk)
        })
    }

    /// Visits each page with an entry that is not zero, and its address.
    #[inline(always)]
    pub(crate) fn for_each_page(&self, mut visit: impl FnMut(u64, &AtomicU64)) {
        for chunk in self.chunks() {
            let marked = chunk.entries.as_chunks::<MARK_ENTRIES>().0.iter();
            for (n, (entries, mark)) in marked.zip(&chunk.header.is_used).enumerate() {
                if !is_used(mark.load(SeqCst), USED) {
                    continue;
                }
                let first = (n.wrapping_mul(MARK_ENTRIES) as u64) << PAGE_BITS;
                let mut addr = chunk.header.base_addr.wrapping_add(first);
                for entry in entries {
                    // SeqCst: a sweep passes by what it sees no trace of here.
                    if entry.load(SeqCst) != 0 {
                        visit(addr, entry);
                    }
                    addr = addr.wrapping_add(1 << PAGE_BITS);
                }
            }
        }
    }

    /// Whether a page has an entry that is not zero and shares a cell with the page of this address.
    pub(crate) fn has_entry_like(&self, addr: u64) -> bool {
        self.chunks()
            .filter(|chunk| (chunk.header.base_addr ^ addr) & SHARED_CHUNK_MASK == 0)
            .filter_map(|chunk| chunk.entries.get(entry_index(addr)))
            .any(|entry| entry.load(Acquire) != 0)
    }

    /// The chunk that was mapped last; null if none was.
    pub(crate) fn first_chunk(&self) -> *mut Chunk {
        self.chunks.load(SeqCst)
    }

    /// Returns the page of an address, mapping its chunk if need be.
    pub(crate) fn page_or_map(&self, addr: u64) -> Result<Page<'_>, NoRoom> {
        let chunk = match self.chunk(addr) {
            Some(chunk) => chunk,
            None => self.map_chunk(addr).ok_or(NoRoom)?,
        };
        let index = entry_index(addr);
        Ok(Page {
            number: addr >> PAGE_BITS,
            entry: chunk.entries.get(index).ok_or(NoRoom)?,
            neighbour: index.checked_sub(1).and_then(|index| chunk.entries.get(index)),
            mark: chunk.header.is_used.get(index / MARK_ENTRIES).ok_or(NoRoom)?,
            giving: &self.giving,
        })
    }

    /// Gives some pages back whose entries are all zero, others each time. Whether there is likely to be more. To be
    /// called in an operation of the thread's own, which holds no lock.
    pub(crate) fn give_back_pages(&self) -> bool {
        let Some(mut giving) = self.giving.try_lock() else { return false };
        let n_given = giving.give_back(
            USED,
            // SAFETY: null, or a chunk that stays mapped and linked (I2).
            || unsafe { self.first_chunk().as_ref() },
            |chunk, index| {
                let (_, entries) = chunk.marked(index)?;
                is_zero(entries).then_some(entries)
            },
            |entries| {
                let start = entries.as_ptr().cast_mut().cast();
                // SAFETY: a page of entries beyond the region's first, all zero, which nobody stores into (I3).
                unsafe { mapped::discard(start, PAGE_SIZE) }
            },
        );
        n_given == N_AT_ONCE
    }
}

fn is_zero(entries: &Group) -> bool {
    // Relaxed: by who has no operation under way meanwhile, or to be looked at again.
    entries.iter().all(|entry| entry.load(Relaxed) == 0)
}

impl Page<'_> {
    /// Marks the page of entries that this one is on as used, before the entry is stored into in the same operation.
    pub(crate) fn mark_used(&self) -> Result<(), NoRoom> {
        use_page(self.mark, USED, self.giving)
    }
}

// SAFETY: what is not atomic was stored before the chunk was linked, and is never changed.
unsafe impl Sync for Chunk {}

impl page_mark::Chunk for Chunk {
    fn mark(&self, index: usize) -> Option<&AtomicU8> {
        self.header.is_used.get(index)
    }

    fn following(&self) -> Option<&'static Self> {
        // SAFETY: null, or a chunk that stays mapped and linked (I2).
        unsafe { self.header.next.as_ref() }
    }
}

impl Chunk {
    /// Returns mark `index`, and its entries.
    fn marked(&self, index: usize) -> Option<(&AtomicU8, &Group)> {
        let entries = self.entries.as_chunks::<MARK_ENTRIES>().0.get(index);
        self.header.is_used.get(index).zip(entries)
    }

    /// Returns the entries that share mark `index`, if they are in use, and the address of the first one's
    /// page; an error beyond the last mark.
    pub(crate) fn group(&self, index: usize) -> Result<Option<(u64, &Group)>, BeyondLast> {
        let (mark, entries) = self.marked(index).ok_or(BeyondLast)?;
        let first = (index.wrapping_mul(MARK_ENTRIES) as u64) << PAGE_BITS;
        let first_addr = self.header.base_addr.wrapping_add(first);
        Ok(is_used(mark.load(SeqCst), USED).then_some((first_addr, entries)))
    }

    pub(crate) fn next(&self) -> *mut Chunk {
        self.header.next
    }
}

/// Entries that share a mark.
pub(crate) type Group = [AtomicU64; MARK_ENTRIES];

/// There is no such mark.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BeyondLast;

/// A number of which the compiler knows nothing else: it takes no instruction.
///
/// Where it knows that an index is part of another number, it compares that one with another bound, which takes three
/// instructions more, and one to join that with what else leads to the same end.
#[inline(always)]
fn opaque(number: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        let mut number = number;
        // SAFETY: does nothing.
        unsafe {
            core::arch::asm!(
                "/* {0} */",
                inout(reg) number,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        number
    }
    #[cfg(not(target_arch = "x86_64"))]
    number
}

#[inline(always)]
fn entry_index(addr: u64) -> usize {
    (addr >> PAGE_BITS) as usize & (CHUNK_ENTRIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn pages_in_use_are_visited_and_no_others(
            addrs in prop::collection::vec((0..3u64, 0..1u64 << 27), 0..50),
        ) {
            let directory: &Directory = Box::leak(Box::new(Directory::new()));
            prop_assert!(directory.entry(0).is_none() && directory.prepare());
            let mut pages = BTreeSet::new();
            for addr in addrs.into_iter().map(|(high, low)| high << 40 | low) {
                let page = directory.page_or_map(addr).unwrap();
                let quick = directory.quick_entry(Granule::of(addr));
                prop_assert_eq!(quick.is_some(), addr % 16 == 0);
                prop_assert!(quick.is_none_or(|quick| ptr::eq(page.entry, quick)));
                page.mark_used().unwrap();
                page.entry.store(1, SeqCst);
                prop_assert_eq!(page.number, addr >> PAGE_BITS);
                prop_assert!(ptr::eq(page.entry, directory.entry(addr).unwrap()));
                let below = directory.page_or_map(addr.saturating_sub(1 << PAGE_BITS)).unwrap();
                let is_first = addr >> PAGE_BITS << PAGE_BITS == addr >> CHUNK_BITS << CHUNK_BITS;
                prop_assert_eq!(page.neighbour.is_some(), !is_first);
                let is_below = page.neighbour.is_none_or(|entry| ptr::eq(entry, below.entry));
                prop_assert!(is_below);
                pages.insert(addr >> PAGE_BITS);
            }
            let mut visited = Vec::new();
            directory.for_each_page(|addr, _| visited.push(addr >> PAGE_BITS));
            visited.sort_unstable();
            prop_assert!(visited.into_iter().eq(pages));
        }
    }

    #[test]
    fn an_address_beyond_those_of_programs_has_no_page() {
        let directory: &Directory = Box::leak(Box::new(Directory::new()));
        assert!(directory.prepare());
        for addr in [1 << ADDRESS_BITS, u64::MAX] {
            assert!(directory.entry(addr).is_none() && directory.page_or_map(addr).is_err());
            assert!(directory.quick_entry(Granule::of(addr)).is_none());
        }
        let last = (1 << ADDRESS_BITS) - 16;
        assert!(directory.page_or_map(last).is_ok());
        assert!(directory.quick_entry(Granule::of(last)).is_some());
        directory.refuse_quickly();
        assert!(directory.quick_entry(Granule::of(last)).is_none());
    }

    #[test]
    fn an_entry_may_be_stored_into_quickly_as_long_as_its_page_stays() {
        let directory: &Directory = Box::leak(Box::new(Directory::new()));
        assert!(directory.prepare());
        let is_in_use = || directory.quick_entry_in_use(Granule::of(4096)).is_some();
        assert!(!is_in_use());
        let page = directory.page_or_map(4096).unwrap();
        assert!(!is_in_use());
        page.mark_used().unwrap();
        assert!(is_in_use());
        // Leaving, busy, and not in use any more.
        for mark in [USED | USED << 2, USED | USED << 4, 0] {
            page.mark.store(mark, SeqCst);
            assert!(!is_in_use(), "{mark:#b}");
        }
        page.mark_used().unwrap();
        assert!(is_in_use());
    }
}
