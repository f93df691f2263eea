//! Slots: what a thread has written of its own that others read, a cache line for each.
//!
//! A thread gets a slot in its first guarded section and gives it back when it ends; the next thread takes
//! it over. Until it has one, and after it has given it back, it does without: whoever works for it
//! changes what all share.
//!
//! # Invariants
//!
//! - **I1** A slot is held by one thread at most, which alone changes it; but see [`Slots::reset`].
//! - **I2** A slot that nobody holds has zero sums, and no operation under way.
//! - **I3** Slots stay mapped as long as the process.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `n_slots` | `claim` (Release) | `iter` (Acquire) | that the slot is mapped |
//! | sums | the holder (Relaxed) | anyone (Relaxed) | nothing |
//! | `blocks_and_marks`, a mark more | the holder (Relaxed, with a compiler fence) | see [`Slots::begin_grace`] | that it reads tables |
//! | `blocks_and_marks`, a mark less | the holder (Release) | `is_over` (Acquire) | that it has read them |
//! | `n_graces` | `begin_grace` (SeqCst, after the fence) | `is_over` (SeqCst, before slots) | that the fence is done |
//! | `passed` | `is_over` (Release) | `is_over` (Acquire) | the same as a mark less |
//!
//! # Cost
//!
//! 64 bytes for each thread that there was at once. An addition is one instruction without a lock; so is the
//! end of an operation together with the change that it makes to the number of blocks.
#![expect(
    unsafe_code,
    reason = "slots in mapped memory, and an addition that no signal comes into"
)]

use crate::lock::LeafLock;
use crate::mapped::Part;
use crate::membarrier;
use crate::segments::Segments;
#[cfg(all(target_arch = "x86_64", not(loom)))]
use core::mem::offset_of;
use core::sync::atomic::{
    AtomicI64, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst, compiler_fence,
};

/// A sum that one thread adds to and any thread reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct OwnSum(AtomicI64);

impl OwnSum {
    #[inline(always)]
    pub(crate) fn get(&self) -> i64 {
        // Relaxed: publishes nothing.
        self.0.load(Relaxed)
    }

    /// Sets it. For its thread, or for one whose reading it as it was before does no harm.
    #[inline(always)]
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }
}

/// Work that is done now and then by a thread that comes by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Giving back tables of traces.
    Tables,
    /// Giving back details.
    Details,
}

const N_WORKS: usize = 2;

/// What belongs to one thread.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// How many blocks the thread has added to the traces, less those it has removed, times [`BLOCK`]; and a
    /// mark for each of its operations on tables that are under way: more than one where a signal handler
    /// interrupts one. First, for the slot's own address needs no computing.
    blocks_and_marks: AtomicI64,
    /// The same as for blocks for requested bytes.
    pub(crate) bytes: OwnSum,
    /// The most that `bytes` has been.
    pub(crate) max_bytes: OwnSum,
    /// How often the thread has come by where now and then something is done, for each such thing.
    n_turns: [AtomicU32; N_WORKS],
    /// The latest grace after whose beginning the thread was seen to be idle.
    passed: AtomicU32,
    number: AtomicU32,
    /// The number of the next slot that nobody holds.
    next_free: AtomicU32,
}

/// The thread passes by where something may be done now and then; one in so many times it looks whether it is to
/// be done.
const N_BETWEEN_TURNS: u32 = 16;

/// One block; below it marks are counted, each of which takes part of a stack.
const BLOCK: i64 = 1 << 16;

// Additions for the slot's thread, each one instruction: a signal handler of that thread, which adds, too, comes
// before it or after it.
#[cfg(all(target_arch = "x86_64", not(loom)))]
impl Slot {
    /// Adds bytes.
    #[inline(always)]
    pub(crate) fn add_bytes(&self, diff: i64) {
        // SAFETY: reads and writes this word of the slot, which only atomic accesses touch.
        unsafe {
            core::arch::asm!(
                "add qword ptr [{slot} + {bytes}], {diff}",
                slot = in(reg) self,
                bytes = const offset_of!(Self, bytes),
                diff = in(reg) diff,
                options(nostack),
            );
        }
    }

