//! The walk that recounts a heap.
//!
//! # Mechanism
//! Every invariant that the modules number is checked against the records. Threads take and give back
//! blocks without a lock, so what is found wrong counts only if nothing happened meanwhile: the sum of
//! all counters of blocks taken and given back, before and after, tells.
//!
//! # Cost
//! A pass over the bitmaps of every pool, under the lock, for each look; and a tenth of a second where something is
//! wrong.

use core::sync::atomic::Ordering;

use crate::class::{N_CLASSES, SizeClass};
use crate::control::Locked;
use crate::lock;
use crate::owner::{Owner, Slot};
use crate::owners::Owners;
use crate::pages::PageSource;
use crate::pool::{Kind, Pool};
use crate::runs;
use crate::shared::Shared;
use crate::violation::Violation;

/// How often a look is repeated when other threads are at work.
const N_LOOKS: usize = 1000;
/// How many looks in a row, between which nothing happened, must find something wrong: another thread
/// may be in the middle of an operation, or of its end, which takes and gives back nothing. Between two of them is
/// time for one that the system has stopped there, so that in all it is a tenth of a second.
const N_ALIKE: usize = 20;

/// What a recount of one class comes to.
#[derive(Debug, Clone, Copy, Default)]
struct Recount {
    n_used: u64,
    n_partial: usize,
}

impl<P: PageSource> Shared<'_, P> {
    /// Recounts everything and compares it with the counters and lists.
    pub(crate) fn verify(self) -> Result<(), Violation> {
        let mut n_alike = 0usize;
        for _ in 0..N_LOOKS {
            let n_before = self.n_events();
            let Some(guard) = self.lock() else { return Err(Violation::Busy) };
            let found = self.look(&guard);
            drop(guard);
            n_alike = if self.n_events() == n_before { n_alike.wrapping_add(1) } else { 0 };
            if found.is_ok() || n_alike == N_ALIKE {
                return found;
            }
            if n_alike == 0 {
                lock::give_way();
            } else {
                lock::pause();
            }
        }
        Err(Violation::Busy)
    }

    /// A number that is another one after anything was taken or given back.
    fn n_events(self) -> u64 {
        let of_slot = |slot: &Slot| slot.n_taken.get().wrapping_add(slot.n_given.get());
        let of_owner = |owner: &Owner| {
            owner.slots().fold(0u64, |sum, (_, slot)| sum.wrapping_add(of_slot(slot)))
        };
        let in_pools =
            self.control.owners.iter().fold(0u64, |sum, owner| sum.wrapping_add(of_owner(owner)));
        in_pools.wrapping_add(self.control.runs.n_total.get())
    }

    fn look(self, guard: &Locked) -> Result<(), Violation> {
        let all_arenas = self.control.all_arenas();
        // What a lost owner was amid is not to be told; what it can have left behind is let pass.
        let has_lost = self.control.owners.iter().any(Owners::is_lost);
        let mut recounts = [Recount::default(); N_CLASSES];
        let (mut n_runs, mut mapped_bytes, mut run_bytes) = (0usize, 0usize, 0usize);
        for arena in all_arenas.iter().flat_map(|arenas| arenas.mapped()) {
            for pool in &arena.pools {
                match pool.kind() {
                    Kind::Unused => {}
                    Kind::Inner(n_before) => {
                        let first = arena.first_of(pool).ok_or(Violation::PoolPlace)?;
                        let n_units = match first.kind() {
                            Kind::Pool(class) => class.units_per_pool(),
                            Kind::Run => first.n_run_units.get() as usize,
                            Kind::Unused | Kind::Inner(_) => 0,
                        };
                        if n_before as usize >= n_units {
                            return Err(Violation::PoolPlace);
                        }
                    }
                    Kind::Run => {
                        n_runs = n_runs.wrapping_add(1);
                        let n_units = u32::from(pool.n_run_units.get());
                        mapped_bytes = mapped_bytes.wrapping_add(runs::bytes_of(pool, n_units));
                        run_bytes = run_bytes.wrapping_add(pool.run_bytes.get());
                    }
                    Kind::Pool(class) => {
                        let recount =
                            recounts.get_mut(class.index()).ok_or(Violation::PoolPlace)?;
                        look_at_pool(pool, class, recount, has_lost)?;
                    }
                }
            }
        }
        let runs = &self.control.runs;
        let runs_hold = n_runs == runs.n_current.get()
            && mapped_bytes == runs.mapped_bytes.get()
            && run_bytes == runs.requested_bytes.get();
        if !runs_hold {
            return Err(Violation::Runs);
        }
        self.look_at_classes(&recounts, has_lost)?;
        let directory = &self.control.directory;
        if !all_arenas.iter().all(|arenas| arenas.is_consistent(directory, has_lost)) {
            return Err(Violation::Arenas);
        }
        look_at_mappings(guard)
    }

    fn look_at_classes(
        self,
        recounts: &[Recount; N_CLASSES],
        has_lost: bool,
    ) -> Result<(), Violation> {
        let owners = &self.control.owners;
        for (index, recount) in recounts.iter().enumerate() {
            let Some(class) = SizeClass::from_index(index) else { continue };
            let slots = || owners.iter().filter_map(|owner| Some((owner, owner.slot(class)?)));
            let n_used = slots().fold(0u64, |sum, (_, slot)| {
                sum.wrapping_add(slot.n_taken.get()).wrapping_sub(slot.n_given.get())
            });
            // Relaxed: counters publish nothing.
            let unowned = self.control.unowned.get(index);
            let n_unowned = unowned.map_or(0, |unowned| unowned.n_given.load(Ordering::Relaxed));
            if n_used.wrapping_sub(n_unowned) != recount.n_used && !has_lost {
                return Err(Violation::ClassCounts);
            }
            let mut n_listed = 0usize;
            for (owner, slot) in slots().filter(|(owner, _)| !Owners::is_lost(owner)) {
                let is_right = slot.active().is_none_or(|pool| {
                    pool.is_active() && pool.is_of(class) && pool.is_owned_by(owner)
                });
                let n_here = list_len(owner, class, slot, recount.n_partial);
                let Some(n_here) = n_here.filter(|_| is_right) else {
                    return Err(Violation::ClassList);
                };
                n_listed = n_listed.wrapping_add(n_here);
            }
            if n_listed != recount.n_partial {
                return Err(Violation::ClassList);
            }
        }
        Ok(())
    }
}

