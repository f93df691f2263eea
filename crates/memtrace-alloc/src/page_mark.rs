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
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | mark | all (SeqCst) | `use_page` (Acquire), sweeps (SeqCst) | itself, before what is stored |
//!
//! That an operation which saw the page in use, and not leaving, is over and its stores are seen by who gives back is
//! what [`Slots::is_over`](crate::thread_slot::Slots::is_over) promises.

use crate::live::NoRoom;
use crate::lock::LeafLock;
use crate::mapped;
use crate::thread;
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
    if mark.load(Acquire) & (what | leaving(what) | busy(what)) == what {
        return Ok(());
    }
    use_page_slowly(mark, what, giving)
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

/// Notes that a page in use is leaving. For who holds the lock of those who give back, like all below.
pub(crate) fn begin_leaving(mark: &AtomicU8, what: u8) {
    mark.fetch_or(leaving(what), SeqCst);
}

/// Takes that back.
pub(crate) fn stay(mark: &AtomicU8, what: u8) {
    mark.fetch_and(!leaving(what), SeqCst);
}

/// Gives a page back that is still leaving, by `discard`, which says whether it did: not if there is something
/// in it. No operation is under way that began before it was leaving.
pub(crate) fn leave(mark: &AtomicU8, what: u8, discard: impl FnOnce() -> bool) -> bool {
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
