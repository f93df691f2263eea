//! The live table around any allocator: for each page of heap, as many words as blocks start in it.
//!
//! # Mechanism
//!
//! Address space is divided into pages of 4 KiB, each with an entry of 8 bytes, in chunks that are mapped on
//! demand. An entry says that no block starts in the page, or is the trace of the one that does, or leads
//! to an array of traces. An array has 1 to 32 lines of 8 words, of which each serves an equal part of the
//! page; a trace stands anywhere in its line, with the place in the page as a tag. When a line is full, an
//! array twice as long takes the old one's place. So small blocks take a word each and a fraction more,
//! large ones a word for their page.
//!
//! Traces of 16 MiB and more, and all details, are in a [flat shadow](crate::flat_shadow): few, and by
//! address.
//!
//! # How an array grows
//!
//! Under a leaf lock; threads that insert into this page wait for it. Releases do not wait, for a signal
//! handler may release a block while it interrupts the very thread that has the lock. First the entry says
//! that the page is growing, where to, and a note beside the lock says where from. Then, word by word, an
//! empty place is sealed; a trace is stored in the new array as a *copy*, marked *gone* in the old one by
//! compare-and-swap, and the copy marked live. If the compare-and-swap fails the block has been released
//! meanwhile: the copy is erased. At last the entry leads to the new array.
//!
//! Whoever looks for a trace while a page grows looks into the old array first. Found there live, it is
//! there. Else it may be in the new one: live, or as a copy, which counts only if the old array says that it
//! is gone; a copy without that is one whose block was released. Who still has an entry from before sees
//! places that are sealed and traces that are gone, and looks at the entry again.
//!
//! # Invariants
//!
//! - **I1** Blocks start at multiples of 16, so that no two of a page have the same tag.
//! - **I2** Every trace of a page is in its entry, or in the line of its tag of the array that the entry leads
//!   to; or, while the page grows, in the old array's. At no time is a live trace found in neither, or twice.
//! - **I3** Only who holds the lock of a page changes an entry that leads to an array, or makes a word gone,
//!   a copy, or sealed.
//! - **I4** Every entry that is not zero lies on a page of entries that is marked as used.
//! - **I5** Chunks are linked into a list and never removed.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | directory entry | `map_chunk` (Release) | `chunk` (Acquire) | the chunk's header |
//! | chunk list | `map_chunk` (SeqCst, before the directory) | scans (SeqCst) | the chunk's header |
//! | mark | `insert` (SeqCst, before the entry) | `insert` (Acquire), scans (SeqCst) | itself |
//! | entry | all (SeqCst) | all (Acquire), `clear` (SeqCst) | its array, zeroed or filled; where from |
//! | word | all (SeqCst) | all (Acquire), `clear` (SeqCst) | for [`FlatShadow`]'s details: see there |
//! | `Growth` | `grow` (Release, before the entry) | `old_array` (Acquire, then the entry again) | the old array |
//!
//! What leads `clear` to a word is `SeqCst` as in the flat shadow, for the handshake with `control::stop`;
//! `clear` holds the lock of the page that it looks at.
//!
//! # Cost
//!
//! Insertion and removal: four loads of addresses, up to 8 of a cache line, and a compare-and-swap. 8 to 16
//! bytes a block, and 8 for each page that lies in 2 MiB of address space where any block does.
#![expect(unsafe_code, reason = "words in mapped memory, found by address")]

use crate::flat_shadow::FlatShadow;
use crate::live::{Detail, LiveTable, LiveTrace, NoRoom};
use crate::lock::LeafLock;
use crate::mapped::{self, Part};
use crate::page_arrays::{Arrays, home, line};
use crate::page_line::{first, look};
use crate::page_word::{
    Entry, Kind, MAX_LEVEL, SEALED, SIZE_LIMIT, Shape, Tag, copy, gone, has_tag, is_live_of, kind,
    live, tag_of, trace_of,
};
use crate::thread;
use crate::thread_slot::SLOTS;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release, Ordering::SeqCst,
};

