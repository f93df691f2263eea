//! Owners: who may take blocks from a pool without asking anybody.
//!
//! # Mechanism
//! Each thread has an owner, and an owner has, for each size class, a [`Slot`]: up to 64 free blocks
//! of one word of the class's active pool, as a mask, and what is needed to turn a bit into an
//! address. Taking a block is a bit cleared in the mask; giving back one of the same word a bit set.
//! Owners outlive their threads: the next thread takes one over, with all its pools (see
//! [`owners`](crate::owners)).
//!
//! The slot's figures are what this owner's user did, also to pools of other owners: only their sum
//! over all owners means anything. They wrap, and so does the sum, to the right value.
//!
//! # Invariants
//! - **O1** Only the thread that holds the owner (its state says so) changes it and its pools, but for
//!   the queue, into which anybody puts pools.
//! - **O2** A slot's `available` bits are free blocks of `pool`'s active word, which begins at
//!   `first`; without a pool there are none.
//! - **O3** `partial` is the list of the class's pools that are not active and have free blocks.
//!
//! # Cost
//! 8 KiB for each owner, of which the slots of classes in use are touched. Taking: five loads and three stores in one cache line.

#[cfg(target_arch = "x86_64")]
use core::sync::atomic::compiler_fence;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cells::{Cell8, Cell32, Cell64, CellPtr, Link};
use crate::class::{N_CLASSES, SizeClass};
use crate::pool::Pool;

/// One class of one owner: a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// Free blocks of the active word.
    pub(crate) available: Cell64,
    /// The word's first block.
    first: CellPtr,
    block_size: Cell32,
    /// `2^32 / block_size`, rounded up.
    reciprocal: Cell32,
    /// The active pool.
    pool: Link<Pool>,
    /// Blocks taken through this owner.
    pub(crate) n_taken: Cell64,
    /// Blocks given back through this owner.
    pub(crate) n_given: Cell64,
    /// Requested bytes of the former less those of the latter.
    pub(crate) requested_bytes: Cell64,
    /// The first of the class's partly used pools.
    pub(crate) partial: Link<Pool>,
}

impl Slot {
    /// Takes a block; `None` if none is at hand.
    #[inline]
    pub(crate) fn take(&self, size: usize) -> Option<*mut u8> {
        let available = self.available.get();
        if available == 0 {
            return None;
        }
        self.available.set(available & available.wrapping_sub(1));
        self.n_taken.add(1);
        self.requested_bytes.add(size as u64);
        // The block lies in the pool, so the product is small.
        let offset = available.trailing_zeros().wrapping_mul(self.block_size.get());
        Some(self.first.get().wrapping_add(offset as usize))
    }

    /// Gives back the block of `size` requested bytes at `addr`, if it is one of the active word's, in use,
    /// and nothing else is to be looked at; says whether it was.
    ///
    /// All it reads is known before `addr` is, but for the pool's line, which is only looked at.
    #[inline(always)]
    pub(crate) fn give_back(&self, addr: usize, size: usize) -> bool {
        let offset = addr.wrapping_sub(self.first.get().addr());
        let reciprocal = u64::from(self.reciprocal.get());
        // Exact for block sizes below 2^13, by the argument at the pool's; if it is not, or the address
        // lies elsewhere, the next comparison fails, and nothing is lost but time.
        let index = (offset as u64).wrapping_mul(reciprocal).wrapping_shr(32);
        let is_start = index.wrapping_mul(u64::from(self.block_size.get())) == offset as u64;
        let available = self.available.get();
        let mask = 1u64.wrapping_shl(index as u32);
        if index >= 64 || !is_start || available & mask != 0 {
            return false;
        }
        let Some(pool) = self.pool.get() else { return false };
        if !pool.touch(index as u32, mask) {
            return false;
        }
        self.available.set(available | mask);
        self.count_given(size);
        true
    }

    /// Whether the block that [`take`](Self::take) would return is zero.
    #[inline]
    pub(crate) fn is_next_zero(&self) -> bool {
        let available = self.available.get();
        let lowest = available & available.wrapping_neg();
        self.pool.get().is_some_and(|pool| pool.is_untouched(lowest))
    }

    /// Accounts a block of `size` requested bytes as given back.
    #[inline]
    pub(crate) fn count_given(&self, size: usize) {
        self.n_given.add(1);
        self.requested_bytes.sub(size as u64);
    }

