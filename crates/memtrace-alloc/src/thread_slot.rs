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
//! | `n_operations`, one more | the holder (Relaxed, with a compiler fence) | see [`Slots::begin_grace`] | that it reads tables |
//! | `n_operations`, one less | the holder (Release) | `is_over` (Acquire) | that it has read them |
//! | `n_graces` | `begin_grace` (SeqCst, after the fence) | `is_over` (SeqCst, before slots) | that the fence is done |
//! | `passed` | `is_over` (Release) | `is_over` (Acquire) | the same as `n_operations`, one less |
//!
//! # Cost
//!
//! 64 bytes for each thread that there was at once. An addition is one instruction without a lock.
#![expect(
    unsafe_code,
    reason = "slots in mapped memory, and an addition that no signal comes into"
)]

use crate::lock::LeafLock;
use crate::mapped::Part;
use crate::membarrier;
use crate::segments::Segments;
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

    /// Adds for its thread, and returns the sum. A signal handler of the thread that adds, too, comes before
    /// it or after it.
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    #[inline(always)]
    pub(crate) fn add(&self, diff: i64) -> i64 {
        let mut before = diff;
        // SAFETY: one instruction that reads and writes this word, which only atomic accesses touch.
        unsafe {
            core::arch::asm!(
                "xadd qword ptr [{place}], {before}",
                place = in(reg) self.0.as_ptr(),
                before = inout(reg) before,
                options(nostack),
            );
        }
        before.wrapping_add(diff)
    }

    #[cfg(any(loom, not(target_arch = "x86_64")))]
    #[inline(always)]
    pub(crate) fn add(&self, diff: i64) -> i64 {
        self.0.fetch_add(diff, Relaxed).wrapping_add(diff)
    }
}

/// What belongs to one thread.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Requested bytes that the thread has added to the traces, less those it has removed.
    pub(crate) bytes: OwnSum,
    /// The same for blocks.
    pub(crate) blocks: OwnSum,
    /// The most that `bytes` has been.
    pub(crate) max_bytes: OwnSum,
    /// How many operations on tables are under way: more than one where a signal handler interrupts one; and,
    /// times [`RECORDING`], how many blocks are being recorded.
    n_operations: AtomicU32,
    /// How often the thread has come by where now and then something is done.
    n_turns: AtomicU32,
    /// The latest grace after whose beginning the thread was seen to be idle.
    passed: AtomicU32,
    number: AtomicU32,
    /// The number of the next slot that nobody holds.
    next_free: AtomicU32,
}

/// What stands for a block that is being recorded, beside the number of operations.
const RECORDING: u32 = 1 << 16;

/// The thread passes by where something may be done now and then; one in so many times it looks whether it is to
/// be done.
const N_BETWEEN_TURNS: u32 = 16;

impl Slot {
    #[inline(always)]
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Relaxed)
    }

    /// Runs an operation on tables from which memory may be given back.
    #[inline(always)]
    pub(crate) fn during<R>(&self, operation: impl FnOnce() -> R) -> R {
        self.marked(1, operation)
    }

    /// Records a block: from before its detail is stored until its trace is.
    #[inline(always)]
    pub(crate) fn recording<R>(&self, record: impl FnOnce() -> R) -> R {
        self.marked(RECORDING, record)
    }

    /// Whether the thread is recording a block.
    pub(crate) fn is_recording(&self) -> bool {
        self.n_operations.load(Relaxed) >= RECORDING
    }

    /// Whether it is time to look whether something is to be done.
    #[inline(always)]
    pub(crate) fn is_turn(&self) -> bool {
        let n_turns = self.n_turns.load(Relaxed).wrapping_add(1);
        self.n_turns.store(n_turns, Relaxed);
        n_turns.is_multiple_of(N_BETWEEN_TURNS)
    }

    #[inline(always)]
    fn marked<R>(&self, weight: u32, operation: impl FnOnce() -> R) -> R {
        let before = self.n_operations.load(Relaxed);
        self.n_operations.store(before.wrapping_add(weight), Relaxed);
        // The processor's own order is seen to by whoever gives memory back (`Slots::begin_grace`).
        compiler_fence(SeqCst);
        let result = operation();
        // Release pairs with the Acquire of `is_over`: who sees that it is over may write to what it
        // looked at.
        self.n_operations.store(before, Release);
        result
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

    /// Runs an operation of a thread without a slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn during_other<R>(&self, operation: impl FnOnce() -> R) -> R {
        self.n_others.fetch_add(1, SeqCst);
        let result = operation();
        self.n_others.fetch_sub(1, SeqCst);
        result
    }

    /// Begins a grace; `None` if its end could not be found out.
    ///
    /// Other threads mark an operation without a fence; `membarrier` makes each of them pass one. The mark of an
    /// operation that began before is seen from now on, until it is over; one that begins after it sees the tables
    /// as they are now. (Linux manual, membarrier(2): the pair of a compiler fence and this call.)
    #[cold]
    pub(crate) fn begin_grace(&self) -> Option<Grace> {
        // Counted after the fence: who is idle then is so after the fences of all graces that are counted.
        membarrier::fence_all_threads()
            .then(|| Grace(self.n_graces.fetch_add(1, SeqCst).wrapping_add(1)))
    }

    /// Whether a grace is over, but for the operation of the calling thread, which holds `own`.
    ///
    /// Each thread need be seen idle once only, so many that are always at work are not in the way for long.
    #[cold]
    pub(crate) fn is_over(&self, grace: Grace, own: Option<&Slot>) -> bool {
        let Some(own) = own else { return false };
        let now = self.n_graces.load(SeqCst);
        if !grace.is_of(self.others_passed.load(Acquire)) {
            if self.n_others.load(SeqCst) != 0 {
                return false;
            }
            self.others_passed.store(now, Release);
        }
        self.iter().fold(true, |is_over, slot| {
            if core::ptr::eq(slot, own) {
                // One, if this is not a signal handler's, in the middle of another operation. A block that is being
                // recorded is no matter.
                return is_over && slot.n_operations.load(Acquire) % RECORDING <= 1;
            }
            if grace.is_of(slot.passed.load(Acquire)) {
                return is_over;
            }
            if slot.n_operations.load(Acquire) != 0 {
                return false;
            }
            slot.passed.store(now, Release);
            is_over
        })
    }

    /// Makes all slots forget everything, in a forked child, whose only thread calls this: the others
    /// are not there any more.
    pub(crate) fn reset(&self) {
        self.n_others.store(0, Relaxed);
        for slot in self.iter() {
            slot.bytes.set(0);
            slot.blocks.set(0);
            slot.max_bytes.set(0);
            slot.n_operations.store(0, Relaxed);
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