/// Block addresses are multiples of this many bytes.
const GRANULE: u64 = 16;
const PAGE_BITS: u32 = 12;
/// A chunk covers 64 MiB of addresses with 128 KiB of entries.
const CHUNK_BITS: u32 = 26;
const CHUNK_ENTRIES: usize = 1 << (CHUNK_BITS - PAGE_BITS);
/// User space ends here; 57-bit addresses are given out by the kernel on request only.
const ADDRESS_BITS: u32 = 47;
const DIRECTORY_LEN: usize = 1 << (ADDRESS_BITS - CHUNK_BITS);
/// Entries for which there is one mark: those of 4 KiB.
const MARK_ENTRIES: usize = 512;
const N_MARKS: usize = CHUNK_ENTRIES / MARK_ENTRIES;
const N_LOCKS: usize = 16;
/// Blocks of this size and more are likely to be alone in their page.
const ALONE_SIZE: u64 = 512;

#[repr(C, align(64))]
struct Header {
    next: *mut Chunk,
    /// The address that the first entry stands for.
    base_addr: u64,
    is_used: [AtomicU8; N_MARKS],
}

#[repr(C)]
struct Chunk {
    header: Header,
    entries: [AtomicU64; CHUNK_ENTRIES],
}

/// The lock of some pages, and the array that the one which is growing grows from.
#[repr(align(64))]
struct Growth {
    lock: LeafLock<()>,
    page: AtomicU64,
    from: AtomicU64,
}

impl Growth {
    const fn new() -> Self {
        Self { lock: LeafLock::new(()), page: AtomicU64::new(0), from: AtomicU64::new(0) }
    }
}

/// Traces by page.
pub(crate) struct PageShadow {
    /// `DIRECTORY_LEN` chunk pointers, mapped by [`Self::prepare`].
    directory: AtomicPtr<AtomicPtr<Chunk>>,
    chunks: AtomicPtr<Chunk>,
    arrays: Arrays,
    growths: [Growth; N_LOCKS],
    /// Where empty arrays will be looked for next.
    scavenged_chunk: AtomicPtr<Chunk>,
    scavenged_group: AtomicUsize,
    /// What has no place here.
    flat: FlatShadow,
}

/// A page with its entry.
#[derive(Clone, Copy)]
struct Page<'a> {
    number: u64,
    entry: &'a AtomicU64,
    /// The entry of the page before, if that is of the same chunk.
    neighbour: Option<&'a AtomicU64>,
}

/// What came of looking for a trace in one line.
enum Found {
    Taken(LiveTrace),
    /// It is not there; whether it has gone to the array that traces are moved to.
    Not {
        is_gone: bool,
    },
}

impl PageShadow {
    pub(crate) const fn new() -> Self {
        Self {
            directory: AtomicPtr::new(ptr::null_mut()),
            chunks: AtomicPtr::new(ptr::null_mut()),
            arrays: Arrays::new(),
            growths: [const { Growth::new() }; N_LOCKS],
            scavenged_chunk: AtomicPtr::new(ptr::null_mut()),
            scavenged_group: AtomicUsize::new(0),
            flat: FlatShadow::new(),
        }
    }

    /// Maps the directory; `false` if that fails. Not to be called by two threads at once.
    pub(crate) fn prepare(&self) -> bool {
        if self.directory.load(Relaxed).is_null() {
            let directory = mapped::map_sparse::<AtomicPtr<Chunk>>(DIRECTORY_LEN, Part::LiveTable);
            self.directory.store(directory, Release);
            return !directory.is_null() && self.flat.prepare();
        }
        true
    }

    /// Takes all locks for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.growths.iter().for_each(|growth| growth.lock.acquire());
        self.arrays.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.arrays.after_fork();
        self.growths.iter().for_each(|growth| growth.lock.release());
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
    #[inline(always)]
    fn chunk(&self, addr: u64) -> Option<&Chunk> {
        // SAFETY: null, or a chunk that stays mapped (I5).
        unsafe { self.directory_entry(addr)?.load(Acquire).as_ref() }
    }

    #[inline(always)]
    fn entry(&self, addr: u64) -> Option<&AtomicU64> {
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
        // SAFETY: a chunk that was published stays mapped (I5).
        unsafe { chunk.as_ref() }
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        let mut next = self.chunks.load(SeqCst);
        core::iter::from_fn(move || {
            // SAFETY: null, or a chunk that stays mapped and linked (I5).
            let chunk = unsafe { next.as_ref() }?;
            next = chunk.header.next;
            Some(chunk)
        })
    }

