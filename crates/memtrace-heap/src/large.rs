//! The operations on blocks that are not taken or given back the short way: blocks of other owners'
//! pools, runs, and mappings.
//!
//! # Mechanism
//! Each finds the records of the block, checks that it is one, and hands on to the module that keeps
//! them: [`remote`](crate::remote), [`runs`](crate::runs), [`mappings`](crate::mappings).
//!
//! # Cost
//! A block of another's pool: one atomic operation. Others: the heap's lock.

use core::alloc::Layout;
use core::sync::atomic::Ordering;

use crate::arenas::Units;
use crate::class::SizeClass;
use crate::control::Control;
use crate::invalid::InvalidFree;
use crate::mapped::Region;
use crate::owner::Owner;
use crate::pages::PageSource;
use crate::pool::{Kind, Pool};
use crate::runs::Extent;
use crate::shared::Shared;
use crate::{remote, runs};

impl<'h, P: PageSource> Shared<'h, P> {
    /// The pool and the index of the block of `class` at `addr`, in use or free.
    fn find_block(self, addr: usize, class: SizeClass) -> Result<(&'h Pool, u32), InvalidFree> {
        let (arena, pool) = self.control.directory.find_any(addr).ok_or(InvalidFree::Foreign)?;
        let first = arena.first_of(pool).ok_or(InvalidFree::Foreign)?;
        match first.kind() {
            Kind::Pool(found) if found == class => {
                let offset = addr.wrapping_sub(first.base().addr());
                let index = first.index_at(offset).ok_or(InvalidFree::Misaligned)?;
                Ok((first, index))
            }
            Kind::Pool(_) | Kind::Run => Err(InvalidFree::WrongLayout),
            Kind::Unused | Kind::Inner(_) => Err(InvalidFree::Double),
        }
    }

    /// Checks that a block of `class` in use starts at `addr`, for the user of `owner`, and accounts it
    /// with `new_size` if that is of the same class; tells whether it was.
    pub(crate) fn resize_block(
        self,
        owner: &Owner,
        addr: usize,
        class: SizeClass,
        old_size: usize,
        new_size: Option<usize>,
    ) -> Result<bool, InvalidFree> {
        let (pool, index) = self.find_block(addr, class)?;
        let is_own = pool.is_owned_by(owner);
        let is_free = if is_own {
            pool.is_free(index)
        } else {
            pool.is_free_outside(index) || pool.is_free_in_slot(index)
        };
        if is_free {
            return Err(InvalidFree::Double);
        }
        let (Some(new_size), Some(slot)) = (new_size, owner.slot(class)) else { return Ok(false) };
        slot.requested_bytes.sub(old_size as u64);
        slot.requested_bytes.add(new_size as u64);
        Ok(true)
    }

    /// Gives back the block of `class` at `addr`, requested with `size` bytes, for the user of
    /// `owner`.
    pub(crate) fn give_back_block(
        self,
        owner: &'h Owner,
        addr: usize,
        class: SizeClass,
        size: usize,
    ) -> Result<(), InvalidFree> {
        let (pool, index) = self.find_block(addr, class)?;
        let slot = owner.slot(class).ok_or(InvalidFree::Foreign)?;
        if pool.is_owned_by(owner) {
            let change = pool.give_back(index, slot)?;
            slot.count_given(size);
            self.apply(class, slot, pool, change);
        } else {
            let woken = remote::free(pool, index)?;
            slot.count_given(size);
            if let Some(woken) = woken {
                self.wake(woken);
            }
        }
        Ok(())
    }

    /// Gives back the block of `class` at `addr` for a signal handler for which no owner is to be had: it
    /// interrupts the holder of the lock, without which none can be made.
    pub(crate) fn give_back_unowned(
        self,
        addr: usize,
        class: SizeClass,
        size: usize,
    ) -> Result<(), InvalidFree> {
        let (pool, index) = self.find_block(addr, class)?;
        let woken = remote::free(pool, index)?;
        if let Some(unowned) = self.control.unowned.get(class.index()) {
            // Relaxed: counters publish nothing.
            unowned.n_given.fetch_add(1, Ordering::Relaxed);
            unowned.requested_bytes.fetch_add(size as u64, Ordering::Relaxed);
        }
        if let Some(woken) = woken {
            self.wake(woken);
        }
        Ok(())
    }

    /// Takes a run for `size` bytes; returns its address and whether it is zero.
    pub(crate) fn take_run(self, extent: Extent, size: usize) -> Option<(*mut u8, bool)> {
        let mut guard = self.lock()?;
        let Control { directory, runs, .. } = self.control;
        let (token, arenas) = (&mut guard.token, self.control.arenas_of(extent.scale));
        let Units { first, is_zero } =
            arenas.take(token, self.source, directory, self.config, extent.n_units, Kind::Run)?;
        runs.begin(token, first, extent.n_units, size);
        self.look_after(arenas, guard);
        Some((first.base(), is_zero))
    }