    /// Subtracts bytes.
    #[inline(always)]
    pub(crate) fn remove_bytes(&self, diff: i64) {
        // SAFETY: as above.
        unsafe {
            core::arch::asm!(
                "sub qword ptr [{slot} + {bytes}], {diff}",
                slot = in(reg) self,
                bytes = const offset_of!(Self, bytes),
                diff = in(reg) diff,
                options(nostack),
            );
        }
    }

    /// Adds to blocks and marks.
    #[inline(always)]
    fn change<const DIFF: i64>(&self) {
        // SAFETY: reads and writes this word, which only atomic accesses touch. What was loaded before this was
        // loaded before the processor stores: a release, too.
        unsafe {
            core::arch::asm!(
                "add qword ptr [{word}], {diff}",
                word = in(reg) self.blocks_and_marks.as_ptr(),
                diff = const DIFF,
                options(nostack),
            );
        }
    }
}

#[cfg(any(loom, not(target_arch = "x86_64")))]
impl Slot {
    #[inline(always)]
    pub(crate) fn add_bytes(&self, diff: i64) {
        // Relaxed: publishes nothing.
        self.bytes.0.fetch_add(diff, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn remove_bytes(&self, diff: i64) {
        self.add_bytes(diff.wrapping_neg());
    }

    #[inline(always)]
    fn change<const DIFF: i64>(&self) {
        // Release: where an operation ends, its loads are before this.
        self.blocks_and_marks.fetch_add(DIFF, Release);
    }
}

impl Slot {
    #[inline(always)]
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// How many blocks the thread has added, less those it has removed.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> i64 {
        // Relaxed: publishes nothing.
        self.blocks_and_marks.load(Relaxed).div_euclid(BLOCK)
    }

    #[inline(always)]
    pub(crate) fn add_block(&self) {
        self.change::<BLOCK>();
    }

    #[inline(always)]
    pub(crate) fn remove_block(&self) {
        self.change::<{ -BLOCK }>();
    }

    /// Makes the number of blocks zero, and returns what it was.
    pub(crate) fn take_blocks(&self) -> i64 {
        let before = self.blocks();
        // Not lost, if a signal handler of this thread counts meanwhile: it is an atomic operation.
        self.blocks_and_marks.fetch_sub(before.wrapping_mul(BLOCK), Relaxed);
        before
    }

    /// Marks an operation on tables from which memory may be given back, and which `stop` empties, until one of the ways
    /// to end it.
    #[inline(always)]
    pub(crate) fn begin(&self) {
        self.change::<1>();
        // The processor's own order is seen to by whoever gives memory back (`Slots::begin_grace`).
        compiler_fence(SeqCst);
    }

    /// Ends an operation. Like the other two, a Release that pairs with the Acquire of `is_over`: who
    /// sees that it is over may write to what it looked at.
    #[inline(always)]
    pub(crate) fn end(&self) {
        self.change::<-1>();
    }

    /// Ends an operation that has added a block, and counts it.
    #[inline(always)]
    pub(crate) fn end_with_block_added(&self) {
        self.change::<{ BLOCK - 1 }>();
    }

    /// Ends an operation that has removed a block, and counts it.
    #[inline(always)]
    pub(crate) fn end_with_block_removed(&self) {
        self.change::<{ -BLOCK - 1 }>();
    }

    /// Runs an operation, of whatever thread the test takes this one for.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn during<R>(&self, operation: impl FnOnce() -> R) -> R {
        self.begin();
        let result = operation();
        self.end();
        result
    }

    /// Whether it is time to look whether some work is to be done. Each is counted by itself: threads pass by them
    /// in a rhythm, and of a common count one of them might never have its turn.
    #[inline(always)]
    pub(crate) fn is_turn(&self, work: Work) -> bool {
        let [tables, details] = &self.n_turns;
        let n_turns = match work {
            Work::Tables => tables,
            Work::Details => details,
        };
        let n = n_turns.load(Relaxed).wrapping_add(1);
        n_turns.store(n, Relaxed);
        n.is_multiple_of(N_BETWEEN_TURNS)
    }