    /// Visits each page with an entry that is not zero, and its address.
    #[inline(always)]
    fn for_each_page(&self, mut visit: impl FnMut(u64, &AtomicU64)) {
        for chunk in self.chunks() {
            let marked = chunk.entries.as_chunks::<MARK_ENTRIES>().0.iter();
            for (n, (entries, mark)) in marked.zip(&chunk.header.is_used).enumerate() {
                if mark.load(SeqCst) == 0 {
                    continue;
                }
                let first = (n.wrapping_mul(MARK_ENTRIES) as u64) << PAGE_BITS;
                let mut addr = chunk.header.base_addr.wrapping_add(first);
                for entry in entries {
                    if entry.load(Relaxed) != 0 {
                        visit(addr, entry);
                    }
                    addr = addr.wrapping_add(1 << PAGE_BITS);
                }
            }
        }
    }

    fn growth(&self, page: u64) -> Option<&Growth> {
        self.growths.get(page as usize % N_LOCKS)
    }

    /// The array that a page grows from whose entry holds `held`; `None` if it does so no more.
    fn old_array(&self, page: u64, entry: &AtomicU64, held: u64) -> Option<Shape> {
        let growth = self.growth(page)?;
        let number = growth.page.load(Acquire);
        let from = growth.from.load(Acquire);
        // What was read is this page's if that has not been done meanwhile: the note changes after that only.
        (entry.load(SeqCst) == held && number == page).then_some(Shape::from_word(from))
    }

    #[cold]
    #[inline(never)]
    fn insert_slowly(
        &self,
        chunk: &Chunk,
        block_addr: u64,
        word: u64,
    ) -> Result<Option<LiveTrace>, NoRoom> {
        let index = entry_index(block_addr);
        let entry = chunk.entries.get(index).ok_or(NoRoom)?;
        let neighbour = index.checked_sub(1).and_then(|index| chunk.entries.get(index));
        let page = Page { number: block_addr >> PAGE_BITS, entry, neighbour };
        let tag = Tag::of(block_addr);
        loop {
            let held = entry.load(SeqCst);
            match Entry::of(held) {
                Entry::None => {
                    let mark = chunk.header.is_used.get(index / MARK_ENTRIES).ok_or(NoRoom)?;
                    if mark.load(Acquire) == 0 {
                        if !mapped::charge(MARK_ENTRIES.wrapping_mul(size_of::<AtomicU64>())) {
                            return Err(NoRoom);
                        }
                        mark.store(1, SeqCst);
                    }
                    if trace_of(word).size < ALONE_SIZE {
                        if self.begin_array(page, 0, word)? {
                            return Ok(None);
                        }
                    } else if entry.compare_exchange(0, word, SeqCst, Relaxed).is_ok() {
                        return Ok(None);
                    }
                }
                Entry::One(one) if tag_of(one) == tag => {
                    // Given back unseen.
                    if entry.compare_exchange(one, word, SeqCst, Relaxed).is_ok() {
                        return Ok(Some(trace_of(one)));
                    }
                }
                Entry::One(one) => {
                    self.begin_array(page, one, one)?;
                }
                Entry::Array(shape) => match insert_into(shape, tag, word) {
                    Inserted::Yes(replaced) => return Ok(replaced),
                    Inserted::IsFull => self.grow(page, held, shape)?,
                    // Or it is being looked at whether it is empty.
                    Inserted::HasMoved if entry.load(SeqCst) == held => self.wait(page)?,
                    Inserted::HasMoved => {}
                },
                Entry::Growing(_) => self.wait(page)?,
            }
        }
    }

    /// Waits until a page has grown.
    fn wait(&self, page: Page<'_>) -> Result<(), NoRoom> {
        // A signal handler may have interrupted the thread that it would wait for.
        if thread::holds_lock() {
            return Err(NoRoom);
        }
        drop(self.growth(page.number).ok_or(NoRoom)?.lock.lock());
        Ok(())
    }

    /// Returns an array, if need be one that is empty by now.
    fn take_array(&self, level: u32) -> Result<Shape, NoRoom> {
        let free = self.arrays.take(level, false).or_else(|| {
            self.scavenge();
            self.arrays.take(level, true)
        });
        free.ok_or(NoRoom)
    }

