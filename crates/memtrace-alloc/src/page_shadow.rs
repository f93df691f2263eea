//! The live table around any allocator: for each page of heap, as many words as blocks start in it.
//!
//! # Mechanism
//!
//! Address space is divided into pages of 4 KiB, each with an entry of 8 bytes, in chunks that are mapped on
//! demand. An entry says that no block starts in the page, or is the trace of the one that does, or leads
//! to an array of traces. An array has 1 to 32 lines of 8 words, of which each serves an equal part of the
//! page; a trace stands anywhere in its line, with the place in the page as a tag, and where none is in its way,
//! at *home*: the word for its part of the line's part. When a line is full, an array twice as long takes the
//! old one's place; a little earlier where that makes all blocks of a C library at home. A page begins with an
//! array as long as its neighbour's, if that is needed there, or half as long. So small blocks take a word each
//! and a fraction more, large ones a word for their page.
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
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | entry | all (SeqCst) | all (Acquire), `clear` (SeqCst) | its array, zeroed or filled; where from |
//! | word | all (SeqCst) | all (Acquire), `clear` (SeqCst) | for [`FlatShadow`]'s details: see there |
//! | `Growth` | `grow` (Release, before the entry) | `old_array` (Acquire, then the entry again) | the old array |
//!
//! `clear` holds the lock of the page that it looks at.
//!
//! # Cost
//!
//! Insertion and removal: four loads of addresses and a compare-and-swap, where the trace is likeliest to be;
//! else a look at its line. 8 to 21 bytes a block, and 8 for each page that lies in 2 MiB of address space
//! where any block does.

mod quick;
mod samples;
mod scavenging;
mod tending;

use crate::array_memory::ArrayMemory;
use crate::flat_shadow::FlatShadow;
use crate::live::{Detail, LiveTable, LiveTrace, NoRoom, Quick};
use crate::lock::LeafLock;
use crate::operation::{Operation, during};
use crate::page_array::{
    Found, Inserted, Tags, for_each_slot, for_each_word, insert_into, is_crowded, is_empty,
    is_needed, move_word, place, take_from, word_of,
};
use crate::page_directory::{Directory, PAGE_BITS, Page};
use crate::page_word::{
    Entry, Granule, Kind, MAX_LEVEL, SEALED, SIZE_LIMIT, Shape, Tag, kind, live, small_live,
    tag_of, trace_of,
};
use crate::thread;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};
pub(crate) use quick::AtHome;
use scavenging::Cursor;
use tending::Tending;
pub(crate) use tending::while_fruitful;

/// Block addresses are multiples of this many bytes.
const GRANULE: u64 = 16;
const N_LOCKS: usize = 16;
/// Blocks of this size and more are likely to be alone in their page.
const ALONE_SIZE: u64 = 512;

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
    directory: Directory,
    arrays: ArrayMemory,
    growths: [Growth; N_LOCKS],
    /// Where empty arrays will be looked for next.
    cursor: Cursor,
    /// How often there was no memory for an array, one time after the other.
    n_failed: AtomicU32,
    tending: Tending,
    /// What has no place here.
    flat: FlatShadow,
}

impl PageShadow {
    pub(crate) const fn new() -> Self {
        Self {
            directory: Directory::new(),
            arrays: ArrayMemory::new(),
            growths: [const { Growth::new() }; N_LOCKS],
            cursor: Cursor::new(),
            n_failed: AtomicU32::new(0),
            tending: Tending::new(),
            flat: FlatShadow::new(),
        }
    }

    /// Maps the directories; `false` if that fails. Not to be called by two threads at once.
    pub(crate) fn prepare(&self) -> bool {
        self.directory.prepare() && self.flat.prepare()
    }

    /// Lets [`AtHome`] be unknown for all blocks, though they may be here.
    pub(crate) fn refuse_quickly(&self) {
        self.directory.refuse_quickly();
    }

