//! The simplest live table that is exact: one word for every 16 bytes of address space that blocks
//! have been seen in, mapped in chunks, so that finding a word is arithmetic and using it is one atomic
//! operation. It costs half of a heap of small blocks, and so has only what is rare: traces of 16 MiB and more,
//! and details where they are asked for. Another one has times of birth in the place of details.
//!
//! Details lie in a second column beside the words, one for each, which is mapped for a chunk when the
//! first detail is stored there.
//!
//! # Invariants
//!
//! - **I1** Blocks start at multiples of 16, so that no two share a word; the hook sees to it.
//! - **I2** A word is zero, or a *head*: kind, site and the lower half of the size; or a *tail*: the
//!   upper half of the size of the block that starts 16 bytes earlier, which is larger than 4 GiB
//!   and so owns that word's addresses, too.
//! - **I3** Every non-zero word lies on a page of words that is marked as used.
//! - **I4** Chunks are linked into a list and never removed; nor is a chunk's column of details.
//! - **I5** Words, and details, are stored in an operation that marks their page ([`page_mark`]): a block's detail and
//!   its word in the same one.
//!
//! # Pages go back
//!
//! A page of words goes back to the system when none of them is in use, and a page of details when none is of
//! a block that has a trace: a detail is left as it is when its block goes. By I5 no thread is about to use one.
//! A detail that was left behind may go while its block has no trace for a moment, because it is being resized, or
//! is just released; if the resize fails, or it is a peak, the block's thread and generation are unknown.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | directory entry | `map_chunk` (Release) | `chunk` (Acquire) | the chunk's header |
//! | chunk list | `map_chunk` (SeqCst, before the directory) | `for_each`, `clear` (SeqCst) | the chunk's header |
//! | page mark | [`page_mark`] (SeqCst, before the word) | `insert`, `for_each` (Acquire), `clear` (SeqCst) | itself |
//! | word | `insert`, `take`, … (SeqCst) | `for_each` (Acquire), `clear` (SeqCst) | its tail and its detail |
//! | column of details | `map_details` (Release) | `details` (Acquire) | zeroed memory |
//! | detail | `set_detail` (Release, before the word) | `for_each`, `detail` (Acquire) | that the word before it is gone |
//!
//! What `clear` promises, and what `for_each` does, is about blocks whose insertion happened before it began
//! ([`crate::control`] says how `stop` sees to that), and a load that comes after a store in that order sees it, or a later
//! one. A mark that another thread set is read with `Acquire`, which puts that thread's store before the word as well.
//!
//! A scan that wants details loads word, detail, and the word again. If it saw the detail of a later
//! block, it sees the word of the earlier one gone: the later detail was stored (Release) after that.
//!
//! # Cost
//!
//! Insertion and removal: three loads and one atomic exchange. 8 bytes for every 16 bytes of heap, on
//! pages where blocks lie, and as much again for details; a scan reads those pages once.
#![expect(unsafe_code, reason = "words in mapped memory, found by address")]

use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};
use crate::lock::LeafLock;
use crate::mapped::{self, NODE_SIZE, Part};
use crate::page_mark::{self, is_used, use_page};
use crate::site::SiteId;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU64, Ordering, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst,
};
use memtrace_heap::PAGE_SIZE;

/// Block addresses are multiples of this many bytes.
pub(crate) const GRANULE: usize = 1 << GRANULE_BITS;
const GRANULE_BITS: u32 = 4;
/// A chunk covers 64 MiB of addresses with 32 MiB of words.
const CHUNK_BITS: u32 = 26;
const CHUNK_WORDS: usize = 1 << (CHUNK_BITS - GRANULE_BITS);
/// User space ends here; 57-bit addresses are given out by the kernel on request only.
const ADDRESS_BITS: u32 = 47;
const DIRECTORY_LEN: usize = 1 << (ADDRESS_BITS - CHUNK_BITS);
/// Words for which there is one mark: those of 4 KiB.
const PAGE_WORDS: usize = 512;
const _: () = assert!(PAGE_WORDS * size_of::<AtomicU64>() == PAGE_SIZE);
const N_PAGES: usize = CHUNK_WORDS / PAGE_WORDS;
/// Words that a scan looks at together: as many as a mask has bits.
const GROUP_WORDS: usize = 64;
/// How far ahead a scan asks for memory: processors by themselves ask no further than a page's end.
const PREFETCH_WORDS: usize = 512;