    /// Gives back empty arrays of some pages, others each time: of some 8 MiB of heap.
    fn scavenge(&self) {
        const N_GROUPS: usize = 4;
        const N_LOOKS: usize = 256;
        let mut n_looked_at = 0usize;
        // Relaxed: if several do it at once, they may look at the same pages. Chunks stay (I5).
        let mut index = self.scavenged_group.load(Relaxed);
        let mut at = self.scavenged_chunk.load(Acquire);
        for _ in 0..N_LOOKS {
            // SAFETY: null, or a chunk that stays mapped and linked.
            let Some(chunk) = (unsafe { at.as_ref() }) else {
                (at, index) = (self.chunks.load(SeqCst), 0);
                continue;
            };
            let entries = chunk.entries.as_chunks::<MARK_ENTRIES>().0.get(index);
            let Some((mark, entries)) = chunk.header.is_used.get(index).zip(entries) else {
                (at, index) = (chunk.header.next, 0);
                continue;
            };
            if mark.load(Relaxed) != 0 {
                let first = (index.wrapping_mul(MARK_ENTRIES) as u64) << PAGE_BITS;
                self.scavenge_group(chunk.header.base_addr.wrapping_add(first), entries);
                n_looked_at = n_looked_at.wrapping_add(1);
            }
            index = index.wrapping_add(1);
            if n_looked_at == N_GROUPS {
                break;
            }
        }
        self.scavenged_group.store(index, Relaxed);
        self.scavenged_chunk.store(at, Release);
    }

    fn scavenge_group(&self, first_addr: u64, entries: &[AtomicU64; MARK_ENTRIES]) {
        for (page, entry) in (first_addr >> PAGE_BITS..).zip(entries) {
            let held = entry.load(Acquire);
            if let Entry::Array(shape) = Entry::of(held)
                && is_empty(shape)
            {
                // Whoever has the lock is at work on another page, or on this one, which is not empty then.
                let lock = self.growth(page).and_then(|growth| growth.lock.try_lock());
                if lock.is_some() && entry.load(SeqCst) == held {
                    self.give_back_if_empty(entry, shape);
                }
            }
        }
    }

    /// Gives a page an array with the trace `word` in it, if its entry holds `held`; says whether it did.
    fn begin_array(&self, page: Page<'_>, held: u64, word: u64) -> Result<bool, NoRoom> {
        // A signal handler may have interrupted who has the lock of the arrays.
        if thread::holds_lock() {
            return Err(NoRoom);
        }
        // Heaps fill pages in order, and neighbours have blocks of like sizes.
        let beside = page.neighbour.map_or(Entry::None, |entry| Entry::of(entry.load(Relaxed)));
        let level = match beside {
            Entry::Array(shape) | Entry::Growing(shape) => shape.level().saturating_sub(1),
            _ => 0,
        };
        let shape = self.take_array(level)?;
        place(shape, tag_of(word), word);
        let begun = page.entry.compare_exchange(held, shape.to_entry(), SeqCst, Relaxed);
        if begun.is_err() {
            self.arrays.give_back(shape);
        }
        Ok(begun.is_ok())
    }