    /// Whether a run of `size` requested bytes starts at `addr`.
    pub(crate) fn check_run(self, addr: usize, size: usize) -> Result<(), InvalidFree> {
        self.find_run(addr, size).map(|_| ())
    }

    /// To be repeated under the lock before it is relied on.
    fn find_run(self, addr: usize, size: usize) -> Result<&'h Pool, InvalidFree> {
        let (_, pool) = self.control.directory.find_any(addr).ok_or(InvalidFree::Foreign)?;
        runs::check(pool, addr, size)?;
        Ok(pool)
    }

    /// Whether `addr` lies in an arena. A block for a run was mapped directly when no arena could be.
    pub(crate) fn is_in_arena(self, addr: usize) -> bool {
        self.control.directory.find(addr).is_some()
    }

    pub(crate) fn give_back_run(self, addr: usize, size: usize) -> Result<(), InvalidFree> {
        // Without the lock, which only a signal handler can fail to get, the block stays.
        let Some(mut guard) = self.lock() else { return Ok(()) };
        let first = self.find_run(addr, size)?;
        let n = self.control.runs.end(&mut guard.token, first);
        if let Some(arena) = first.arena() {
            self.give_back_units(guard, arena, first.unit(), n);
        }
        Ok(())
    }

    /// Resizes the run at `addr` to `new`; `false` if that lies in other arenas, or the units behind it
    /// are in use.
    pub(crate) fn resize_run(
        self,
        addr: usize,
        size: usize,
        new: Extent,
        new_size: usize,
    ) -> Result<bool, InvalidFree> {
        let Some(mut guard) = self.lock() else { return Ok(false) };
        let first = self.find_run(addr, size)?;
        if first.arena().is_none_or(|arena| arena.scale() != new.scale) {
            return Ok(false);
        }
        let (token, n) = (&mut guard.token, new.n_units);
        let n_before = u32::from(first.n_run_units.get());
        let n_more = n.saturating_sub(n_before);
        let (runs, arenas) = (&self.control.runs, self.control.arenas_of(new.scale));
        if n_more != 0 && arenas.extend(token, first, n_before, n_more).is_none() {
            return Ok(false);
        }
        runs.resize(token, first, n, new_size);
        if n < n_before
            && let Some(arena) = first.arena()
        {
            let rest = first.unit().wrapping_add(n as u8);
            self.give_back_units(guard, arena, rest, n_before.wrapping_sub(n));
        }
        Ok(true)
    }

    /// Maps a block, which is zero by the page source's promise.
    pub(crate) fn map_block(self, layout: Layout) -> Option<*mut u8> {
        let region = Region::map(self.source, layout.size().max(1), layout.align())?;
        let Some(mut guard) = self.lock() else {
            region.abandon(self.source);
            return None;
        };
        match guard.mappings.insert(self.source, region, layout.size()) {
            Ok(block) => Some(block),
            Err(region) => {
                region.abandon(self.source);
                None
            }
        }
    }

    /// Forgets the mapping of `size` requested bytes at `addr`, for the caller to unmap.
    pub(crate) fn forget_mapping(self, addr: usize, size: usize) -> Result<Region, InvalidFree> {
        match self.lock() {
            Some(mut guard) => guard.mappings.remove(self.source, addr, size),
            // A signal handler: the block stays.
            None => Ok(Region::default()),
        }
    }

    /// Whether a block of `size` requested bytes is mapped at `addr`.
    pub(crate) fn check_mapping(self, addr: usize, size: usize) -> Result<(), InvalidFree> {
        self.lock().map_or(Ok(()), |guard| guard.mappings.check(addr, size))
    }

    /// See [`Mappings::resize`](crate::mappings::Mappings::resize).
    pub(crate) fn resize_mapping(
        self,
        addr: usize,
        size: usize,
        new_size: usize,
        must_stay: bool,
        remap: impl FnOnce(&mut Region, usize) -> bool,
    ) -> Result<Option<*mut u8>, InvalidFree> {
        let Some(mut guard) = self.lock() else { return Ok(None) };
        guard.mappings.resize(addr, size, new_size, must_stay, remap)
    }

    /// Tells a foreign address from one that belongs to a block of quite another size.
    pub(crate) fn refine(self, reason: InvalidFree, addr: usize) -> InvalidFree {
        if reason != InvalidFree::Foreign {
            return reason;
        }
        let is_mapping = self.lock().is_some_and(|guard| guard.mappings.table.get(addr).is_some());
        if is_mapping || self.is_in_arena(addr) {
            InvalidFree::WrongLayout
        } else {
            InvalidFree::Foreign
        }
    }
}
