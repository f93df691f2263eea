//! All owners of a heap, and who holds them.
//!
//! # Mechanism
//! An owner is held by a thread for as long as it lives, or by anybody for one operation, and idle
//! otherwise. Who needs one takes an idle one over, with its pools, or makes a new one. A thread that
//! queues a pool at an idle owner takes that over for as long as it needs to collect: nothing waits
//! for a thread that may never come.
//!
//! # Invariants
//! - **W1** Only who changed `state` from idle to held holds the owner, until it stores idle.
//! - **W2** `n_idle` is at least the number of idle owners whenever nobody is between the two stores
//!   that belong together.
//!
//! # Atomics
//! | variable | written by | read by | publishes |
//! |---|---|---|---|
//! | `state` | who takes (compare-exchange, SeqCst), who holds (store, SeqCst) | who takes | the owner and its pools |
//!
//! Whoever queues a pool does so first and looks at the state then; who becomes idle stores that first
//! and looks at the queue then. All four are SeqCst, so that one of the two sees the other.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::cells::{CellSize, Link};
use crate::mapped::{Source, map_record};
use crate::owner::Owner;
use crate::pages::PageSource;

/// Held. What a new record is, for it is made to be held.
const HELD: u32 = 0;
/// Held by nobody.
const IDLE: u32 = 1;
/// In a forked child: was held, amid an operation, by a thread that does not exist. Its blocks live
/// on; what is free in its pools is lost.
const LOST: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct Owners {
    latest: Link<Owner>,
    n_idle: AtomicUsize,
    pub(crate) n_owners: CellSize,
}

impl Owners {
    /// Takes an idle owner over.
    pub(crate) fn take_idle(&self) -> Option<&Owner> {
        // Relaxed: a hint that spares the search.
        if self.n_idle.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.iter().find(|owner| self.try_take(owner))
    }

    /// Takes `owner` over if it is idle.
    pub(crate) fn try_take(&self, owner: &Owner) -> bool {
        // Relaxed on failure: nothing was taken. The first look keeps the line shared.
        let is_taken = owner.state.load(Ordering::SeqCst) == IDLE
            && owner
                .state
                .compare_exchange(IDLE, HELD, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok();
        if is_taken {
            // Relaxed: a hint.
            self.n_idle.fetch_sub(1, Ordering::Relaxed);
        }
        is_taken
    }

    /// Makes an owner, held by the caller, who holds the heap's lock.
    pub(crate) fn make(&self, source: Source<'_, impl PageSource>) -> Option<&Owner> {
        let owner: &Owner = map_record(source)?;
        owner.number.set(self.n_owners.get() as u32);
        owner.older.set(self.latest.get());
        self.latest.publish(Some(owner));
        self.n_owners.add(1);
        Some(owner)
    }

    /// Lets `owner` go. The caller looks at its queue afterwards.
    pub(crate) fn let_go(&self, owner: &Owner) {
        // Relaxed: a hint, and early rather than late.
        self.n_idle.fetch_add(1, Ordering::Relaxed);
        owner.state.store(IDLE, Ordering::SeqCst);
    }

    /// The owner made last.
    pub(crate) fn latest(&self) -> Option<&Owner> {
        self.latest.get_published()
    }

    /// Every owner, latest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Owner> {
        core::iter::successors(self.latest.get_published(), |owner| owner.older.get())
    }

    /// In a forked child whose thread holds `own`: the others' threads do not exist.
    pub(crate) fn after_fork(&self, own: impl Fn(&Owner) -> bool) {
        let mut n_idle = 0usize;
        for owner in self.iter() {
            // Relaxed: there is one thread.
            let state = owner.state.load(Ordering::Relaxed);
            if state == HELD && !own(owner) {
                let is_whole = !owner.is_busy();
                owner.state.store(if is_whole { IDLE } else { LOST }, Ordering::Relaxed);
            }
            if owner.state.load(Ordering::Relaxed) == IDLE {
                n_idle = n_idle.wrapping_add(1);
            }
        }
        self.n_idle.store(n_idle, Ordering::Relaxed);
    }

    /// How many owners were lost in forks.
    pub(crate) fn is_lost(owner: &Owner) -> bool {
        // Relaxed: never changes again.
        owner.state.load(Ordering::Relaxed) == LOST
    }
}
