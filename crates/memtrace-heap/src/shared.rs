//! What an operation needs at hand, and the work of one that does not go the short way.
//!
//! # Mechanism
//! [`Shared`] is a heap's records with its page source and options, borrowed for an operation. The
//! short way of taking and giving back is in [`heap`](crate::heap), [`owner`](crate::owner) and
//! [`pool`](crate::pool); here an owner gets more blocks, collects what others have freed, and gives
//! back pools that are empty.
//!
//! # Cost
//! Getting more blocks: a few cache lines; one lock where no pool of the class has any.
#![expect(unsafe_code, reason = "gives memory back in which no block is in use")]

use crate::arena::{Arena, UNITS_PER_ARENA, run};
use crate::arenas::{Arenas, Leftover, Units};
use crate::class::SizeClass;
use crate::config::{Config, Purge};
use crate::control::{Control, Locked};
use crate::invalid::InvalidFree;
use crate::lock::Guard;
use crate::mapped::{Source, discard_tail};
use crate::owner::{Owner, Slot};
use crate::pages::PageSource;
use crate::pool::{Change, Kind, Pool};
use crate::{remote, runs, thread};

/// How many arenas more are looked after when units were taken or given back: so pages that have become
/// too many go in time, and no operation takes long. A program that has paused is not in a hurry.
const N_LEFTOVERS: usize = 3;

/// A heap in use.
#[derive(Debug)]
pub(crate) struct Shared<'h, P> {
    pub(crate) control: &'h Control,
    pub(crate) source: Source<'h, P>,
    pub(crate) config: Config,
}

impl<P> Clone for Shared<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Shared<'_, P> {}

