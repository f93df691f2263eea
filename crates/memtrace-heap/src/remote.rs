//! Frees by threads that do not own the pool.
//!
//! # Mechanism
//! The freeing thread sets the block's bit in the pool's second bitmap. If the word was zero before,
//! it sets the word's bit in the summary and, unless the pool is in it already, puts the pool into
//! the queue of its owner, who takes the queue when a class of its runs out of blocks, and collects
//! the bits. So most frees are one atomic operation.
//!
//! # Invariants
//! - **Q1** A pool is in at most one queue: the thread that changed `is_queued` from false to true puts
//!   it there, or changes it back.
//! - **Q2** A bit in `remote` that has not been collected is followed, in time, by its word's bit in
//!   the summary and by the pool's being queued at its owner: whoever found the word zero sees to it,
//!   and until it has, the word is not taken to be empty by anybody else.
//! - **Q3** Once the block's bit is set the pool may be collected, given back, and begun again by
//!   another owner. Records stay, so the rest of a free may still touch it: at worst it leaves a
//!   summary bit for a word without bits, or queues a pool that has nothing to collect.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | `remote[w]` | freeing thread (or, AcqRel), owner (swap 0, Acquire) | owner | the end of the block's use |
//! | `remote_words` | freeing thread (or, Release), owner (swap 0, Acquire) | owner | which words |
//! | `is_queued` | freeing thread (swap, AcqRel), owner (swap, AcqRel) | both | the summary to the owner, the owner to the thread |
//! | `Owner::queue` | see [`Link::push`](crate::cells::Link) | owner | the pool's link |
//! | `Owner::state` | see [`owners`](crate::owners) | freeing thread | whether someone will look |
//!
//! That the owner misses nothing: it takes a pool off its queue by changing `is_queued` to false first.
//! A thread whose own change to true comes before that in the order of that variable has set its bits
//! before, and the owner, which reads its value, sees them; one whose change comes after it finds
//! false and queues the pool again.

use core::sync::atomic::Ordering;

use crate::invalid::InvalidFree;
use crate::owner::Owner;
use crate::pool::{Pool, bit};

const WORD_BITS: u32 = 64;

/// Marks block `index` of `pool` as free for its owner, and says whom to wake: the owner into whose
/// queue the pool was put.
#[inline]
pub(crate) fn free(pool: &Pool, index: u32) -> Result<Option<&Owner>, InvalidFree> {
    // What is not seen here, because the owner frees the block at this very moment, is when the bit is
    // collected.
    if pool.is_free_outside(index) || pool.is_free_in_slot(index) {
        return Err(InvalidFree::Double);
    }
    let (at, mask) = (index / WORD_BITS, bit(index % WORD_BITS));
    let Some(word) = pool.remote_word(at) else { return Err(InvalidFree::Misaligned) };
    let before = word.fetch_or(mask, Ordering::AcqRel);
    if before & mask != 0 {
        return Err(InvalidFree::Double);
    }
    if before != 0 {
        // Q2: someone else sees to it.
        return Ok(None);
    }
    pool.remote_words.fetch_or(bit(at), Ordering::Release);
    Ok(enqueue(pool))
}

/// Puts `pool` into its owner's queue, unless it is in one; returns that owner.
pub(crate) fn enqueue(pool: &Pool) -> Option<&Owner> {
    loop {
        if pool.is_queued.swap(true, Ordering::AcqRel) {
            return None;
        }
        if let Some(owner) = pool.owner() {
            owner.queue.push(pool, &pool.next_queued);
            return Some(owner);
        }
        // Given back meanwhile (Q3). Whoever relied on this thread's `true` since then has made its
        // owner visible here.
        pool.is_queued.swap(false, Ordering::AcqRel);
        pool.owner()?;
    }
}

/// Takes a pool off the queue it was in: from now on it may be queued again.
pub(crate) fn dequeue(pool: &Pool) {
    pool.is_queued.swap(false, Ordering::AcqRel);
}

/// Hands over the words that have blocks to collect; only for the pool's owner.
pub(crate) fn collect(pool: &Pool, mut absorb: impl FnMut(u32, u64)) {
    let mut words = pool.remote_words.swap(0, Ordering::Acquire);
    while words != 0 {
        let at = words.trailing_zeros();
        words &= words.wrapping_sub(1);
        if let Some(word) = pool.remote_word(at) {
            absorb(at, word.swap(0, Ordering::Acquire));
        }
    }
}