/// Asks for the memory of a group that will be looked at soon.
#[inline(always)]
fn prefetch(group: *const AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..GROUP_WORDS / 8 {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = group.wrapping_add(line.wrapping_mul(8));
        // SAFETY: a hint, which no address makes fail.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = group;
}

/// Fills a cache line, so that the words begin with one.
#[repr(C, align(64))]
struct Header {
    next: *mut Chunk,
    /// The address that the first word stands for.
    base_addr: u64,
    /// `CHUNK_WORDS` details, or null.
    details: AtomicPtr<AtomicU64>,
}

/// Words begin with a page of the system's, after the node before the chunk.
#[repr(C)]
struct Chunk {
    header: Header,
    is_page_used: [AtomicU8; N_PAGES],
    _padding: [u8; PAGE_SIZE - NODE_SIZE - size_of::<Header>()],
    words: [AtomicU64; CHUNK_WORDS],
}

const _: () = assert!((NODE_SIZE + offset_of!(Chunk, words)).is_multiple_of(PAGE_SIZE));

/// A chunk's column of details: the same.
#[repr(C)]
struct Details {
    _padding: [u8; PAGE_SIZE - NODE_SIZE],
    details: [AtomicU64; CHUNK_WORDS],
}

/// Pages that are given back at once, and how many are looked at for them.
const N_AT_ONCE: usize = 64;
const N_LOOKED_AT: usize = 128;
/// Marks that are met on the way, most of them of pages not in use.
const N_MARKS: usize = 4096;

type Giving = page_mark::Giving<Chunk, N_AT_ONCE, N_LOOKED_AT, N_MARKS>;

// SAFETY: what is not atomic was stored before the chunk was linked, and is never changed.
unsafe impl Sync for Chunk {}

impl page_mark::Chunk for Chunk {
    fn mark(&self, index: usize) -> Option<&AtomicU8> {
        self.is_page_used.get(index)
    }

    fn following(&self) -> Option<&'static Self> {
        // SAFETY: null, or a chunk that stays mapped and linked (I4).
        unsafe { self.header.next.as_ref() }
    }
}

/// Pages of either kind.
struct GivingBoth {
    words: Giving,
    details: Giving,
}

/// One word for each 16 bytes of address space, in chunks mapped on demand.
pub(crate) struct FlatShadow {
    /// `DIRECTORY_LEN` chunk pointers, mapped by [`Self::prepare`].
    directory: AtomicPtr<AtomicPtr<Chunk>>,
    chunks: AtomicPtr<Chunk>,
    /// Held by who gives pages back.
    giving: LeafLock<GivingBoth>,
}

impl FlatShadow {
    pub(crate) const fn new() -> Self {
        Self {
            directory: AtomicPtr::new(ptr::null_mut()),
            chunks: AtomicPtr::new(ptr::null_mut()),
            giving: LeafLock::new(GivingBoth { words: Giving::new(), details: Giving::new() }),
        }
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.giving.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.giving.release();
    }

    /// Maps the directory; `false` if that fails. Not to be called by two threads at once.
    pub(crate) fn prepare(&self) -> bool {
        if self.directory.load(Relaxed).is_null() {
            let directory = mapped::map_sparse::<AtomicPtr<Chunk>>(DIRECTORY_LEN, Part::LiveTable);
            self.directory.store(directory, Release);
            return !directory.is_null();
        }
        true
    }

    fn directory_entry(&self, addr: u64) -> Option<&AtomicPtr<Chunk>> {
        let directory = self.directory.load(Acquire);
        if directory.is_null() {
            return None;
        }
        // SAFETY: mapped with this length, zeroed: null pointers.
        let directory = unsafe { core::slice::from_raw_parts(directory, DIRECTORY_LEN) };
        directory.get((addr >> CHUNK_BITS) as usize)
    }

    /// Returns the chunk of an address, if it is mapped.
    #[inline]
    fn chunk(&self, addr: u64) -> Option<&Chunk> {
        // SAFETY: null, or a chunk that stays mapped (I4).
        unsafe { self.directory_entry(addr)?.load(Acquire).as_ref() }
    }

    #[inline]
    fn word(&self, addr: u64) -> Option<&AtomicU64> {
        self.chunk(addr)?.words.get(word_index(addr))
    }

