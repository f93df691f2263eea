//! Sites: distinct stacks, each with a number.
//!
//! A stack is looked up by its 64-bit hash in an open-addressing index, without a lock; a stack seen for
//! the first time is [stored](crate::stacks), given the next number, and published under a leaf lock. Nothing is ever
//! removed or moved, so a number and the frames behind it stay good for the life of the process.
//!
//! Frames are not compared: two stacks are taken for one if their hashes agree. The place in the index
//! and the bits in its slot together tell nearly all 64 bits apart; among 10 million stacks the
//! probability that any two are confused is below 10⁻⁴, among 30 thousand below 10⁻⁹.
//!
//! # Invariants
//!
//! - **I1** A slot of the index of 2ᵏ slots is zero (empty) or has the number of a record in its lower k
//!   bits and the bits of that record's hash above them; it changes once, from empty, after the record
//!   was written.
//! - **I2** An index is at most three quarters full, so that every probe ends at an empty slot, and a
//!   number fits k bits. A fuller one is replaced by one twice as large; the old one stays readable, though most of it
//!   becomes empty, and a stack missing from it is looked up again under the lock.
//! - **I3** Records lie in segments and never move; they and their stacks never change.
//! - **I4** Number 0 is the site of a trace without a known stack.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `index` | `grow` (Release) | `find` (Acquire) | the new index's header and slots |
//! | a slot | `insert` (Release) | `find` (Acquire) | the record and its frames |
//! | `n_records` | `insert` (Release) | `get` (Acquire) | the records below |
//!
//! # Cost
//!
//! One probe, mostly of one cache line, for which a program of many stacks has to wait; none where stacks come in
//! the order in which they were seen first, as they do when a program does the same once more. 16 bytes a record and
//! 11 to 21 of index for each site, beside its stack: some 30 to 40 bytes of 25 frames where there are many.
#![expect(unsafe_code, reason = "structures in mapped memory, shared without locks")]

use crate::lock::LeafLock;
use crate::mapped::{self, Part};
use crate::segments::Segments;
use crate::stacks::{CallAddrs, Runs, Stacks};
use core::fmt::{self, Debug, Formatter};
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use memtrace_heap::PAGE_SIZE;
use memtrace_unwind::{End, StackHash};

/// The number of a site; the same stack has the same number as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub(crate) u32);

impl SiteId {
    /// The site of a trace without a known stack.
    pub const UNKNOWN: Self = Self(0);

    /// Returns the number, below 2³⁰; sites are numbered from 1 as they are first seen.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A captured stack.
#[derive(Clone, Copy)]
pub struct Site {
    stacks: &'static Stacks,
    stack: u32,
    n_frames: u16,
    /// Whether its frames are all.
    pub end: End,
}

impl Site {
    /// Returns the addresses inside the calling instructions, newest first: up to 65,535.
    ///
    /// **Cost**: a few nanoseconds an address.
    pub const fn call_addrs(&self) -> CallAddrs {
        self.stacks.read(self.stack, self.n_frames as usize)
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.end == other.end && self.call_addrs().eq(other.call_addrs())
    }
}

impl Eq for Site {}

impl Debug for Site {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let call_addrs = fmt::from_fn(|f| f.debug_list().entries(self.call_addrs()).finish());
        f.debug_struct("Site").field("call_addrs", &call_addrs).field("end", &self.end).finish()
    }
}

/// Numbers fit 30 bits of a live table's word.
const MAX_SITES: u32 = (1 << 30) - 1;
const FIRST_INDEX_LEN: usize = 1 << 12;
const FIRST_SEGMENT_LEN: usize = 1 << 10;
const N_SEGMENTS: usize = 21;

#[repr(C)]
struct Index {
    /// Number of slots, a power of two; they follow the header.
    len: usize,
}

const _: () = assert!(size_of::<Index>() <= size_of::<AtomicU64>());