    /// Gives a page an array twice as long as `from`, to which its entry `held` leads, unless that has
    /// changed.
    fn grow(&self, page: Page<'_>, held: u64, from: Shape) -> Result<(), NoRoom> {
        if thread::holds_lock() {
            return Err(NoRoom);
        }
        let level = from.level().wrapping_add(1);
        if level > MAX_LEVEL {
            // A word for each place: full only of traces that are there twice.
            return Err(NoRoom);
        }
        let to = self.take_array(level)?;
        let growth = self.growth(page.number).ok_or(NoRoom)?;
        let _held = growth.lock.lock();
        if page.entry.load(SeqCst) != held {
            self.arrays.give_back(to);
            return Ok(());
        }
        growth.page.store(page.number, Release);
        growth.from.store(held, Release);
        page.entry.store(to.to_growing_entry(), SeqCst);
        for index in 0..1usize << from.level() {
            // SAFETY: only this thread retires the array, below.
            for slot in unsafe { line(from, index) } {
                move_word(slot, to);
            }
        }
        page.entry.store(to.to_entry(), SeqCst);
        self.arrays.retire(from);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn take_slowly(&self, entry: &AtomicU64, block_addr: u64) -> Option<LiveTrace> {
        let (page, tag) = (block_addr >> PAGE_BITS, Tag::of(block_addr));
        loop {
            let held = entry.load(SeqCst);
            match Entry::of(held) {
                Entry::None => return None,
                Entry::One(one) if tag_of(one) != tag => return None,
                Entry::One(one) => {
                    if entry.compare_exchange(one, 0, SeqCst, Relaxed).is_ok() {
                        return Some(trace_of(one));
                    }
                }
                Entry::Array(shape) => match take_from(shape, tag, false) {
                    Found::Taken(trace) => return Some(trace),
                    Found::Not { is_gone: false } if entry.load(SeqCst) == held => return None,
                    // It has begun to grow, and may have grown.
                    Found::Not { .. } => {}
                },
                Entry::Growing(to) => {
                    let Some(from) = self.old_array(page, entry, held) else { continue };
                    let found = match take_from(from, tag, false) {
                        Found::Not { is_gone } => take_from(to, tag, is_gone),
                        taken => taken,
                    };
                    match found {
                        Found::Taken(trace) => return Some(trace),
                        Found::Not { .. } if entry.load(SeqCst) == held => return None,
                        Found::Not { .. } => {}
                    }
                }
            }
        }
    }

    /// Returns the word of a live trace.
    fn find(&self, block_addr: u64) -> Option<u64> {
        let (page, tag) = (block_addr >> PAGE_BITS, Tag::of(block_addr));
        let entry = self.entry(block_addr)?;
        loop {
            let held = entry.load(SeqCst);
            let found = match Entry::of(held) {
                Entry::None => return None,
                Entry::One(one) => return (tag_of(one) == tag).then_some(one),
                Entry::Array(shape) => word_of(shape, tag, false).ok(),
                Entry::Growing(to) => {
                    let Some(from) = self.old_array(page, entry, held) else { continue };
                    word_of(from, tag, false).or_else(|is_gone| word_of(to, tag, is_gone)).ok()
                }
            };
            if found.is_some() || entry.load(SeqCst) == held {
                return found;
            }
        }
    }

    /// Visits the words of a page's live traces, each tag once.
    fn for_each_of_page(&self, page: u64, entry: &AtomicU64, mut visit: impl FnMut(u64)) {
        loop {
            let held = entry.load(SeqCst);
            match Entry::of(held) {
                Entry::None => {}
                Entry::One(one) => visit(one),
                Entry::Array(shape) => {
                    // Released and recorded again meanwhile, a block may be met twice.
                    let mut is_visited = Tags::default();
                    for_each_word(shape, |word| {
                        // What is gone has gone since this began, and was live before.
                        if matches!(kind(word), Kind::Live | Kind::Gone)
                            && is_visited.add(tag_of(word))
                        {
                            visit(word);
                        }
                    });
                }
                Entry::Growing(to) => {
                    let Some(from) = self.old_array(page, entry, held) else { continue };
                    let (mut is_visited, mut is_gone) = (Tags::default(), Tags::default());
                    for_each_word(from, |word| match kind(word) {
                        Kind::Live if is_visited.add(tag_of(word)) => visit(word),
                        Kind::Gone => {
                            is_gone.add(tag_of(word));
                        }
                        _ => {}
                    });
                    for_each_word(to, |word| {
                        let is_here = match kind(word) {
                            Kind::Live => true,
                            Kind::Copy => is_gone.has(tag_of(word)),
                            _ => false,
                        };
                        if is_here && is_visited.add(tag_of(word)) {
                            visit(word);
                        }
                    });
                }
            }
            return;
        }
    }

    /// Forgets the traces of a page, and gives back its array.
    fn clear_page(&self, page: u64, entry: &AtomicU64, forgotten: &mut dyn FnMut(LiveTrace)) {
        let Some(growth) = self.growth(page) else { return };
        let _held = growth.lock.lock();
        match Entry::of(entry.load(SeqCst)) {
            Entry::One(one) => {
                if entry.compare_exchange(one, 0, SeqCst, Relaxed).is_ok() {
                    forgotten(trace_of(one));
                }
            }
            Entry::Array(shape) => {
                for_each_slot(shape, |slot| {
                    let word = slot.load(SeqCst);
                    if kind(word) == Kind::Live
                        && slot.compare_exchange(word, 0, SeqCst, Relaxed).is_ok()
                    {
                        forgotten(trace_of(word));
                    }
                });
                self.give_back_if_empty(entry, shape);
            }
            // Not while the lock is held.
            Entry::None | Entry::Growing(_) => {}
        }
    }

    /// Gives back the array of a page, whose lock is held, if there is no trace in it.
    fn give_back_if_empty(&self, entry: &AtomicU64, shape: Shape) {
        if !is_empty(shape) || !self.arrays.can_retire() {
            return;
        }
        let mut is_empty = true;
        for_each_slot(shape, |slot| {
            is_empty = is_empty && slot.compare_exchange(0, SEALED, SeqCst, Relaxed).is_ok();
        });
        if is_empty {
            entry.store(0, SeqCst);
            self.arrays.retire(shape);
            return;
        }
        // A trace has been inserted meanwhile.
        for_each_slot(shape, |slot| {
            let _ = slot.compare_exchange(SEALED, 0, SeqCst, Relaxed);
        });
    }

    /// Checks the invariants by number, and returns one that does not hold. For quiet tables.
    #[cfg(test)]
    fn violated_invariant(&self) -> Option<&'static str> {
        let n_marked = || {
            let mut n_marked = 0;
            self.for_each_page(|_, _| n_marked += 1);
            n_marked
        };
        let entries = || self.chunks().flat_map(|chunk| &chunk.entries);
        if entries().filter(|entry| entry.load(SeqCst) != 0).count() != n_marked() {
            return Some("I4");
        }
        let mut violated = None;
        self.for_each_page(|_, entry| {
            let mut tags = Tags::default();
            match Entry::of(entry.load(SeqCst)) {
                Entry::Growing(_) => violated = Some("I3"),
                Entry::Array(shape) => {
                    let mut index = 0;
                    for_each_word(shape, |word| {
                        let is_at_home = || shape.line_index(tag_of(word)) == index / LINE_WORDS;
                        if word != 0
                            && !(kind(word) == Kind::Live && is_at_home() && tags.add(tag_of(word)))
                        {
                            violated = Some("I2");
                        }
                        index += 1;
                    });
                }
                Entry::None | Entry::One(_) => {}
            }
        });
        violated
    }
}

