//! Marks of the pages of a sparse table: which are in use, and how one that is not any more goes back to the
//! system.
//!
//! # Mechanism
//!
//! Who stores something marks the page first, in the same operation ([`Slot::during`](crate::thread_slot::Slot)).
//! Who gives pages back, one thread at a time, notes that a page is *leaving*, and waits until every operation is
//! over that may have looked at the mark before: until the next time, if need be. Who wants to store meanwhile
//! takes that note back. What is still leaving then becomes *busy*; if nothing is in the page it goes back. Who wants
//! to store into a page that is busy waits.
//!
//! [`Giving`] does that for a table, a few pages at a time, and goes around all of them.
//!
//! # Invariants
//!
//! - **I1** Between turns, pages are leaving if and only if there is a grace to wait for.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | mark | all (SeqCst) | `is_staying` (Acquire), sweeps (SeqCst) | itself, before what is stored |
//!
//! That an operation which saw the page in use, and not leaving, is over and its stores are seen by who gives back is
//! what [`Slots::is_over`](crate::thread_slot::Slots::is_over) promises.
//!
//! # Cost
//!
//! One load for who stores into a page that is in use. A turn meets and looks at no more pages than its table says,
//! and begins or asks after one grace.

use crate::live::NoRoom;
use crate::lock::LeafLock;
use crate::mapped;
use crate::thread;
use crate::thread_slot::{Grace, SLOTS};
use core::sync::atomic::{AtomicU8, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};
use memtrace_heap::PAGE_SIZE;

/// A page is in use: of the first thing that its mark tells of, or of the second.
pub(crate) const FIRST: u8 = 1;
pub(crate) const SECOND: u8 = 2;

const fn leaving(what: u8) -> u8 {
    what << 2
}

const fn busy(what: u8) -> u8 {
    what << 4
}

/// Marks a page as used, and charges for that the first time. To be called in the operation in which something
/// is stored there.
#[inline]
pub(crate) fn use_page<T>(mark: &AtomicU8, what: u8, giving: &LeafLock<T>) -> Result<(), NoRoom> {
    if is_staying(mark, what) { Ok(()) } else { use_page_slowly(mark, what, giving) }
}

/// Whether a page is in use, and may be stored into in the same operation.
#[inline(always)]
pub(crate) fn is_staying(mark: &AtomicU8, what: u8) -> bool {
    mark.load(Acquire) & (what | leaving(what) | busy(what)) == what
}

#[cold]
#[inline(never)]
fn use_page_slowly<T>(mark: &AtomicU8, what: u8, giving: &LeafLock<T>) -> Result<(), NoRoom> {
    loop {
        let held = mark.load(Acquire);
        if held & busy(what) != 0 {
            // A signal handler may have interrupted the thread that it would wait for.
            if thread::holds_lock() {
                return Err(NoRoom);
            }
            drop(giving.lock());
            continue;
        }
        let is_new = held & what == 0;
        if is_new && !mapped::charge(PAGE_SIZE) {
            return Err(NoRoom);
        }
        let now = (held | what) & !leaving(what);
        if mark.compare_exchange(held, now, SeqCst, Relaxed).is_ok() {
            return Ok(());
        }
        if is_new {
            mapped::uncharge(PAGE_SIZE);
        }
    }
}

/// Whether a page is in use.
#[inline(always)]
pub(crate) fn is_used(held: u8, what: u8) -> bool {
    held & what != 0
}

/// A chunk of a sparse table: some pages with a mark each. It is linked into a list, and stays there.
pub(crate) trait Chunk: Sync + 'static {
    /// Returns the mark of a page; `None` beyond the last.
    fn mark(&self, index: usize) -> Option<&AtomicU8>;

    /// Returns the chunk after this one.
    fn following(&self) -> Option<&'static Self>;
}

/// Pages that are given back, up to `N_AT_ONCE`, each by its chunk and its index. To find them, up to `N_MET` marks
/// are met in a turn, and up to `N_LOOKED_AT` pages in use looked at.
pub(crate) struct Giving<
    C: 'static,
    const N_AT_ONCE: usize,
    const N_LOOKED_AT: usize,
    const N_MET: usize,