#[repr(C)]
struct Record {
    hash: u64,
    stack: u32,
    n_frames: u16,
    end: End,
}

const _: () = assert!(size_of::<Record>() == 16);

/// What is changed under the lock.
struct Writer {
    n_records: u32,
    runs: Runs,
}

pub(crate) struct Sites {
    index: AtomicPtr<Index>,
    records: Segments<Record, FIRST_SEGMENT_LEN, N_SEGMENTS>,
    stacks: Stacks,
    n_records: AtomicU32,
    writer: LeafLock<Writer>,
}

impl Sites {
    pub(crate) const fn new() -> Self {
        Self {
            index: AtomicPtr::new(ptr::null_mut()),
            records: Segments::new(Part::Sites),
            stacks: Stacks::new(),
            n_records: AtomicU32::new(0),
            writer: LeafLock::new(Writer { n_records: 0, runs: Runs::new() }),
        }
    }

    /// Maps the first tables; `false` if that fails.
    pub(crate) fn prepare(&self) -> bool {
        let _writer = self.writer.lock();
        // Relaxed: indexes are stored under the lock, which is held.
        if self.index.load(Relaxed).is_null() {
            let index = map_index(FIRST_INDEX_LEN);
            self.index.store(index, Release);
            return !index.is_null();
        }
        true
    }

    /// Returns the stack of a site; `None` for [`SiteId::UNKNOWN`].
    pub(crate) fn get(&'static self, id: SiteId) -> Option<Site> {
        let &Record { stack, n_frames, end, .. } = self.record(id)?;
        Some(Site { stacks: &self.stacks, stack, n_frames, end })
    }

    /// Returns how many sites there are.
    pub(crate) fn n_sites(&self) -> u32 {
        self.n_records.load(Relaxed)
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.writer.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.writer.release();
    }

    /// Returns the site of the stack that has this hash, if it has been seen.
    #[inline(always)]
    pub(crate) fn find(&self, hash: StackHash) -> Option<SiteId> {
        let slots = slots(self.index.load(Acquire))?;
        let mask = slots.len().wrapping_sub(1) as u64;
        let hash = hash.get();
        for slot in probe(slots, hash) {
            let word = slot.load(Acquire);
            if word == 0 {
                return None;
            }
            if (word ^ hash) & !mask == 0 {
                return Some(SiteId((word & mask) as u32));
            }
        }
        None
    }

    /// The same, for a stack that is likely to be the one after `last` in the order of numbers.
    #[inline(always)]
    pub(crate) fn find_after(&self, last: SiteId, hash: StackHash) -> Option<SiteId> {
        let next = SiteId(last.0.wrapping_add(1));
        match self.record(next) {
            Some(record) if record.hash == hash.get() => Some(next),
            _ => self.find(hash),
        }
    }