/// What came of an insertion.
enum Inserted {
    /// What was recorded of a block at this address before.
    Yes(Option<LiveTrace>),
    /// There is no room in the line.
    IsFull,
    /// The array is not the page's any more.
    HasMoved,
}

fn insert_into(shape: Shape, tag: Tag, word: u64) -> Inserted {
    // SAFETY: the caller is in an operation, in which the page led to this array.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let look = look(line, tag);
    if look.live | look.moving == 0
        && let Some(slot) = first(line, look.vacant)
        && slot.compare_exchange(0, word, SeqCst, Relaxed).is_ok()
    {
        return Inserted::Yes(None);
    }
    loop {
        let mut vacant = None;
        let mut stale = None;
        for slot in line {
            let held = slot.load(Acquire);
            match kind(held) {
                Kind::Vacant => vacant = Some((slot, held)),
                Kind::Live if !has_tag(held, tag) => {}
                Kind::Live => stale = Some((slot, held)),
                Kind::Gone | Kind::Sealed | Kind::Copy => return Inserted::HasMoved,
            }
        }
        let Some((slot, held)) = stale.or(vacant) else { return Inserted::IsFull };
        if slot.compare_exchange(held, word, SeqCst, Relaxed).is_ok() {
            return Inserted::Yes((held != 0).then(|| trace_of(held)));
        }
    }
}

/// Takes the live trace of a tag out of an array, or the copy if `counts_copy`.
fn take_from(shape: Shape, tag: Tag, counts_copy: bool) -> Found {
    // SAFETY: as above.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let look = look(line, tag);
    if let Some(slot) = first(line, look.live) {
        let held = slot.load(Relaxed);
        if is_live_of(held, tag) && slot.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
            return Found::Taken(trace_of(held));
        }
    }
    let mut is_gone = false;
    for slot in line {
        loop {
            let held = slot.load(Acquire);
            let is_it = match kind(held) {
                _ if !has_tag(held, tag) => false,
                Kind::Live => true,
                Kind::Copy => counts_copy,
                Kind::Gone => {
                    is_gone = true;
                    false
                }
                Kind::Vacant | Kind::Sealed => false,
            };
            if !is_it {
                break;
            }
            if slot.compare_exchange(held, 0, SeqCst, Relaxed).is_ok() {
                return Found::Taken(trace_of(held));
            }
        }
    }
    Found::Not { is_gone }
}