    /// Whether no operation is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.n_operations() == 0
    }

    /// How many operations are under way.
    fn n_operations(&self) -> i64 {
        self.blocks_and_marks.load(Acquire).rem_euclid(BLOCK)
    }
}

const FIRST_LEN: usize = 64;
const N_SEGMENTS: usize = 20;

/// The slots of the process.
pub(crate) struct Slots {
    slots: Segments<Slot, FIRST_LEN, N_SEGMENTS>,
    /// Numbers count from 1 to this one.
    n_slots: AtomicU32,
    /// The number of the first slot that nobody holds; 0 for none.
    free: LeafLock<u32>,
    /// Operations under way of threads without a slot.
    n_others: AtomicU32,
    /// As [`Slot::passed`], for all of them together.
    others_passed: AtomicU32,
    /// Graces that have begun.
    n_graces: AtomicU32,
}

/// A time that is over when every operation is that was under way when it began: whatever had been taken out of the
/// tables before, nobody looks at any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grace(u32);

impl Grace {
    /// Whether who was idle after the beginning of `passed` was so after that of this one.
    fn is_of(self, passed: u32) -> bool {
        passed.wrapping_sub(self.0).cast_signed() >= 0
    }
}

pub(crate) static SLOTS: Slots = Slots::new();

impl Slots {
    const fn new() -> Self {
        Self {
            slots: Segments::new(Part::Threads),
            n_slots: AtomicU32::new(0),
            free: LeafLock::new(0),
            n_others: AtomicU32::new(0),
            others_passed: AtomicU32::new(0),
            n_graces: AtomicU32::new(0),
        }
    }

    fn get(&self, number: u32) -> Option<&Slot> {
        // SAFETY: a slot of mapped, zeroed memory, which stays mapped (I3); all its fields are atomic.
        Some(unsafe { self.slots.place(number)?.as_ref() })
    }