    #[inline]
    pub(crate) fn active(&self) -> Option<&Pool> {
        self.pool.get()
    }

    /// Begins to hand out the blocks `available` of `pool`, of which the first of 64 is at `first`.
    #[inline]
    pub(crate) fn open(&self, pool: &Pool, first: *mut u8, block_size: u32, available: u64) {
        self.pool.set(Some(pool));
        self.first.set(first);
        self.block_size.set(block_size);
        let quotient = (1u64 << 32).checked_div(u64::from(block_size)).unwrap_or(0);
        // Rounded up, also where it is exact: then it is too large by one, which is as good.
        self.reciprocal.set((quotient as u32).wrapping_add(1));
        self.available.set(available);
    }

    /// Ends that, and returns the blocks that are left.
    #[inline]
    pub(crate) fn close(&self) -> u64 {
        let available = self.available.get();
        self.available.set(0);
        self.pool.set(None);
        available
    }

    /// Puts a pool into the list of partly used ones (O3).
    #[inline]
    pub(crate) fn link(&self, pool: &Pool) {
        if let Some(first) = self.partial.get() {
            first.prev.set(Some(pool));
        }
        pool.next.set(self.partial.get());
        pool.prev.set(None);
        self.partial.set(Some(pool));
    }

    /// Makes blocks of the active pool's next word with free ones, or of the next partly used pool,
    /// available; `false` if there are none, or the active pool may have some to collect.
    #[inline]
    pub(crate) fn open_next(&self) -> bool {
        if let Some(pool) = self.pool.get() {
            if pool.activate(self) {
                return true;
            }
            if pool.has_remote() {
                return false;
            }
        }
        let Some(next) = self.partial.get() else { return false };
        if let Some(pool) = self.pool.get() {
            // It is full, and so in no list from now on.
            pool.deactivate(self);
        }
        self.unlink(next);
        next.activate(self)
    }

    /// Takes a pool out of that list.
    #[inline]
    pub(crate) fn unlink(&self, pool: &Pool) {
        if let Some(next) = pool.next.get() {
            next.prev.set(pool.prev.get());
        }
        match pool.prev.get() {
            Some(prev) => prev.next.set(pool.next.get()),
            None => self.partial.set(pool.next.get()),
        }
        pool.next.set(None);
        pool.prev.set(None);
    }
}

/// What a thread, or whoever takes its place, owns.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Owner {
    /// One of the states of [`owners`](crate::owners).
    pub(crate) state: AtomicU32,
    /// 1 while its user is in an operation.
    is_busy: Cell8,
    pub(crate) number: Cell32,
    /// The owner made before this one.
    pub(crate) older: Link<Owner>,
    /// Pools with blocks to collect.
    pub(crate) queue: Queue,
    slots: [Slot; N_CLASSES],
}

/// In a cache line of its own, because other threads write it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Queue(Link<Pool>);

impl core::ops::Deref for Queue {
    type Target = Link<Pool>;

    fn deref(&self) -> &Link<Pool> {
        &self.0
    }
}

impl Owner {
    #[inline]
    pub(crate) fn slot(&self, class: SizeClass) -> Option<&Slot> {
        self.slots.get(class.index())
    }

    /// Each class with its slot.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (SizeClass, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((SizeClass::from_index(index)?, slot)))
    }

    /// Begins an operation, for the thread that holds the owner; `None` if this interrupts another
    /// operation of that thread, as a signal handler does.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Busy<'_>> {
        if self.is_busy.get() != 0 {
            return None;
        }
        self.is_busy.set(1);
        // For a handler in this thread; and, where stores may be reordered, for a forked child, to
        // whom memory shows what another thread has done so far.
        #[cfg(target_arch = "x86_64")]
        compiler_fence(Ordering::SeqCst);
        #[cfg(not(target_arch = "x86_64"))]
        core::sync::atomic::fence(Ordering::Release);
        Some(Busy { owner: self })
    }

    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy.get() != 0
    }
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Busy<'h> {
    pub(crate) owner: &'h Owner,
}

impl Drop for Busy<'_> {
    #[inline]
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        compiler_fence(Ordering::SeqCst);
        #[cfg(not(target_arch = "x86_64"))]
        core::sync::atomic::fence(Ordering::Release);
        self.owner.is_busy.set(0);
    }
}