/// Returns the word of the live trace of a tag, or of the copy if `counts_copy`; else whether it is gone.
fn word_of(shape: Shape, tag: Tag, counts_copy: bool) -> Result<u64, bool> {
    // SAFETY: as above.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let mut is_gone = false;
    for slot in line {
        let held = slot.load(Acquire);
        if has_tag(held, tag) {
            match kind(held) {
                Kind::Live => return Ok(held),
                Kind::Copy if counts_copy => return Ok(held),
                Kind::Gone => is_gone = true,
                _ => {}
            }
        }
    }
    Err(is_gone)
}

/// Stores a word in an array where nobody else inserts.
fn place(shape: Shape, tag: Tag, word: u64) -> Option<&'static AtomicU64> {
    // SAFETY: the caller has made the array, and will be the one to retire it.
    let line = unsafe { line(shape, shape.line_index(tag)) };
    let slot = line.iter().find(|slot| slot.load(Relaxed) == 0)?;
    slot.store(word, SeqCst);
    Some(slot)
}

/// Moves what stands in a place of an old array to a new one, in which nobody else inserts.
fn move_word(slot: &AtomicU64, to: Shape) {
    loop {
        let held = slot.load(SeqCst);
        if kind(held) != Kind::Live {
            if slot.compare_exchange(0, SEALED, SeqCst, Relaxed).is_ok() {
                return;
            }
            continue;
        }
        // There is room: a line of the old array has become two.
        let placed = place(to, tag_of(held), copy(held));
        let is_gone = slot.compare_exchange(held, gone(held), SeqCst, Relaxed).is_ok();
        if let Some(placed) = placed {
            // It fails if the block was released just now.
            let now = if is_gone { held } else { 0 };
            let _ = placed.compare_exchange(copy(held), now, SeqCst, Relaxed);
        }
        if is_gone {
            return;
        }
    }
}

fn for_each_slot(shape: Shape, mut visit: impl FnMut(&AtomicU64)) {
    for index in 0..1usize << shape.level() {
        // SAFETY: as above; the index is below the number of lines.
        for slot in unsafe { line(shape, index) } {
            visit(slot);
        }
    }
}

/// Whether there was nothing in any word when it was looked at.
fn is_empty(shape: Shape) -> bool {
    let mut words = 0;
    for_each_slot(shape, |slot| words |= slot.load(Relaxed));
    words == 0
}

fn for_each_word(shape: Shape, mut visit: impl FnMut(u64)) {
    for_each_slot(shape, |slot| visit(slot.load(Acquire)));
}

/// A set of tags.
#[derive(Default)]
struct Tags([u64; 4]);

impl Tags {
    /// Adds one; whether it was not in the set.
    fn add(&mut self, tag: Tag) -> bool {
        let bit = 1u64.wrapping_shl(tag.index() as u32);
        let Some(word) = self.0.get_mut(tag.index() / 64) else { return false };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn has(&self, tag: Tag) -> bool {
        let word = self.0.get(tag.index() / 64).copied().unwrap_or(0);
        word & 1u64.wrapping_shl(tag.index() as u32) != 0
    }
}

/// Runs an operation in which arrays are looked at.
#[inline(always)]
fn during<R>(operation: impl FnOnce() -> R) -> R {
    match thread::slot() {
        Some(slot) => slot.during(operation),
        None => SLOTS.during_other(operation),
    }
}

#[inline(always)]
fn entry_index(addr: u64) -> usize {
    (addr >> PAGE_BITS) as usize & (CHUNK_ENTRIES - 1)
}

impl LiveTable for PageShadow {
    #[inline(always)]
    fn insert_quickly(&self, block_addr: u64, trace: LiveTrace) -> bool {
        let Some(slot) = thread::slot() else { return false };
        let Some(entry) = self.entry(block_addr) else { return false };
        if trace.size >= SIZE_LIMIT || !block_addr.is_multiple_of(GRANULE) {
            return false;
        }
        let tag = Tag::of(block_addr);
        let word = live(tag, trace);
        slot.during(|| {
            let Some(shape) = Shape::of_entry(entry.load(Acquire)) else { return false };
            // SAFETY: in an operation, in which the page led to this array.
            let home = unsafe { home(shape, tag) };
            // Sealed or gone if it is the page's no more. A stale trace of the block, given back unseen, would
            // stand here, too, unless another was in its way.
            home.compare_exchange(0, word, SeqCst, Relaxed).is_ok()
        })
    }

    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        if !block_addr.is_multiple_of(GRANULE) {
            return Err(NoRoom);
        }
        if trace.size >= SIZE_LIMIT {
            return self.insert_large(block_addr, trace);
        }
        let chunk = match self.chunk(block_addr) {
            Some(chunk) => chunk,
            None => self.map_chunk(block_addr).ok_or(NoRoom)?,
        };
        let word = live(Tag::of(block_addr), trace);
        during(|| self.insert_slowly(chunk, block_addr, word))
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        self.flat.set_detail(block_addr, detail)
    }