    /// Every slot that was ever held.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        // Acquire pairs with the Release of `claim`.
        (1..=self.n_slots.load(Acquire)).filter_map(|number| self.get(number))
    }

    pub(crate) fn n_slots(&self) -> u32 {
        self.n_slots.load(Relaxed)
    }

    /// Returns a slot for the calling thread to hold; `None` without memory for it.
    #[cold]
    pub(crate) fn claim(&self) -> Option<&Slot> {
        let mut free = self.free.lock();
        if let Some(slot) = self.get(*free).filter(|_| *free != 0) {
            *free = slot.next_free.load(Relaxed);
            return Some(slot);
        }
        let number = self.n_slots.load(Relaxed).checked_add(1)?;
        // SAFETY: as in `get`.
        let slot = unsafe { self.slots.place_or_map(number)?.as_ref() };
        slot.number.store(number, Relaxed);
        self.n_slots.store(number, Release);
        Some(slot)
    }

    /// Takes back a slot, whose sums its holder has made zero.
    pub(crate) fn release(&self, slot: &Slot) {
        let mut free = self.free.lock();
        slot.next_free.store(*free, Relaxed);
        *free = slot.number.load(Relaxed);
    }

    /// Begins an operation of a thread without a slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_other(&self) {
        self.n_others.fetch_add(1, SeqCst);
    }

    /// Ends it.
    #[cold]
    #[inline(never)]
    pub(crate) fn end_other(&self) {
        // Zero only in a child that was forked by a signal handler meanwhile: else it counts this one.
        if self.n_others.load(SeqCst) != 0 {
            self.n_others.fetch_sub(1, SeqCst);
        }
    }

    /// Begins a grace; `None` if its end could not be found out.
    ///
    /// Other threads mark an operation without a fence; `membarrier` makes each of them pass one. The mark of an
    /// operation that began before is seen from now on, until it is over; one that begins after it sees the tables
    /// as they are now. (Linux manual, membarrier(2): the pair of a compiler fence and this call.)
    #[cold]
    pub(crate) fn begin_grace(&self) -> Option<Grace> {
        // Counted after the fence: who is idle then is so after the fences of all graces that are counted.
        membarrier::fence_all_threads().then(|| self.begin_grace_without_fence())
    }

    /// The same where the system has no such fence, for who knows that all threads have passed one.
    #[cold]
    pub(crate) fn begin_grace_without_fence(&self) -> Grace {
        Grace(self.n_graces.fetch_add(1, SeqCst).wrapping_add(1))
    }

    /// Whether a grace is over, but for the operation of the calling thread, which holds `own`. In a signal handler in
    /// the middle of another operation it is not.
    #[cold]
    pub(crate) fn is_over(&self, grace: Grace, own: Option<&Slot>) -> bool {
        self.is_over_for_others(grace, own) && own.is_some_and(|own| own.n_operations() <= 1)
    }

    /// Whether it is over but for whatever the calling thread has under way, which holds `own` if it has a slot.
    ///
    /// Each thread need be seen idle once only, so many that are always at work are not in the way for long.
    #[cold]
    pub(crate) fn is_over_for_others(&self, grace: Grace, own: Option<&Slot>) -> bool {
        let now = self.n_graces.load(SeqCst);
        if !grace.is_of(self.others_passed.load(Acquire)) {
            if self.n_others.load(SeqCst) != 0 {
                return false;
            }
            self.others_passed.store(now, Release);
        }
        self.iter().fold(true, |is_over, slot| {
            if own.is_some_and(|own| core::ptr::eq(slot, own)) {
                return is_over;
            }
            if grace.is_of(slot.passed.load(Acquire)) {
                return is_over;
            }
            // One after the other: what began before the grace is over then, whatever has begun since.
            if !slot.is_idle() {
                return false;
            }
            slot.passed.store(now, Release);
            is_over
        })
    }

    /// Makes all slots forget everything, in a forked child, whose only thread calls this, which holds `own`: the
    /// others are not there any more. Only its own marks stay, for a signal handler may have forked in the
    /// middle of an operation, which will end.
    pub(crate) fn reset(&self, own: Option<&Slot>) {
        self.n_others.store(0, Relaxed);
        for slot in self.iter() {
            slot.bytes.set(0);
            slot.max_bytes.set(0);
            if own.is_some_and(|own| core::ptr::eq(slot, own)) {
                slot.take_blocks();
            } else {
                slot.blocks_and_marks.store(0, Relaxed);
            }
        }
    }

    /// Takes the lock for the time of a fork.
    pub(crate) fn before_fork(&self) {
        self.free.acquire();
    }

    pub(crate) fn after_fork(&self) {
        self.free.release();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_marks_are_counted_in_one_word_and_told_apart() {
        let slot = Slot {
            blocks_and_marks: AtomicI64::new(0),
            bytes: OwnSum::default(),
            max_bytes: OwnSum::default(),
            n_turns: [const { AtomicU32::new(0) }; N_WORKS],
            passed: AtomicU32::new(0),
            number: AtomicU32::new(1),
            next_free: AtomicU32::new(0),
        };
        let counts = || (slot.blocks(), slot.n_operations());
        slot.begin();
        // A signal handler releases two blocks of another thread's.
        (0..2).for_each(|_| {
            slot.begin();
            assert_eq!(slot.n_operations(), 2);
            slot.end_with_block_removed();
        });
        assert_eq!(counts(), (-2, 1));
        assert_eq!((slot.take_blocks(), counts()), (-2, (0, 1)));
        slot.end_with_block_added();
        assert_eq!(counts(), (1, 0));
        slot.during(|| slot.add_block());
        slot.remove_block();
        assert_eq!(counts(), (1, 0));
        slot.add_bytes(1 << 40);
        slot.remove_bytes(1 << 41);
        assert_eq!(slot.bytes.get(), -(1 << 40));
    }
}