    /// Returns the word of an address, mapping its chunk and marking its page as used.
    #[inline]
    fn word_for_insertion(&self, addr: u64) -> Result<&AtomicU64, NoRoom> {
        let chunk = match self.chunk(addr) {
            Some(chunk) => chunk,
            None => self.map_chunk(addr).ok_or(NoRoom)?,
        };
        let index = word_index(addr);
        let mark = chunk.is_page_used.get(index / PAGE_WORDS).ok_or(NoRoom)?;
        use_page(mark, HAS_WORDS, &self.giving)?;
        chunk.words.get(index).ok_or(NoRoom)
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
        // SAFETY: a chunk that was published stays mapped (I4).
        unsafe { chunk.as_ref() }
    }

    /// Whether neither a trace nor a detail was ever stored.
    #[inline(always)]
    pub(crate) fn is_vacant(&self) -> bool {
        // Relaxed: who looks for a block has synchronised with the thread that inserted it.
        self.chunks.load(Relaxed).is_null()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let mut next = self.chunks.load(SeqCst);
        core::iter::from_fn(move || {
            // SAFETY: null, or a chunk that stays mapped and linked (I4).
            let chunk = unsafe { next.as_ref() }?;
            next = chunk.header.next;
            Some(chunk)
        })
    }

    /// Returns the column of details of a chunk, if it is mapped.
    #[inline(always)]
    fn details(chunk: &Chunk) -> Option<&[AtomicU64]> {
        let details = chunk.header.details.load(Acquire);
        if details.is_null() {
            return None;
        }
        // SAFETY: mapped with this length, zeroed, and stays mapped (I4).
        Some(unsafe { core::slice::from_raw_parts(details, CHUNK_WORDS) })
    }

    /// Maps the column of details of a chunk.
    #[cold]
    #[inline(never)]
    fn map_details(chunk: &Chunk) -> Option<&[AtomicU64]> {
        let column = mapped::map_sparse::<Details>(1, Part::LiveTable);
        if column.is_null() {
            return None;
        }
        let details = column.cast::<u8>().wrapping_add(offset_of!(Details, details)).cast();
        // If another thread was first, ours stays untouched: address space, not memory.
        let _ = chunk.header.details.compare_exchange(ptr::null_mut(), details, Release, Relaxed);
        Self::details(chunk)
    }

    /// Gives some pages of words back in which there is nothing, others each time. Whether there is likely to be
    /// more. To be called in an operation of the thread's own, which holds no lock.
    pub(crate) fn give_back_words(&self) -> bool {
        let Some(mut giving) = self.giving.try_lock() else { return false };
        self.give_back(HAS_WORDS, &mut giving.words, |chunk, page| {
            let words = chunk.words.as_chunks::<PAGE_WORDS>().0.get(page)?;
            // Relaxed: when no operation is under way that may store, or to be looked at again then.
            words.iter().all(|word| word.load(Relaxed) == 0).then_some(words.as_ptr())
        })
    }

    /// The same for details: of blocks that have no trace, as `is_live` says by their addresses.
    pub(crate) fn give_back_details(&self, is_live: impl Fn(u64) -> bool) -> bool {
        let Some(mut giving) = self.giving.try_lock() else { return false };
        self.give_back(HAS_DETAILS, &mut giving.details, |chunk, page| {
            let details = Self::details(chunk)?.as_chunks::<PAGE_WORDS>().0.get(page)?;
            let first = (page.wrapping_mul(PAGE_WORDS) as u64) << GRANULE_BITS;
            let first_addr = chunk.header.base_addr.wrapping_add(first);
            let addrs = (first_addr..).step_by(GRANULE);
            // Relaxed: as above.
            let mut stale = addrs.zip(details).filter(|(_, detail)| detail.load(Relaxed) != 0);
            stale.all(|(addr, _)| !is_live(addr)).then_some(details.as_ptr())
        })
    }

    /// Gives pages back for which `vacant` returns where they are.
    fn give_back(
        &self,
        what: u8,
        giving: &mut Giving,
        vacant: impl Fn(&Chunk, usize) -> Option<*const AtomicU64>,
    ) -> bool {
        // SAFETY: null, or a chunk that stays mapped and linked (I4).
        let first = || unsafe { self.chunks.load(SeqCst).as_ref() };
        let n_given = giving.give_back(what, first, vacant, |start: *const AtomicU64| {
            // SAFETY: a page of words or details beyond the region's first, which nobody stores into (I5); zero is
            // what it holds, or as good.
            unsafe { mapped::discard(start.cast_mut().cast(), PAGE_SIZE) }
        });
        n_given >= N_AT_ONCE / 4
    }