    fn detail(&self, block_addr: u64) -> Detail {
        self.flat.detail(block_addr)
    }

    #[inline(always)]
    fn take_quickly(&self, block_addr: u64) -> Option<LiveTrace> {
        let (slot, entry) = (thread::slot()?, self.entry(block_addr)?);
        let tag = Tag::of(block_addr);
        slot.during(|| {
            let shape = Shape::of_entry(entry.load(Acquire))?;
            // SAFETY: in an operation, in which the page led to this array.
            let home = unsafe { home(shape, tag) };
            let held = home.load(Relaxed);
            let is_taken = is_live_of(held, tag)
                && block_addr.is_multiple_of(GRANULE)
                && home.compare_exchange(held, 0, SeqCst, Relaxed).is_ok();
            is_taken.then(|| trace_of(held))
        })
    }

    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE) {
            return None;
        }
        // Blocks without a trace are common: from before the start, or a tool's own.
        let entry = self.entry(block_addr).filter(|entry| entry.load(Acquire) != 0);
        let taken = entry.and_then(|entry| during(|| self.take_slowly(entry, block_addr)));
        taken.or_else(|| self.flat.take(block_addr))
    }

    fn take_if(&self, block_addr: u64, trace: LiveTrace) -> bool {
        // The block is the caller's, who has just inserted it: nobody else can make it another trace.
        self.get(block_addr) == Some(trace) && self.take(block_addr).is_some()
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE) {
            return None;
        }
        let found = during(|| self.find(block_addr));
        found.map(trace_of).or_else(|| self.flat.get(block_addr))
    }

    fn for_each<const HAS_DETAILS: bool>(&self, mut visit: impl FnMut(u64, LiveTrace, Detail)) {
        self.for_each_page(|page_addr, entry| {
            during(|| {
                self.for_each_of_page(page_addr >> PAGE_BITS, entry, |word| {
                    let addr = page_addr.wrapping_add(tag_of(word).offset());
                    if !HAS_DETAILS {
                        return visit(addr, trace_of(word), Detail::UNKNOWN);
                    }
                    let mut trace = Some(trace_of(word));
                    // Comes to an end: each time round, another block has been recorded at this address.
                    while let Some(held) = trace {
                        let detail = self.flat.detail(addr);
                        trace = self.find(addr).map(trace_of);
                        if trace == Some(held) {
                            return visit(addr, held, detail);
                        }
                    }
                });
            });
        });
        self.flat.for_each::<HAS_DETAILS>(visit);
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        self.for_each_page(|page_addr, entry| {
            during(|| self.clear_page(page_addr >> PAGE_BITS, entry, forgotten));
        });
        self.flat.clear(forgotten);
    }
}

impl PageShadow {
    /// Inserts a trace that has no place in a word.
    #[cold]
    #[inline(never)]
    fn insert_large(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        // Given back unseen.
        let stale = self.take(block_addr);
        Ok(self.flat.insert(block_addr, trace)?.or(stale))
    }
}

#[cfg(test)]
use crate::page_word::LINE_WORDS;

#[cfg(test)]
mod tests;