impl<'h, P: PageSource> Shared<'h, P> {
    /// Waits for the heap's lock; `None` if this interrupts the thread that holds it.
    pub(crate) fn lock(self) -> Option<Guard<'h, Locked>> {
        self.control.lock.lock()
    }

    /// An owner for the caller to hold: an idle one, or a new one.
    pub(crate) fn hold_owner(self) -> Option<&'h Owner> {
        self.control.owners.take_idle().or_else(|| {
            let _guard = self.lock()?;
            self.control.owners.make(self.source)
        })
    }

    /// Lets an owner go that the caller holds, as it is.
    pub(crate) fn let_go(self, owner: &'h Owner) {
        let owners = &self.control.owners;
        owners.let_go(owner);
        // A pool may have been queued by a thread that saw the owner held.
        while !owner.queue.is_none_in_order() && owners.try_take(owner) {
            // Nobody is amid an operation on an owner that was idle.
            let busy = owner.enter();
            self.collect_queue(owner);
            drop(busy);
            owners.let_go(owner);
        }
    }

    /// Lets an owner go whose thread ends: what is free in its pools is at everybody's disposal.
    pub(crate) fn retire(self, owner: &'h Owner) {
        // Not entered only by a signal handler; then the pools stay as they are.
        if let Some(busy) = owner.enter() {
            self.flush(busy.owner);
        }
        self.let_go(owner);
    }

    /// Puts everything that `owner`, which has been entered, has at hand back into its pools, and gives
    /// back those that are empty.
    fn flush(self, owner: &'h Owner) {
        self.collect_queue(owner);
        for (class, slot) in owner.slots() {
            if let Some(pool) = slot.active() {
                self.deactivate(class, slot, pool);
            }
        }
    }

    /// Gives back the pools of `owner`, which has been entered, that are active and have no block in use.
    fn end_empty_pools(self, owner: &'h Owner) {
        for (class, slot) in owner.slots() {
            if let Some(pool) = slot.active()
                && pool.n_used() == 0
            {
                self.deactivate(class, slot, pool);
            }
        }
    }

    fn deactivate(self, class: SizeClass, slot: &'h Slot, pool: &'h Pool) {
        pool.deactivate(slot);
        // While it was active it was in no list, as if it were full.
        self.apply(class, slot, pool, pool.change_from(0));
    }

    /// Sees to it that a pool just queued at `owner` is collected even if nobody holds that.
    pub(crate) fn wake(self, owner: &'h Owner) {
        if self.control.owners.try_take(owner) {
            if let Some(_busy) = owner.enter() {
                self.collect_queue(owner);
            }
            self.let_go(owner);
        }
    }

    /// Gets blocks of `class` into the slot of `owner`; `None` if there is no memory.
    pub(crate) fn refill(self, owner: &'h Owner, class: SizeClass, slot: &'h Slot) -> Option<()> {
        self.collect_queue(owner);
        if slot.available.get() != 0 || slot.open_next() {
            return Some(());
        }
        if let Some(pool) = slot.active() {
            // It is full, and so in no list from now on.
            pool.deactivate(slot);
        }
        let n = class.units_per_pool() as u32;
        let Units { first, is_zero } = self.take_units(class)?;
        runs::set_kinds(first, n, Kind::Pool(class));
        first.begin(class, owner, is_zero);
        first.activate(slot).then_some(())
    }

    fn take_units(self, class: SizeClass) -> Option<Units<'h>> {
        let mut guard = self.lock()?;
        let Control { arenas, directory, .. } = self.control;
        let (token, n, kind) = (&mut guard.token, class.units_per_pool() as u32, Kind::Pool(class));
        let units = arenas.take(token, self.source, directory, self.config, n, kind)?;
        self.look_after(arenas, guard);
        Some(units)
    }

    /// Gives back what has become too much, after units were taken or given back.
    pub(crate) fn look_after(self, arenas: &'h Arenas, mut guard: Guard<'h, Locked>) {
        let has_paused = arenas.pass_time(&mut guard.token, self.source.millis());
        if has_paused && self.config.purge_policy() == Purge::Slack {
            drop(guard);
            // This thread is amid an operation on its owner, which nothing here disturbs.
            if let Some(owner) = thread::owner_of(self.control.id.get()) {
                self.end_empty_pools(owner);
            }
            self.purge_arenas();
            return;
        }
        let directory = &self.control.directory;
        let leftover = arenas.leftover(&mut guard.token, directory, self.config);
        drop(guard);
        if !matches!(leftover, Leftover::None) {
            self.finish_some(arenas, leftover);
        }
    }

    /// Collects what other threads have freed in pools of `owner`.
    pub(crate) fn collect_queue(self, owner: &'h Owner) {
        if owner.queue.get().is_none() {
            return;
        }
        let mut queued = owner.queue.take_all();
        while let Some(pool) = queued {
            // Read first: from `dequeue` on the pool can be queued again.
            queued = pool.next_queued.get();
            remote::dequeue(pool);
            if pool.is_owned_by(owner) {
                self.collect(owner, pool);
            } else if pool.owner().is_some()
                && let Some(other) = remote::enqueue(pool)
            {
                // It was given back and begun again by another owner while it was being queued (Q3).
                self.wake(other);
            }
        }
    }

    fn collect(self, owner: &'h Owner, pool: &'h Pool) {
        let Kind::Pool(class) = pool.kind() else { return };
        let Some(slot) = owner.slot(class) else { return };
        let n_free = pool.n_free();
        remote::collect(pool, |at, bits| {
            let already_free = pool.absorb(at, bits, slot);
            if already_free != 0 {
                // Two threads have freed a block at the same moment, and both have counted it. What was
                // requested with it is known no more; it was this much or a little more.
                let n_double = u64::from(already_free.count_ones());
                self.control.invalid.add(InvalidFree::Double, n_double);
                slot.n_given.sub(n_double);
                slot.requested_bytes.add(n_double.wrapping_mul(class.min_size() as u64));
            }
        });
        self.apply(class, slot, pool, pool.change_from(n_free));
    }

    /// Does what a change of `pool` asks for.
    pub(crate) fn apply(self, class: SizeClass, slot: &'h Slot, pool: &'h Pool, change: Change) {
        match change {
            Change::None => {}
            Change::Opened => slot.link(pool),
            Change::Emptied { was_full } => match self.lock() {
                Some(guard) => {
                    if !was_full {
                        slot.unlink(pool);
                    }
                    self.end_pool(guard, class, pool);
                }
                // A signal handler that interrupts the lock's holder: the pool stays, to be used again.
                None if was_full => slot.link(pool),
                None => {}
            },
        }
    }

    #[cold]
    fn end_pool(self, guard: Guard<'h, Locked>, class: SizeClass, pool: &'h Pool) {
        let n = class.units_per_pool() as u32;
        pool.end();
        runs::set_kinds(pool, n, Kind::Unused);
        if let Some(arena) = pool.arena() {
            self.give_back_units(guard, arena, pool.unit(), n);
        }
    }

    /// Gives units back, and does what there is left to do without the lock.
    pub(crate) fn give_back_units(
        self,
        mut guard: Guard<'h, Locked>,
        arena: &'h Arena,
        first: u8,
        n: u32,
    ) {
        let arenas = self.control.arenas_of(arena.scale());
        arenas.give_back(&mut guard.token, arena, run(u32::from(first), n));
        self.look_after(arenas, guard);
    }

    /// Gives back everything that can be, and returns how many bytes that were.
    pub(crate) fn purge(self) -> usize {
        for owner in self.control.owners.iter() {
            if self.control.owners.try_take(owner) {
                self.retire(owner);
            }
        }
        // Also if the thread has used another heap since.
        let held = thread::remember(self.control.id.get(), || None);
        if let Some(busy) = held.and_then(Owner::enter) {
            self.flush(busy.owner);
        }
        let n_bytes = self.purge_arenas();
        if !self.config.has_block_words() {
            return n_bytes;
        }
        // Pages of words that had been left behind, and have been taken since.
        for arena in self.control.all_arenas().into_iter().flat_map(|arenas| arenas.records()) {
            if let Some(_guard) = self.lock() {
                arena.words.discard(self.source);
            }
        }
        n_bytes
    }

    fn purge_arenas(self) -> usize {
        let mut n_bytes = 0usize;
        for arenas in self.control.all_arenas() {
            while let Some(mut guard) = self.lock() {
                let leftover = arenas.purge(&mut guard.token, &self.control.directory);
                drop(guard);
                if matches!(leftover, Leftover::None) {
                    break;
                }
                n_bytes = n_bytes.saturating_add(self.finish(leftover));
            }
        }
        n_bytes
    }

    /// Does what is left to do after units were given back, and a little more of the same.
    fn finish_some(self, arenas: &'h Arenas, mut leftover: Leftover<'h>) {
        for _ in 0..N_LEFTOVERS {
            self.finish(leftover);
            let Some(mut guard) = self.lock() else { return };
            let directory = &self.control.directory;
            leftover = arenas.leftover(&mut guard.token, directory, self.config);
            if matches!(leftover, Leftover::None) {
                return;
            }
        }
        self.finish(leftover);
    }

    /// Gives back what was taken out; returns how many bytes that were.
    fn finish(self, leftover: Leftover<'h>) -> usize {
        match leftover {
            Leftover::None => 0,
            Leftover::Unmap { arena, memory, n_bytes } => {
                // SAFETY: A1 and A2: all units were unused, so no block is in use.
                unsafe { memory.unmap(self.source) };
                // Nobody has units of it, nor gets any.
                arena.words.discard(self.source);
                if !arena.has_queued() {
                    // SAFETY: A1: nobody uses these records, but for what a free under way may still do to
                    // them (Q3), for which zeroes are as good; and no queue leads through them.
                    unsafe { discard_tail(self.source, arena) };
                }
                // Without the lock, which only a signal handler can fail to get, the records are lost
                // until the heap ends.
                if let Some(mut guard) = self.lock() {
                    self.control.arenas_of(arena.scale()).keep_spare(&mut guard.token, arena);
                }
                n_bytes
            }
            Leftover::Discard { arena, units } => {
                let is_done = self.discard(arena, units);
                if let Some(mut guard) = self.lock() {
                    let arenas = self.control.arenas_of(arena.scale());
                    arenas.finish_discarding(&mut guard.token, arena, units, is_done);
                    arena.words.discard(self.source);
                }
                let n_units = if is_done { units.count_ones() as usize } else { 0 };
                n_units.saturating_mul(arena.scale().unit_size())
            }
        }
    }

    /// Discards the contents of `units`, run by run.
    fn discard(self, arena: &Arena, units: u64) -> bool {
        let (mut rest, mut is_done) = (units, true);
        while rest != 0 && is_done {
            let first = rest.trailing_zeros();
            let n = rest.wrapping_shr(first).trailing_ones().min(UNITS_PER_ARENA as u32);
            rest &= !run(first, n);
            let unit_size = arena.scale().unit_size();
            let offset = (first as usize).wrapping_mul(unit_size);
            let size = (n as usize).wrapping_mul(unit_size);
            // SAFETY: A2: the units were unused and were taken out, so no block is in use in them.
            is_done =
                unsafe { self.source.discard(arena.memory.base().wrapping_add(offset), size) };
        }
        is_done
    }
}