    /// Calls `visit` with every word that is not zero, its address, and what it held.
    #[inline(always)]
    fn for_each_word(
        &self,
        ordering: Ordering,
        mut visit: impl FnMut(&Chunk, u64, &AtomicU64, u64),
    ) {
        for chunk in self.chunks() {
            let pages = chunk.words.as_chunks::<PAGE_WORDS>().0.iter().zip(&chunk.is_page_used);
            for (page, (words, _)) in
                pages.enumerate().filter(|(_, (_, mark))| is_used(mark.load(ordering), HAS_WORDS))
            {
                let index = page.wrapping_mul(PAGE_WORDS) as u64;
                let mut addr = chunk.header.base_addr.wrapping_add(index << GRANULE_BITS);
                for group in words.as_chunks::<GROUP_WORDS>().0 {
                    // Which words are used is found without a branch for each, as no branch
                    // predictor knows where blocks begin; and then each used one is looked at.
                    let mut used = 0u64;
                    prefetch(group.as_ptr().wrapping_add(PREFETCH_WORDS));
                    for (i, word) in group.iter().enumerate() {
                        used |= u64::from(word.load(ordering) != 0) << i;
                    }
                    while used != 0 {
                        let i = used.trailing_zeros() as usize;
                        used &= used.wrapping_sub(1);
                        let Some(word) = group.get(i) else { break };
                        // It may have been taken out meanwhile.
                        let held = word.load(ordering);
                        if held != 0 {
                            let offset = (i as u64) << GRANULE_BITS;
                            visit(chunk, addr.wrapping_add(offset), word, held);
                        }
                    }
                    addr = addr.wrapping_add((GRANULE * GROUP_WORDS) as u64);
                }
            }
        }
    }

    /// Visits the block of a word that is not zero, if it is a head.
    #[inline(always)]
    fn visit_word<const HAS_DETAILS: bool>(
        &self,
        chunk: &Chunk,
        addr: u64,
        word: &AtomicU64,
        held: u64,
        visit: &mut impl FnMut(u64, LiveTrace, Detail),
    ) {
        if !HAS_DETAILS {
            if let Some(trace) = self.decode(addr, held) {
                visit(addr, trace, Detail::UNKNOWN);
            }
            return;
        }
        let mut held = held;
        // Comes to an end: each time round, another block has been recorded at this address.
        while let Some(trace) = self.decode(addr, held) {
            // Looked up after the word was seen: its column was mapped before that.
            let place = Self::details(chunk).and_then(|details| details.get(word_index(addr)));
            let detail = place.map_or(0, |place| place.load(Acquire));
            let now = word.load(Acquire);
            if now == held {
                visit(addr, trace, Detail::from_word(detail));
                return;
            }
            held = now;
        }
    }

    /// Completes the size of a head from its tail.
    #[inline]
    fn decode(&self, addr: u64, head: u64) -> Option<LiveTrace> {
        let site = SiteId(head as u32 >> 2);
        let low = head >> 32;
        match head & KIND {
            SMALL => Some(LiveTrace { size: low, site }),
            LARGE => {
                // Stored before the head.
                let tail = self.word(tail_addr(addr))?.load(SeqCst);
                // No tail: the block was given back between the two loads.
                (tail & KIND == TAIL).then_some(LiveTrace { size: tail >> 2 << 32 | low, site })
            }
            _ => None,
        }
    }

    /// Decodes a head that was just replaced, and clears its tail.
    #[inline(always)]
    fn retire(&self, addr: u64, head: u64) -> Option<LiveTrace> {
        let trace = self.decode(addr, head);
        if head & KIND == LARGE
            && let Some(word) = self.word(tail_addr(addr))
        {
            // Unless another block starts there by now.
            let tail = word.load(SeqCst);
            if tail & KIND == TAIL {
                let _ = word.compare_exchange(tail, 0, SeqCst, SeqCst);
            }
        }
        trace
    }