> {
    leaving: [Option<(&'static C, usize)>; N_AT_ONCE],
    n_leaving: usize,
    /// When it is over they can go; `None` if there are none (I1).
    grace: Option<Grace>,
    /// Where the search for others goes on; `None` for the first chunk.
    next: Option<(&'static C, usize)>,
}

impl<C: Chunk, const N_AT_ONCE: usize, const N_LOOKED_AT: usize, const N_MET: usize>
    Giving<C, N_AT_ONCE, N_LOOKED_AT, N_MET>
{
    pub(crate) const fn new() -> Self {
        Self { leaving: [None; N_AT_ONCE], n_leaving: 0, grace: None, next: None }
    }

    /// Gives some pages back in which there is nothing, others each time, and returns how many. For who holds the
    /// lock of those who give back, and no other, in an operation of the thread's own.
    ///
    /// `vacant` returns where a page is, if there is nothing in it, and is asked again when no operation is under way
    /// that may store; `discard` gives it back, and says whether it did. `first` is the chunk that the list
    /// begins with.
    pub(crate) fn give_back<P>(
        &mut self,
        what: u8,
        first: impl Fn() -> Option<&'static C>,
        vacant: impl Fn(&'static C, usize) -> Option<P>,
        discard: impl Fn(P) -> bool,
    ) -> usize {
        if self.grace.is_none() {
            self.find_leaving(what, first, |chunk, index| vacant(chunk, index).is_some());
            if self.n_leaving == 0 {
                return 0;
            }
            self.grace = SLOTS.begin_grace();
        }
        let Some(grace) = self.grace else {
            self.take_leaving().for_each(|(_, _, mark)| stay(mark, what));
            return 0;
        };
        if !SLOTS.is_over(grace, thread::slot()) {
            return 0;
        }
        let given = self.take_leaving().filter(|&(chunk, index, mark)| {
            leave(mark, what, || vacant(chunk, index).is_some_and(&discard))
        });
        given.count()
    }

    /// Finds pages in which there is nothing now, and notes that they are leaving.
    fn find_leaving(
        &mut self,
        what: u8,
        first: impl Fn() -> Option<&'static C>,
        is_vacant: impl Fn(&'static C, usize) -> bool,
    ) {
        let mut n_looked_at = 0usize;
        for _ in 0..N_MET {
            let Some((chunk, index)) = self.next else {
                self.next = first().map(|chunk| (chunk, 0));
                if self.next.is_none() {
                    break;
                }
                continue;
            };
            let Some(mark) = chunk.mark(index) else {
                self.next = chunk.following().map(|chunk| (chunk, 0));
                continue;
            };
            self.next = Some((chunk, index.saturating_add(1)));
            if is_used(mark.load(Relaxed), what) {
                n_looked_at = n_looked_at.saturating_add(1);
                if is_vacant(chunk, index)
                    && let Some(place) = self.leaving.get_mut(self.n_leaving)
                {
                    begin_leaving(mark, what);
                    *place = Some((chunk, index));
                    self.n_leaving = self.n_leaving.saturating_add(1);
                }
            }
            if self.n_leaving == N_AT_ONCE || n_looked_at == N_LOOKED_AT {
                break;
            }
        }
    }

    /// Takes the pages that are leaving, with their marks.
    fn take_leaving(&mut self) -> impl Iterator<Item = (&'static C, usize, &'static AtomicU8)> {
        self.grace = None;
        let n_leaving = core::mem::take(&mut self.n_leaving);
        let leaving = self.leaving.iter().take(n_leaving).flatten();
        leaving.filter_map(|&(chunk, index)| Some((chunk, index, chunk.mark(index)?)))
    }
}

/// Notes that a page in use is leaving. For who holds the lock of those who give back, like all below.
fn begin_leaving(mark: &AtomicU8, what: u8) {
    mark.fetch_or(leaving(what), SeqCst);
}

/// Takes that back.
fn stay(mark: &AtomicU8, what: u8) {
    mark.fetch_and(!leaving(what), SeqCst);
}

/// Gives a page back that is still leaving, by `discard`, which says whether it did: not if there is something
/// in it. No operation is under way that began before it was leaving.
fn leave(mark: &AtomicU8, what: u8, discard: impl FnOnce() -> bool) -> bool {
    let to_busy =
        |held: u8| (held & leaving(what) != 0).then_some(held & !leaving(what) | busy(what));
    if mark.fetch_update(SeqCst, SeqCst, to_busy).is_err() {
        return false;
    }
    let is_given = discard();
    let gone = if is_given { what | busy(what) } else { busy(what) };
    mark.fetch_and(!gone, SeqCst);
    if is_given {
        mapped::uncharge(PAGE_SIZE);
    }
    is_given
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use core::sync::atomic::AtomicU64;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    const N_PAGES: usize = 3;

    /// A chunk of pages that hold one number each.
    #[derive(Default)]
    struct Numbers {
        marks: [AtomicU8; N_PAGES],
        numbers: [AtomicU64; N_PAGES],
        following: Option<&'static Self>,
    }

    impl Chunk for Numbers {
        fn mark(&self, index: usize) -> Option<&AtomicU8> {
            self.marks.get(index)
        }

        fn following(&self) -> Option<&'static Self> {
            self.following
        }
    }

    struct Table {
        first: Option<&'static Numbers>,
        giving: LeafLock<Giving<Numbers, 2, 4, 16>>,
    }

    impl Table {
        fn new(n_chunks: usize) -> Self {
            thread::claim_slot();
            crate::membarrier::prepare();
            let first = (0..n_chunks).fold(None, |following, _| {
                let chunk: &Numbers =
                    Box::leak(Box::new(Numbers { following, ..Default::default() }));
                Some(chunk)
            });
            Self { first, giving: LeafLock::new(Giving::new()) }
        }

        fn chunks(&self) -> impl Iterator<Item = &'static Numbers> {
            core::iter::successors(self.first, |chunk| chunk.following)
        }

        fn pages(&self) -> impl Iterator<Item = (&'static AtomicU8, &'static AtomicU64)> {
            self.chunks().flat_map(|chunk| chunk.marks.iter().zip(&chunk.numbers))
        }

        fn use_page(&self, mark: &AtomicU8) -> Result<(), NoRoom> {
            use_page(mark, FIRST, &self.giving)
        }

        /// A turn that gives pages back which hold zero, for the `discard` of their numbers.
        fn turn(&self, discard: impl Fn(&'static AtomicU64) -> bool) -> usize {
            let vacant = |chunk: &'static Numbers, index: usize| {
                chunk.numbers.get(index).filter(|number| number.load(Relaxed) == 0)
            };
            operation(|| self.giving.lock().give_back(FIRST, || self.first, vacant, discard))
        }

        /// Turns until so many pages have gone back: other tests' threads are amid operations.
        fn turn_until(&self, n_pages: usize) {
            let mut n_given = 0;
            while n_given < n_pages {
                let n_now = self.turn(|_| true);
                assert!(n_now <= 2);
                n_given += n_now;
                std::thread::yield_now();
            }
            assert_eq!(n_given, n_pages);
        }
    }

    fn operation<R>(f: impl FnOnce() -> R) -> R {
        thread::slot().unwrap().during(f)
    }

    /// Runs `f` in an operation that no grace is over in.
    fn operation_around<R>(f: impl FnOnce() -> R) -> R {
        operation(|| operation(f))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn pages_go_back_that_are_vacant_and_no_others(
            // Whether a page is in use, and what it holds.
            pages in prop::collection::vec(prop::option::of(0..2u64), 0..30),
        ) {
            let table = Table::new(pages.len().div_ceil(N_PAGES));
            for ((mark, number), held) in table.pages().zip(&pages) {
                if let Some(held) = held {
                    table.use_page(mark).unwrap();
                    number.store(*held, Relaxed);
                }
            }
            table.turn_until(pages.iter().filter(|held| **held == Some(0)).count());
            let marks: Vec<u8> = table.pages().map(|(mark, _)| mark.load(Relaxed)).collect();
            for (mark, held) in marks.iter().zip(&pages) {
                prop_assert_eq!(*mark, if *held == Some(1) { FIRST } else { 0 });
            }
            for _ in 0..20 {
                prop_assert_eq!(table.turn(|_| true), 0);
            }
        }
    }

    #[test]
    fn a_page_stays_that_somebody_begins_to_use_or_stored_into_while_it_was_leaving() {
        let table = Table::new(1);
        let [used, stored_into, vacant] = [0, 1, 2].map(|i| table.pages().nth(i).unwrap());
        let both = [used.0, stored_into.0];
        both.iter().for_each(|mark| table.use_page(mark).unwrap());
        operation_around(|| assert_eq!(table.turn(|_| true), 0));
        let is_leaving = |mark: &AtomicU8| mark.load(Relaxed) == FIRST | leaving(FIRST);
        assert!(both.iter().all(|mark| is_leaving(mark)));
        table.use_page(used.0).unwrap();
        assert_eq!(used.0.load(Relaxed), FIRST);
        // By who saw the mark before.
        stored_into.1.store(1, Relaxed);
        operation_around(|| assert_eq!(table.turn(|_| true), 0));
        assert!(is_leaving(stored_into.0));
        while is_leaving(stored_into.0) {
            assert_eq!(table.turn(|_| true), 0);
        }
        assert_eq!(both.map(|mark| mark.load(Relaxed)), [FIRST; 2]);
        table.use_page(vacant.0).unwrap();
        table.turn_until(2);
        assert_eq!([used, stored_into, vacant].map(|page| page.0.load(Relaxed)), [0, FIRST, 0]);
    }

    #[test]
    fn who_may_not_wait_is_refused_a_page_that_is_going_and_one_that_cannot_go_stays() {
        let table = Table::new(1);
        let (mark, _) = table.pages().next().unwrap();
        table.use_page(mark).unwrap();
        let was_asked = core::cell::Cell::new(false);
        while !was_asked.get() {
            let n_given = table.turn(|_| {
                // The lock is this thread's own.
                assert_eq!(table.use_page(mark), Err(NoRoom));
                was_asked.set(true);
                false
            });
            assert_eq!(n_given, 0);
        }
        assert_eq!(mark.load(Relaxed), FIRST);
        table.turn_until(1);
    }
}