/// P1 to P4 of one pool.
fn look_at_pool(
    pool: &Pool,
    class: SizeClass,
    recount: &mut Recount,
    has_lost: bool,
) -> Result<(), Violation> {
    recount.n_used = recount.n_used.wrapping_add(u64::from(pool.n_used()));
    // A pool that a lost owner was amid making, and nobody will ever use, has none.
    let Some(owner) = pool.owner() else {
        return if has_lost { Ok(()) } else { Err(Violation::PoolPlace) };
    };
    if Owners::is_lost(owner) {
        return Ok(());
    }
    let is_partial = !pool.is_active() && pool.n_free() != 0;
    recount.n_partial = recount.n_partial.wrapping_add(usize::from(is_partial));
    if pool.is_consistent(class) { Ok(()) } else { Err(Violation::PoolBitmap) }
}

/// The number of pools in a slot's list, if each belongs there, its links agree with its neighbour's,
/// and there are at most `n_max`.
fn list_len(owner: &Owner, class: SizeClass, slot: &Slot, n_max: usize) -> Option<usize> {
    let (mut n_pools, mut prev, mut at) = (0usize, None::<&Pool>, slot.partial.get());
    while let Some(pool) = at {
        let links_agree = match (pool.prev.get(), prev) {
            (Some(linked), Some(prev)) => core::ptr::eq(linked, prev),
            (None, None) => true,
            _ => false,
        };
        let belongs = pool.is_of(class) && pool.is_owned_by(owner);
        let has_room = !pool.is_active() && pool.n_free() != 0;
        if !links_agree || !belongs || !has_room || n_pools >= n_max {
            return None;
        }
        n_pools = n_pools.wrapping_add(1);
        (prev, at) = (at, pool.next.get());
    }
    Some(n_pools)
}

/// D1 to D3.
fn look_at_mappings(locked: &Locked) -> Result<(), Violation> {
    let mappings = &locked.mappings;
    let (mut mapped_bytes, mut requested_bytes, mut n_mappings) = (0usize, 0usize, 0usize);
    for (addr, mapping) in mappings.table.iter() {
        let size = mapping.region.size();
        let is_left_behind = mappings.left_words.get(addr).is_some();
        if mapping.region.base().addr() != addr || mapping.requested_bytes > size || is_left_behind
        {
            return Err(Violation::Mappings);
        }
        mapped_bytes = mapped_bytes.wrapping_add(size);
        requested_bytes = requested_bytes.wrapping_add(mapping.requested_bytes);
        n_mappings = n_mappings.wrapping_add(1);
    }
    let holds = mapped_bytes == mappings.mapped_bytes
        && requested_bytes == mappings.requested_bytes
        && n_mappings == mappings.table.len();
    if holds { Ok(()) } else { Err(Violation::Mappings) }
}