    /// Checks the invariants by number for the words of some addresses, and returns one that does not
    /// hold. For quiet tables.
    #[cfg(test)]
    fn violated_invariant(&self, addrs: core::ops::Range<u64>) -> Option<&'static str> {
        for addr in addrs.step_by(GRANULE) {
            let Some(chunk) = self.chunk(addr) else { continue };
            let index = word_index(addr);
            let word = chunk.words[index].load(SeqCst);
            let mark = chunk.is_page_used[index / PAGE_WORDS].load(Relaxed);
            if word != 0 && !is_used(mark, HAS_WORDS) {
                return Some("I3");
            }
            let next = self.word(tail_addr(addr)).map_or(0, |word| word.load(SeqCst));
            if (word & KIND == LARGE) != (next & KIND == TAIL) {
                return Some("I2");
            }
        }
        let n_chunks = self.chunks().count();
        let entries = (0..DIRECTORY_LEN as u64).filter(|i| self.chunk(i << CHUNK_BITS).is_some());
        // A chunk that lost the race for its place is in the list alone.
        (entries.count() > n_chunks).then_some("I4")
    }
}

/// Marks of a page: it has words, and it has details.
const HAS_WORDS: u8 = page_mark::FIRST;
const HAS_DETAILS: u8 = page_mark::SECOND;

const KIND: u64 = 3;
const SMALL: u64 = 1;
const LARGE: u64 = 2;
const TAIL: u64 = 3;

fn head(trace: LiveTrace) -> u64 {
    let kind = if trace.size > u64::from(u32::MAX) { LARGE } else { SMALL };
    trace.size << 32 | u64::from(trace.site.0) << 2 | kind
}

/// The word of a trace that needs no second one.
#[inline]
pub(crate) fn small_head(trace: LiveTrace) -> Option<u64> {
    (trace.size <= u64::from(u32::MAX)).then(|| head(trace))
}

/// The trace of such a word; `None` for zero.
#[inline(always)]
pub(crate) fn trace_of_small_head(head: u64) -> Option<LiveTrace> {
    let trace = LiveTrace { size: head >> 32, site: SiteId(head as u32 >> 2) };
    (head & KIND == SMALL).then_some(trace)
}

fn tail(trace: LiveTrace) -> Option<u64> {
    let high = trace.size >> 32;
    (high != 0).then_some(high << 2 | TAIL)
}

/// Whether a word is a head, and not zero or a tail.
#[inline(always)]
const fn is_head(word: u64) -> bool {
    word & KIND != 0 && word & KIND != TAIL
}

fn tail_addr(addr: u64) -> u64 {
    addr.wrapping_add(GRANULE as u64)
}

#[inline(always)]
fn word_index(addr: u64) -> usize {
    (addr >> GRANULE_BITS) as usize & (CHUNK_WORDS - 1)
}