    /// Numbers a stack that [`Self::find`] does not know; `None` if there is no room for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn insert(
        &self,
        stack_hash: StackHash,
        call_addrs: &[u64],
        end: End,
    ) -> Option<SiteId> {
        let mut writer = self.writer.lock();
        // Another thread may have been first, or the index looked at may have been an old one.
        if let Some(id) = self.find(stack_hash) {
            return Some(id);
        }
        let hash = stack_hash.get();
        let number = writer.n_records.checked_add(1).filter(|&number| number <= MAX_SITES)?;
        if !self.has_room(number) && !self.grow() {
            return None;
        }
        let place = self.records.place_or_map(number)?;
        let n_frames = u16::try_from(call_addrs.len()).ok()?;
        let stack = self.stacks.add(&mut writer.runs, call_addrs)?;
        // SAFETY: the place of a number not yet published is mapped and not read by anyone.
        unsafe { place.write(Record { hash, stack, n_frames, end }) };
        writer.n_records = number;
        self.n_records.store(number, Release);
        self.publish(self.index.load(Relaxed), hash, number);
        Some(SiteId(number))
    }

    /// Stores a number in the first empty slot of its probe sequence. Called under the lock.
    fn publish(&self, index: *mut Index, hash: u64, number: u32) {
        let slots = slots(index).unwrap_or(&[]);
        if let Some(slot) = probe(slots, hash).find(|slot| slot.load(Relaxed) == 0) {
            let mask = slots.len().wrapping_sub(1) as u64;
            slot.store(hash & !mask | u64::from(number), Release);
        }
    }

    fn has_room(&self, number: u32) -> bool {
        let len = slots(self.index.load(Relaxed)).map_or(0, <[_]>::len);
        number as usize <= len.wrapping_sub(len / 4)
    }

    /// Replaces the index by one twice as large. Called under the lock.
    fn grow(&self) -> bool {
        let len = slots(self.index.load(Relaxed)).map_or(FIRST_INDEX_LEN / 2, <[_]>::len);
        let index = map_index(len.saturating_mul(2));
        if index.is_null() {
            return false;
        }
        for number in 1..=self.n_records.load(Relaxed) {
            if let Some(record) = self.record(SiteId(number)) {
                self.publish(index, record.hash, number);
            }
        }
        let old = self.index.swap(index, Release);
        empty_index(old);
        true
    }

    fn record(&self, id: SiteId) -> Option<&Record> {
        if id.0 == 0 || id.0 > self.n_records.load(Acquire) {
            return None;
        }
        let place = self.records.place(id.0)?;
        // SAFETY: a number up to `n_records` was written before that was stored (I3).
        Some(unsafe { place.as_ref() })
    }
}

fn map_index(len: usize) -> *mut Index {
    // The header takes the place of the first slot.
    let n_words = len.saturating_add(1);
    let size = n_words.saturating_mul(size_of::<AtomicU64>());
    // A program with so many stacks finds hardly any of them in the processor's caches.
    let mut index = if size > mapped::HUGE_PAGE_SIZE {
        mapped::map_huge(size, Part::Sites).cast::<Index>()
    } else {
        ptr::null_mut()
    };
    if index.is_null() {
        index = mapped::map::<AtomicU64>(n_words, Part::Sites).cast::<Index>();
    }
    if !index.is_null() {
        // SAFETY: fresh memory, large enough and aligned.
        unsafe { (*index).len = len };
    }
    index
}

/// Gives back the memory of an index that was replaced, but for its ends. Who still reads it finds nothing there. (Of a huge
/// page, part of which stays, the system may keep all until it is short of memory.)
fn empty_index(index: *mut Index) {
    let Some(slots) = slots(index) else { return };
    let Range { start, end } = slots.as_ptr_range();
    let to_next = start.addr().wrapping_neg() & PAGE_SIZE.wrapping_sub(1);
    let page = start.wrapping_byte_add(to_next);
    let size = end.addr().saturating_sub(page.addr()) & !PAGE_SIZE.wrapping_sub(1);
    // SAFETY: whole pages of the index, behind its header; it is not written to any more, and zero is an empty slot.
    if size != 0 && unsafe { mapped::discard(page.cast_mut().cast(), size) } {
        mapped::uncharge(size);
    }
}

fn slots<'a>(index: *mut Index) -> Option<&'a [AtomicU64]> {
    // SAFETY: null, or an index that stays mapped; its length never changes.
    let len = unsafe { index.as_ref() }?.len;
    // The header takes up the room of one word.
    let slots = index.cast::<AtomicU64>().wrapping_add(1);
    // SAFETY: `len` zeroed words follow the header, and stay mapped.
    Some(unsafe { core::slice::from_raw_parts(slots, len) })
}

