//! The steps between `remote` and `owners`, each under its name in the heap, and the mistakes.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering as Order};

use crate::mapped::{NoPages, Source};
use crate::owner::Owner;
use crate::owners::Owners;
use crate::pool::{Pool, bit};
use crate::remote;
use crate::sync::atomic::{self, Ordering, Orders};

/// What a twin does otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// The owner collects a pool while it still counts as queued.
    CollectBeforeDequeue,
    /// A free sets its word's bit in the summary first, its own then.
    SummaryBeforeBit,
    /// A free queues the pool whatever `is_queued` is.
    QueueUnasked,
    /// An owner is let go without another look at its queue.
    LetGoBlindly,
    /// A free looks whether the owner is idle before it queues the pool.
    LookBeforePush,
    /// A pool that belongs to another owner now is taken off the queue and left.
    DropForeign,
    NoSeqCst,
    AllRelaxed,
}

/// A heap of one pool.
pub(crate) struct Heap {
    pub(crate) owners: Owners,
    pool: Pool,
    mistake: Mistake,
    /// How many blocks were collected. Not explored: only looked at when there is one thread.
    n_collected: AtomicU32,
    /// In how many queues the pool is.
    n_queues: AtomicU32,
}

impl Heap {
    /// Runs `model` with a new heap.
    pub(crate) fn with(mistake: Mistake, model: fn(&'static Heap)) {
        atomic::set_orders(match mistake {
            Mistake::NoSeqCst => Orders::NoSeqCst,
            Mistake::AllRelaxed => Orders::AllRelaxed,
            _ => Orders::AsWritten,
        });
        // Left to the process: a run that fails must not touch it again.
        model(Box::leak(Box::new(Heap {
            owners: Owners::default(),
            pool: Pool::new(),
            mistake,
            n_collected: AtomicU32::new(0),
            n_queues: AtomicU32::new(0),
        })));
    }

    /// Makes an owner, held by the caller.
    pub(crate) fn make_owner(&'static self) -> &'static Owner {
        let owner = self.owners.make(Source::<NoPages>(PhantomData)).unwrap();
        // Made now, by one thread.
        owner.state.load(Ordering::Relaxed);
        owner.queue.get();
        owner
    }

    /// What `refill` does with an unused unit: the pool is of `owner`, with these blocks handed out.
    pub(crate) fn begin_pool(&self, owner: &Owner, used: &[u32]) {
        self.pool.begin(owner, used);
    }

    pub(crate) fn is_pool_unused(&self) -> bool {
        self.pool.owner().is_none()
    }

    /// `Shared::give_back_block`, by a thread that holds `own`.
    pub(crate) fn give_back_block(&'static self, own: Option<&'static Owner>, index: u32) {
        let pool = &self.pool;
        if own.is_some_and(|own| pool.is_owned_by(own)) {
            pool.absorb(index / 64, bit(index % 64));
            self.n_collected.fetch_add(1, Order::Relaxed);
            self.apply();
            return;
        }
        let was_idle = (self.mistake == Mistake::LookBeforePush)
            .then(|| pool.owner().is_some_and(|owner| self.owners.try_take(owner)));
        let woken = self.free(pool, index);
        if let Some(was_idle) = was_idle {
            if was_idle && let Some(woken) = woken {
                self.collect_queue(woken);
                self.let_go(woken);
            }
            return;
        }
        if let Some(woken) = woken {
            self.wake(woken);
        }
    }

    /// `remote::free`, or what a mistake makes of it.
    fn free(&self, pool: &'static Pool, index: u32) -> Option<&'static Owner> {
        let (at, mask) = (index / 64, bit(index % 64));
        match self.mistake {
            Mistake::SummaryBeforeBit => {
                pool.remote_words.fetch_or(bit(at), Ordering::Release);
                let before = pool.remote[at as usize].fetch_or(mask, Ordering::AcqRel);
                if before == 0 { self.enqueue(pool) } else { None }
            }
            Mistake::QueueUnasked => {
                pool.remote[at as usize].fetch_or(mask, Ordering::AcqRel);
                pool.remote_words.fetch_or(bit(at), Ordering::Release);
                pool.is_queued.swap(true, Ordering::AcqRel);
                let owner = pool.owner()?;
                self.note_queued();
                owner.queue.push(pool, &pool.next_queued);
                Some(owner)
            }
            _ => {
                let woken = remote::free(pool, index).unwrap();
                if woken.is_some() {
                    self.note_queued();
                }
                woken
            }
        }
    }

    fn enqueue(&self, pool: &'static Pool) -> Option<&'static Owner> {
        let queued = remote::enqueue(pool);
        if queued.is_some() {
            self.note_queued();
        }
        queued
    }

    /// The pool was pushed. No other thread has run since.
    fn note_queued(&self) {
        let n_before = self.n_queues.fetch_add(1, Order::Relaxed);
        assert_eq!(n_before, 0, "the pool is in two queues");
    }

    /// `remote::dequeue`.
    fn dequeue(&self, pool: &Pool) {
        self.n_queues.fetch_sub(1, Order::Relaxed);
        remote::dequeue(pool);
    }

    /// `Shared::wake`.
    fn wake(&'static self, owner: &'static Owner) {
        if self.owners.try_take(owner) {
            self.collect_queue(owner);
            self.let_go(owner);
        }
    }

    /// `Shared::let_go`.
    pub(crate) fn let_go(&'static self, owner: &'static Owner) {
        self.owners.let_go(owner);
        if self.mistake == Mistake::LetGoBlindly {
            return;
        }
        while !owner.queue.is_none_in_order() && self.owners.try_take(owner) {
            self.collect_queue(owner);
            self.owners.let_go(owner);
        }
    }

    /// `Shared::collect_queue`.
    pub(crate) fn collect_queue(&'static self, owner: &'static Owner) {
        if owner.queue.get().is_none() {
            return;
        }
        let mut queued = owner.queue.take_all();
        while let Some(pool) = queued {
            queued = pool.next_queued.get();
            if self.mistake == Mistake::CollectBeforeDequeue {
                self.collect(pool);
                self.dequeue(pool);
                continue;
            }
            self.dequeue(pool);
            if pool.is_owned_by(owner) {
                self.collect(pool);
            } else if self.mistake != Mistake::DropForeign
                && pool.owner().is_some()
                && let Some(other) = self.enqueue(pool)
            {
                self.wake(other);
            }
        }
    }

    /// `Shared::collect`.
    fn collect(&self, pool: &'static Pool) {
        remote::collect(pool, |at, bits| {
            pool.absorb(at, bits);
            self.n_collected.fetch_add(bits.count_ones(), Order::Relaxed);
        });
        self.apply();
    }

    /// `Shared::apply`, as far as a pool that is empty now ends.
    fn apply(&self) {
        if self.pool.owner().is_some() && !self.pool.has_used() {
            self.pool.end();
        }
    }

    /// When all threads have ended.
    pub(crate) fn assert_all_collected(&'static self, n_expected: u32) {
        assert_eq!(self.n_collected.load(Order::Relaxed), n_expected, "a free was lost");
        let pool = &self.pool;
        assert!(pool.remote.iter().all(|word| word.load(Ordering::Relaxed) == 0), "a bit was lost");
        for owner in self.owners.iter() {
            assert!(owner.queue.get().is_none(), "a pool was left in a queue");
        }
        assert!(!pool.is_queued.load(Ordering::Relaxed), "the pool counts as queued for ever");
    }
}