impl LiveTable for FlatShadow {
    #[inline(always)]
    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        if !block_addr.is_multiple_of(GRANULE as u64) {
            return Err(NoRoom);
        }
        let word = self.word_for_insertion(block_addr)?;
        let Some(tail) = tail(trace) else {
            return Ok(self.retire(block_addr, word.swap(head(trace), SeqCst)));
        };
        // The tail is there before the head that calls for it.
        let tail_word = self.word_for_insertion(tail_addr(block_addr))?;
        let replaced = self.retire(block_addr, word.swap(0, SeqCst));
        tail_word.store(tail, SeqCst);
        word.swap(head(trace), SeqCst);
        Ok(replaced)
    }

    #[inline]
    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE as u64) {
            return None;
        }
        let chunk = self.chunk(block_addr)?;
        let index = word_index(block_addr);
        // Blocks without a trace are common: from before the start, or a tool's own. They leave the
        // page of their word untouched, and the word unwritten.
        // Relaxed: the thread that gives a block back has synchronised with the one that got it.
        if chunk.is_page_used.get(index / PAGE_WORDS)?.load(Relaxed) & HAS_WORDS == 0 {
            return None;
        }
        let word = chunk.words.get(index)?;
        if !is_head(word.load(Relaxed)) {
            return None;
        }
        self.retire(block_addr, word.swap(0, SeqCst))
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE as u64) {
            return None;
        }
        let chunk = self.chunk(block_addr)?;
        let index = word_index(block_addr);
        // Reading a page that was never used, or has gone back, would make it resident.
        if !is_used(chunk.is_page_used.get(index / PAGE_WORDS)?.load(SeqCst), HAS_WORDS) {
            return None;
        }
        self.decode(block_addr, chunk.words.get(index)?.load(SeqCst))
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        let chunk = match self.chunk(block_addr) {
            Some(chunk) => chunk,
            None => self.map_chunk(block_addr).ok_or(NoRoom)?,
        };
        let details = Self::details(chunk).or_else(|| Self::map_details(chunk)).ok_or(NoRoom)?;
        let index = word_index(block_addr);
        let mark = chunk.is_page_used.get(index / PAGE_WORDS).ok_or(NoRoom)?;
        use_page(mark, HAS_DETAILS, &self.giving)?;
        let place = details.get(index).ok_or(NoRoom)?;
        // Release pairs with the Acquire of a scan: who sees this sees that the word of the block
        // before is gone.
        place.store(detail.to_word(), Release);
        Ok(())
    }

    fn detail(&self, block_addr: u64) -> Detail {
        let place = || {
            let chunk = self.chunk(block_addr)?;
            let index = word_index(block_addr);
            // As in `get`.
            let mark = chunk.is_page_used.get(index / PAGE_WORDS)?.load(SeqCst);
            if is_used(mark, HAS_DETAILS) { Self::details(chunk)?.get(index) } else { None }
        };
        place().map_or(Detail::UNKNOWN, |place| Detail::from_word(place.load(Acquire)))
    }

    #[inline]
    fn for_each<const HAS_DETAILS: bool>(&self, mut visit: impl FnMut(u64, LiveTrace, Detail)) {
        // Acquire pairs with the exchange that stored a head: its tail and its detail are seen, too.
        self.for_each_word(Acquire, |chunk, addr, word, held| {
            self.visit_word::<HAS_DETAILS>(chunk, addr, word, held, &mut visit);
        });
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        self.for_each_word(SeqCst, |_, addr, word, held| {
            // Unless it is taken out, or replaced, at this moment: then it is not this one any more.
            if is_head(held)
                && word.compare_exchange(held, 0, SeqCst, SeqCst).is_ok()
                && let Some(trace) = self.retire(addr, held)
            {
                forgotten(trace);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::{boxed::Box, vec::Vec};

    fn shadow() -> &'static FlatShadow {
        let shadow: &'static FlatShadow = Box::leak(Box::new(FlatShadow::new()));
        assert!(shadow.prepare());
        shadow
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, LiveTrace),
        Take(u64),
        Clear,
    }

    fn ops() -> impl Strategy<Value = Op> {
        // Blocks of up to 64 bytes apart, around the seam of two chunks.
        let addr = (0..40u64).prop_map(|i| (3 << CHUNK_BITS) - 640 + i * 32);
        let size = prop_oneof![0..100u64, Just(u64::from(u32::MAX)), 1u64 << 32..1u64 << 46];
        let trace =
            (size, 0..1u32 << 30).prop_map(|(size, site)| LiveTrace { size, site: SiteId(site) });
        prop_oneof![
            6 => (addr.clone(), trace).prop_map(|(addr, trace)| Op::Insert(addr, trace)),
            3 => addr.prop_map(Op::Take),
            1 => Just(Op::Clear),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn the_shadow_holds_what_a_map_would(ops in prop::collection::vec(ops(), 1..200)) {
            let shadow = shadow();
            let mut oracle = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert(addr, trace) => {
                        prop_assert_eq!(shadow.insert(addr, trace), Ok(oracle.insert(addr, trace)));
                    }
                    Op::Take(addr) => prop_assert_eq!(shadow.take(addr), oracle.remove(&addr)),
                    Op::Clear => {
                        let mut forgotten = Vec::new();
                        shadow.clear(&mut |trace| forgotten.push(trace.size));
                        let mut expected: Vec<_> = oracle.values().map(|trace| trace.size).collect();
                        forgotten.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(forgotten, expected);
                        oracle.clear();
                    }
                }
            }
            let mut seen = BTreeMap::new();
            shadow.for_each::<false>(|addr, trace, _| assert!(seen.insert(addr, trace).is_none()));
            prop_assert_eq!(&seen, &oracle);
            for (addr, trace) in oracle {
                prop_assert_eq!(shadow.get(addr), Some(trace));
            }
            let seam = 3u64 << CHUNK_BITS;
            prop_assert_eq!(shadow.violated_invariant(seam - 8192..seam + 8192), None);
        }
    }

    #[test]
    fn addresses_that_have_no_word_are_refused_and_nothing_is_found_there() {
        let shadow = shadow();
        let trace = LiveTrace { size: 1, site: SiteId(1) };
        for addr in [8, 0x1001, 1 << ADDRESS_BITS, u64::MAX - 15, u64::MAX] {
            assert_eq!(shadow.insert(addr, trace), Err(NoRoom), "{addr:#x}");
            assert_eq!(shadow.take(addr), None);
            assert_eq!(shadow.get(addr), None);
        }
        assert_eq!(shadow.insert((1 << ADDRESS_BITS) - 16, trace), Ok(None));
    }

    #[test]
    fn blocks_that_live_through_scans_are_seen_once_each_while_others_come_and_go() {
        let shadow = shadow();
        let trace = |size| LiveTrace { size, site: SiteId(7) };
        for i in 0..1000u64 {
            shadow.insert(i * 64, trace(i)).unwrap();
        }
        let is_done = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for t in 1..4u64 {
                let is_done = &is_done;
                scope.spawn(move || {
                    while !is_done.load(Relaxed) {
                        for i in 0..1000u64 {
                            shadow.insert(i * 64 + t * 16, trace(1_000_000)).unwrap();
                        }
                        for i in 0..1000u64 {
                            assert_eq!(shadow.take(i * 64 + t * 16), Some(trace(1_000_000)));
                        }
                    }
                });
            }
            for _ in 0..200 {
                let mut n_seen = [0; 1000];
                shadow.for_each::<false>(|addr, trace, _| {
                    if addr.is_multiple_of(64) {
                        assert_eq!(trace.size, addr / 64);
                        n_seen[addr as usize / 64] += 1;
                    } else {
                        assert_eq!(trace.size, 1_000_000);
                    }
                });
                assert_eq!(n_seen, [1; 1000]);
            }
            is_done.store(true, Relaxed);
        });
    }

    #[test]
    fn a_scan_never_sees_the_detail_of_one_block_with_the_trace_of_another() {
        let shadow = shadow();
        let is_done = core::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for t in 0..3u64 {
                let is_done = &is_done;
                scope.spawn(move || {
                    let mut n = 0u32;
                    while !is_done.load(Relaxed) {
                        for addr in (0..64).map(|i| (i * 3 + t) * 16) {
                            n = n.wrapping_add(1);
                            let _ = shadow.take(addr);
                            shadow.set_detail(addr, Detail { thread: t as u32, birth: n }).unwrap();
                            let trace = LiveTrace { size: n.into(), site: SiteId(t as u32) };
                            shadow.insert(addr, trace).unwrap();
                        }
                    }
                });
            }
            // Judged when the threads are told to end: they would keep a panic waiting for ever.
            let (mut n_seen, mut wrong) = (0, None);
            while n_seen < 200_000 {
                shadow.for_each::<true>(|_, trace, detail| {
                    let expected = Detail { thread: trace.site.0, birth: trace.size as u32 };
                    if detail != expected {
                        wrong = Some((trace, detail));
                    }
                    n_seen += 1;
                });
            }
            is_done.store(true, Relaxed);
            assert_eq!(wrong, None);
        });
    }

    #[test]
    fn details_take_no_memory_until_one_is_stored() {
        let shadow = shadow();
        let trace = LiveTrace { size: 1, site: SiteId(1) };
        shadow.insert(64, trace).unwrap();
        assert!(FlatShadow::details(shadow.chunk(64).unwrap()).is_none());
        assert_eq!(shadow.detail(64), Detail::UNKNOWN);
        shadow.for_each::<true>(|_, _, detail| assert_eq!(detail, Detail::UNKNOWN));
        let detail = Detail { thread: 7, birth: u32::MAX };
        shadow.set_detail(64, detail).unwrap();
        shadow.set_detail(1 << CHUNK_BITS, detail).unwrap();
        assert_eq!((shadow.detail(64), shadow.detail(1 << CHUNK_BITS)), (detail, detail));
        assert_eq!(shadow.set_detail(1 << ADDRESS_BITS, detail), Err(NoRoom));
        let mut seen = Vec::new();
        shadow.for_each::<true>(|addr, seen_trace, detail| seen.push((addr, seen_trace, detail)));
        assert_eq!(seen, [(64, trace, detail)]);
    }
}