/// The slots at which a hash may be found, in order, each once.
#[inline(always)]
fn probe(slots: &[AtomicU64], hash: u64) -> impl Iterator<Item = &AtomicU64> {
    let start = hash as usize & slots.len().wrapping_sub(1);
    let (before, after) = slots.split_at_checked(start).unwrap_or((&[], slots));
    after.iter().chain(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::vec::Vec;

    fn intern(sites: &Sites, call_addrs: &[u64], end: End) -> Option<SiteId> {
        let hash = StackHash::of(call_addrs, end);
        sites.find(hash).or_else(|| sites.insert(hash, call_addrs, end))
    }

    fn sites() -> &'static Sites {
        let sites: &'static Sites = std::boxed::Box::leak(std::boxed::Box::new(Sites::new()));
        assert!(sites.prepare());
        sites
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn a_stack_has_one_number_and_a_number_one_stack(
            stacks in prop::collection::vec(
                (prop::collection::vec(0..3u64, 0..6), prop_oneof![
                    Just(End::Outermost), Just(End::Limit), Just(End::Truncated),
                ]),
                1..2000,
            ),
        ) {
            let sites = sites();
            let mut numbers = HashMap::new();
            for (frames, end) in stacks {
                let id = intern(sites, &frames, end).unwrap();
                let known = *numbers.entry((frames.clone(), end as u8)).or_insert(id);
                prop_assert_eq!(id, known);
                let site = sites.get(id).unwrap();
                prop_assert!(site.call_addrs().eq(frames.iter().copied()) && site.end == end);
                // Right guesses, wrong ones, and such of sites that there are not.
                let hash = StackHash::of(&frames, end);
                for last in [0, id.0 - 1, id.0, sites.n_sites(), u32::MAX] {
                    prop_assert_eq!(sites.find_after(SiteId(last), hash), Some(id));
                }
            }
            prop_assert_eq!(sites.n_sites() as usize, numbers.len());
        }
    }

    #[test]
    fn four_threads_agree_on_the_numbers_of_a_growing_table() {
        let sites = sites();
        let all: Vec<Vec<SiteId>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u64)
                .map(|t| {
                    scope.spawn(move || {
                        let intern = |i: u64| {
                            let i = (i + t * 9973) % 120_000;
                            (i, intern(sites, &[i, i * i, 7], End::Outermost).unwrap())
                        };
                        let mut ids: Vec<_> = (0..120_000).map(intern).collect();
                        ids.sort_unstable();
                        ids.into_iter().map(|(_, id)| id).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|ids| *ids == all[0]));
        assert_eq!(sites.n_sites(), 120_000);
        let mut numbers: Vec<u32> = all[0].iter().map(|id| id.get()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=120_000));
        for (i, id) in (0..).zip(&all[0]) {
            assert!(sites.get(*id).unwrap().call_addrs().eq([i, i * i, 7]));
        }
    }

    #[test]
    fn an_index_that_was_replaced_is_empty_but_for_its_ends() {
        let resident = |index: *mut Index, len| mapped::resident_bytes(index.cast(), 8 * len);
        // By system pages, and by huge ones.
        for len in [1usize, 512, 1024, FIRST_INDEX_LEN, 1 << 20] {
            let index = map_index(len);
            let slots = slots(index).unwrap();
            slots.iter().for_each(|slot| slot.store(1, Relaxed));
            assert!(resident(index, len) >= 8 * len as u64);
            empty_index(index);
            assert!(resident(index, len) <= 2 * PAGE_SIZE as u64);
            let n_left = slots.iter().filter(|slot| slot.load(Relaxed) != 0).count();
            assert_eq!(slots.len(), len, "it is still known how long it is");
            assert!(n_left > 0 && n_left <= len.min(2 * PAGE_SIZE / 8), "{n_left} of {len}");
        }
    }

    #[test]
    fn the_unknown_site_and_numbers_not_yet_given_have_no_stack() {
        let sites = sites();
        assert_eq!(sites.get(SiteId::UNKNOWN), None);
        assert_eq!(sites.get(SiteId(1)), None);
        assert_eq!(sites.get(SiteId(MAX_SITES)), None);
    }
}