    /// Takes all locks for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.growths.iter().for_each(|growth| growth.lock.acquire());
        self.directory.before_fork();
        self.flat.before_fork();
        self.arrays.before_fork();
    }

    pub(crate) fn after_fork(&self) {
        self.arrays.after_fork();
        self.flat.after_fork();
        self.directory.after_fork();
        self.growths.iter().for_each(|growth| growth.lock.release());
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
        page: Page<'_>,
        tag: Tag,
        word: u64,
    ) -> Result<Option<LiveTrace>, NoRoom> {
        // With a word for each place, a line is full only of traces that are there twice. But it also looks full
        // to one who looks at a word after the other while others release blocks and record new ones.
        const N_TRIES: u32 = 1000;
        let mut n_tries = 0u32;
        let entry = page.entry;
        loop {
            let held = entry.load(SeqCst);
            match Entry::of(held) {
                Entry::None => {
                    page.mark_used()?;
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
                // Where it cannot grow, there may be room yet.
                Entry::Array(shape)
                    if is_crowded(shape, tag) && self.grow(page, held, shape).is_ok() => {}
                Entry::Array(shape) => match insert_into(shape, tag, word) {
                    Inserted::Yes(replaced) => return Ok(replaced),
                    Inserted::IsFull if shape.level() < MAX_LEVEL => {
                        self.grow(page, held, shape)?
                    }
                    Inserted::IsFull if n_tries < N_TRIES => n_tries = n_tries.wrapping_add(1),
                    Inserted::IsFull => return Err(NoRoom),
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
        if let Some(shape) = self.arrays.take(level, false) {
            return Ok(shape);
        }
        // Where there is no memory, and many ask for it, few of them look for some.
        const N_BETWEEN: u32 = 256;
        // Relaxed: publishes nothing.
        let n_failed = self.n_failed.load(Relaxed);
        if n_failed.is_multiple_of(N_BETWEEN) {
            self.scavenge();
        }
        let shape = self.arrays.take(level, true);
        let n_failed = if shape.is_some() { 0 } else { n_failed.wrapping_add(1) };
        self.n_failed.store(n_failed, Relaxed);
        shape.ok_or(NoRoom)
    }

    /// Gives a page an array with the trace `word` in it, if its entry holds `held`; says whether it did.
    fn begin_array(&self, page: Page<'_>, held: u64, word: u64) -> Result<bool, NoRoom> {
        // A signal handler may have interrupted who has the lock of the arrays.
        if thread::holds_lock() {
            return Err(NoRoom);
        }
        // Heaps fill pages in order, and neighbours have blocks of like sizes. In an operation, in which the
        // neighbour led to this array; Acquire, for it is looked into.
        let beside = page.neighbour.map_or(Entry::None, |entry| Entry::of(entry.load(Acquire)));
        let level = match beside {
            Entry::Array(shape) if is_needed(shape) => shape.level(),
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

    /// Gives a page an array twice as long as `from`, which is not the longest, and to which its entry `held`
    /// leads, unless that has changed.
    fn grow(&self, page: Page<'_>, held: u64, from: Shape) -> Result<(), NoRoom> {
        if thread::holds_lock() {
            return Err(NoRoom);
        }
        let to = self.take_array(from.level().wrapping_add(1))?;
        let growth = self.growth(page.number).ok_or(NoRoom)?;
        let lock = growth.lock.lock();
        if page.entry.load(SeqCst) != held {
            drop(lock);
            self.arrays.give_back(to);
            return Ok(());
        }
        growth.page.store(page.number, Release);
        growth.from.store(held, Release);
        page.entry.store(to.to_growing_entry(), SeqCst);
        for_each_slot(from, |slot| move_word(slot, to));
        page.entry.store(to.to_entry(), SeqCst);
        drop(lock);
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
        let entry = self.directory.entry(block_addr)?;
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
                            // Gone, if the page grows once more by now: it was live here before.
                            Kind::Live | Kind::Gone => true,
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
        let lock = growth.lock.lock();
        loop {
            match Entry::of(entry.load(SeqCst)) {
                Entry::One(one) => {
                    if entry.compare_exchange(one, 0, SeqCst, Relaxed).is_err() {
                        // Taken; or, which needs no lock, another block has come, and both are in an array.
                        continue;
                    }
                    forgotten(trace_of(one));
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
                    let is_vacant = self.arrays.can_retire() && vacate(entry, shape);
                    drop(lock);
                    if is_vacant {
                        self.arrays.retire(shape);
                    }
                }
                // Not while the lock is held.
                Entry::None | Entry::Growing(_) => {}
            }
            return;
        }
    }
}

/// Makes the page of an entry, whose lock is held, one without an array if there is no trace in it, and says
/// whether it did.
fn vacate(entry: &AtomicU64, shape: Shape) -> bool {
    if !is_empty(shape) {
        return false;
    }
    let mut is_sealed = true;
    for_each_slot(shape, |slot| {
        is_sealed = is_sealed && slot.compare_exchange(0, SEALED, SeqCst, Relaxed).is_ok();
    });
    if is_sealed {
        entry.store(0, SeqCst);
        return true;
    }
    // A trace has been inserted meanwhile.
    for_each_slot(shape, |slot| {
        let _ = slot.compare_exchange(SEALED, 0, SeqCst, Relaxed);
    });
    false
}

impl LiveTable for PageShadow {
    #[inline(always)]
    fn insert_quickly(&self, block_addr: u64, trace: LiveTrace) -> bool {
        let Some(word) = small_live(block_addr, trace) else { return false };
        match self.insert_at_home(block_addr, word) {
            AtHome::Done(()) => true,
            AtHome::Not(shape) => self.insert_into_line(shape, word),
            AtHome::Unknown => self.insert_alone(block_addr, word),
        }
    }

    fn insert(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        if !block_addr.is_multiple_of(GRANULE) {
            return Err(NoRoom);
        }
        if trace.size >= SIZE_LIMIT {
            return self.insert_large(block_addr, trace);
        }
        let page = self.directory.page_or_map(block_addr)?;
        let tag = Tag::of(block_addr);
        self.insert_slowly(page, tag, live(tag, trace))
    }

    fn set_detail(&self, block_addr: u64, detail: Detail) -> Result<(), NoRoom> {
        self.flat.set_detail(block_addr, detail)
    }

    fn detail(&self, block_addr: u64) -> Detail {
        self.flat.detail(block_addr)
    }

    #[inline(always)]
    fn take_quickly(&self, block_addr: u64) -> Quick {
        let granule = Granule::of(block_addr);
        let Some(entry) = self.directory.quick_entry(granule) else { return Quick::Unknown };
        // Most blocks while tracing is sampled.
        if entry.load(Relaxed) == 0 && self.flat.is_vacant() {
            return Quick::Nothing;
        }
        match Self::take_at_home_of(entry, granule) {
            AtHome::Done(trace) => Quick::Taken(trace),
            AtHome::Not(shape) => self.take_from_line(shape, block_addr),
            AtHome::Unknown => self.take_alone(block_addr).map_or(Quick::Unknown, Quick::Taken),
        }
    }

    fn take(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE) {
            return None;
        }
        // Blocks without a trace are common: from before the start, or a tool's own.
        let entry = self.directory.entry(block_addr).filter(|entry| entry.load(Acquire) != 0);
        let taken = entry.and_then(|entry| self.take_slowly(entry, block_addr));
        taken.or_else(|| self.flat.take(block_addr))
    }

    fn get(&self, block_addr: u64) -> Option<LiveTrace> {
        if !block_addr.is_multiple_of(GRANULE) {
            return None;
        }
        let found = during(|| self.find(block_addr));
        found.map(trace_of).or_else(|| self.flat.get(block_addr))
    }

    fn for_each<const HAS_DETAILS: bool>(&self, mut visit: impl FnMut(u64, LiveTrace, Detail)) {
        self.directory.for_each_page(|page_addr, entry| {
            let _operation = Operation::begin();
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
        self.flat.for_each::<HAS_DETAILS>(visit);
    }

    fn clear(&self, forgotten: &mut dyn FnMut(LiveTrace)) {
        self.directory.for_each_page(|page_addr, entry| {
            during(|| self.clear_page(page_addr >> PAGE_BITS, entry, forgotten));
        });
        self.flat.clear(forgotten);
    }
}

impl PageShadow {
    /// Gives back pages of details of blocks that have no trace, here or where `is_live_elsewhere` looks. Whether
    /// there is likely to be more. Not to be called while the thread holds a lock.
    pub(crate) fn give_back_details(&self, is_live_elsewhere: impl Fn(u64) -> bool) -> bool {
        // In an operation, so that one which a signal handler interrupts is seen.
        during(|| {
            self.flat.give_back_details(|addr| self.get(addr).is_some() || is_live_elsewhere(addr))
        })
    }

    /// Inserts a trace that has no place in a word.
    #[cold]
    #[inline(never)]
    fn insert_large(&self, block_addr: u64, trace: LiveTrace) -> Result<Option<LiveTrace>, NoRoom> {
        // Given back unseen.
        let stale = self.take(block_addr);
        Ok(self.flat.insert(block_addr, trace)?.or(stale))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
