//! All arenas of a heap, under its lock: who gets which units, and what goes back to the system.
//!
//! # Mechanism
//! Arenas stand in 64 lists by the length of their longest run of unused units; a word says which
//! lists are not empty. A run of `n` units comes from the first list that can serve it, so from the
//! arena in which it leaves the least, and sparse arenas get a chance to empty. In an arena, units
//! that were used before are preferred to untouched ones.
//!
//! Unused units keep their pages as long as there are not too many of them: as many as were in use
//! lately and are not now, as many as were taken lately without pages, and a sixteenth of those in use,
//! or 2 MiB. Beyond that the pages of one
//! arena after the other are discarded ([`Purge::Slack`]). "Lately" is the present period of
//! [`PERIOD_MILLIS`] and the one before, so a program that takes and gives back the same memory over and
//! over pays once. Arenas wholly unused are unmapped, except one, which absorbs the oscillation at
//! a boundary. The system calls are made without the lock: the units to discard are taken out first. Only
//! the words beside their blocks, if there are any, are given back under it.
//!
//! # Invariants
//! - **A1** A mapped arena, and no other, is found in the directory by its base.
//! - **A2** A unit's bit in `unused` is set exactly if its record's kind is unused, and it is not
//!   being discarded at that moment.
//! - **A3** An arena with a run of `n > 0` unused units, and none longer, is in list `n - 1`; one
//!   without is in no list. Bit `i` of `nonempty` is set exactly if list `i` is not empty.
//! - **A4** All units that hold something else than zero are `dirty`.
//! - **A5** `n_unused_dirty` counts the units both unused and dirty of all arenas; `n_units_used` the
//!   units that are in use.
//!
//! # Cost
//! Constant, but for mapping and unmapping an arena, and for finding pages to discard, which looks at
//! up to 64 arenas.

use crate::arena::{Arena, Scale, UNITS_PER_ARENA};
use crate::arena::{longest_run, run, run_starts};
use crate::cells::{Cell8, Cell64, CellSize, Link};
use crate::config::{Config, Purge};
use crate::directory::Directory;
use crate::mapped::{Region, Source, map_record};
use crate::pages::PageSource;
use crate::pool::{Kind, Pool};

/// The pages of unused units that are always kept, in bytes.
const MIN_SLACK_BYTES: usize = 2 << 20;
/// See the module's description; a program's phases that repeat faster than this keep their pages.
const PERIOD_MILLIS: u64 = 50;
/// After how many periods without a unit taken or given back a program is taken to have paused.
const QUIET_PERIODS: u64 = 4;
/// How many arenas are looked at for pages to discard.
const N_SEARCHED: usize = 64;

/// The arenas of a heap.
#[derive(Debug)]
pub(crate) struct Arenas {
    lists: [Link<Arena>; UNITS_PER_ARENA],
    nonempty: Cell64,
    /// The latest records made.
    latest: Link<Arena>,
    /// Records that serve no arena.
    spare: Link<Arena>,
    /// Where the search for pages to discard goes on.
    cursor: Link<Arena>,
    pub(crate) n_records: CellSize,
    pub(crate) n_current: CellSize,
    pub(crate) n_high_water: CellSize,
    pub(crate) n_total: Cell64,
    pub(crate) n_units_used: CellSize,
    pub(crate) n_units_high_water: CellSize,
    pub(crate) n_unused_dirty: CellSize,
    pub(crate) n_wholly_unused: CellSize,
    /// Units whose pages were discarded, ever.
    pub(crate) n_discarded: Cell64,
    /// When the present period began, and the most units in use in it and in the one before.
    period_began: Cell64,
    period_peak: CellSize,
    period_before_peak: CellSize,
    /// How many clean units were taken in the present period and in the one before.
    period_clean: CellSize,
    period_before_clean: CellSize,
    /// 1 if the arenas are big.
    is_big: Cell8,
    /// 1 when the source has declined to discard.
    cannot_discard: Cell8,
}

/// The proof that the heap's lock is held, which whatever changes arenas asks for.
#[derive(Debug, Default)]
pub(crate) struct Token(());

/// A run of units just taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Units<'h> {
    /// The record of the first.
    pub(crate) first: &'h Pool,
    /// Whether all their bytes are zero.
    pub(crate) is_zero: bool,
}

/// What is left to do, without the lock, after units were given back.
#[derive(Debug)]
pub(crate) enum Leftover<'h> {
    /// Nothing.
    None,
    /// This memory belongs to no arena any more; `keep_spare` must be told afterwards.
    Unmap { arena: &'h Arena, memory: Region, n_bytes: usize },
    /// The contents of these units are not needed; `finish_discarding` must be told afterwards.
    Discard { arena: &'h Arena, units: u64 },
}

impl Arenas {
    fn scale(&self) -> Scale {
        if self.is_big.get() == 0 { Scale::Small } else { Scale::Big }
    }

    /// Makes these, which have no arenas yet, the big ones.
    pub(crate) fn make_big(&self) {
        self.is_big.set(1);
    }

    /// Takes `n` neighbouring units, 1 to 64, for a pool or run, mapping an arena if no arena has them;
    /// `None` if that fails. Their records are still those of unused units, but that the first says where
    /// the words of the blocks are.
    pub(crate) fn take<'h>(
        &'h self,
        _: &mut Token,
        source: Source<'_, impl PageSource>,
        directory: &Directory,
        config: Config,
        n: u32,
        kind: Kind,
    ) -> Option<Units<'h>> {
        let arena = match self.fitting(n) {
            Some(arena) => arena,
            None => self.add(source, directory, config)?,
        };
        let starts = run_starts(arena.unused.get(), n);
        let used_before = starts & arena.dirty.get();
        let first = if used_before != 0 { used_before } else { starts }.trailing_zeros();
        let first_record = arena.pool(first as usize)?;
        let is_zero = self.claim(arena, run(first, n));
        first_record.first_word.set(arena.words.begin(first as u8, kind) as u32);
        Some(Units { first: first_record, is_zero })
    }

    /// The arena with the shortest longest run of unused units that has `n`.
    fn fitting(&self, n: u32) -> Option<&Arena> {
        // Lists n - 1 and above.
        let fitting = self.nonempty.get() & u64::MAX.wrapping_shl(n.wrapping_sub(1));
        self.lists.get(fitting.trailing_zeros() as usize)?.get()
    }

    /// Takes the `n` units after the run of `n_before` units that begins at `first`, if all are
    /// unused; tells whether they are zero.
    pub(crate) fn extend(
        &self,
        _: &mut Token,
        first: &Pool,
        n_before: u32,
        n: u32,
    ) -> Option<bool> {
        let arena = first.arena()?;
        let at = u32::from(first.unit()).checked_add(n_before)?;
        if at.checked_add(n)? > UNITS_PER_ARENA as u32 {
            return None;
        }
        let units = run(at, n);
        (arena.unused.get() & units == units).then(|| self.claim(arena, units))
    }

    /// Marks unused `units` as in use and dirty; tells whether they were zero.
    fn claim(&self, arena: &Arena, units: u64) -> bool {
        let n_dirty = (arena.dirty.get() & units).count_ones() as usize;
        self.n_units_used.add(units.count_ones() as usize);
        self.n_units_high_water.set(self.n_units_high_water.get().max(self.n_units_used.get()));
        self.period_peak.set(self.period_peak.get().max(self.n_units_used.get()));
        self.period_clean.add((units.count_ones() as usize).wrapping_sub(n_dirty));
        self.n_unused_dirty.sub(n_dirty);
        arena.dirty.set(arena.dirty.get() | units);
        self.set_unused(arena, arena.unused.get() & !units);
        n_dirty == 0
    }

    /// Takes back `units`, which follow each other and whose records are those of unused units.
    pub(crate) fn give_back(&self, _: &mut Token, arena: &Arena, units: u64) {
        let n = units.count_ones() as usize;
        // Those at the end of a run that goes on have no words of their own.
        arena.words.end(units.trailing_zeros() as u8);
        self.n_units_used.sub(n);
        self.n_unused_dirty.add(n);
        self.set_unused(arena, arena.unused.get() | units);
    }

    /// Begins a new period if the present one is over; tells whether nothing has happened for several.
    pub(crate) fn pass_time(&self, _: &mut Token, now: u64) -> bool {
        let age = now.wrapping_sub(self.period_began.get());
        // Without a clock every moment is a period of its own.
        if age < PERIOD_MILLIS && now != 0 {
            return false;
        }
        let n_used = self.n_units_used.get();
        let is_recent = age < PERIOD_MILLIS.wrapping_mul(2) && now != 0;
        self.period_before_peak.set(if is_recent { self.period_peak.get() } else { n_used });
        self.period_peak.set(n_used);
        self.period_before_clean.set(if is_recent { self.period_clean.get() } else { 0 });
        self.period_clean.set(0);
        self.period_began.set(now);
        age >= PERIOD_MILLIS.wrapping_mul(QUIET_PERIODS)
    }

    /// How many unused units may keep their pages.
    fn n_slack_units(&self) -> usize {
        let n_used = self.n_units_used.get();
        let n_lately = self.period_peak.get().max(self.period_before_peak.get());
        let n_clean = self.period_clean.get().wrapping_add(self.period_before_clean.get());
        let min_slack = MIN_SLACK_BYTES.checked_div(self.scale().unit_size()).unwrap_or(0);
        n_lately
            .saturating_sub(n_used)
            .wrapping_add(n_clean)
            .wrapping_add(min_slack.max(n_used / 16))
    }

    /// What there is to give back, by the options.
    pub(crate) fn leftover(
        &self,
        _: &mut Token,
        directory: &Directory,
        config: Config,
    ) -> Leftover<'_> {
        let n_kept = match config.purge_policy() {
            Purge::Never => return Leftover::None,
            Purge::Immediate => 0,
            Purge::Slack => self.n_slack_units(),
        };
        if self.n_unused_dirty.get() <= n_kept {
            return Leftover::None;
        }
        self.choose_discarded(directory, N_SEARCHED)
    }

    /// Something that can be given back now, if there is anything.
    pub(crate) fn purge(&self, _: &mut Token, directory: &Directory) -> Leftover<'_> {
        // Twice, since the search begins anywhere.
        self.choose_discarded(directory, self.n_records.get().saturating_mul(2))
    }

    /// Takes out the next arena that is wholly unused, but one, or the unused dirty units of the next
    /// that has any, among the next `n` records.
    fn choose_discarded(&self, directory: &Directory, n: usize) -> Leftover<'_> {
        for _ in 0..n {
            let Some(arena) = self.cursor.get().or(self.latest.get()) else { break };
            self.cursor.set(arena.older.get());
            let units = arena.unused.get() & arena.dirty.get();
            if !arena.is_mapped() {
                continue;
            }
            if arena.unused.get() == u64::MAX && self.n_wholly_unused.get() > 1 {
                return self.remove(directory, arena);
            }
            if units != 0 && self.cannot_discard.get() == 0 {
                self.n_unused_dirty.sub(units.count_ones() as usize);
                self.set_unused(arena, arena.unused.get() & !units);
                return Leftover::Discard { arena, units };
            }
        }
        Leftover::None
    }

    /// Puts units back whose contents were discarded, or were not, because the source declined.
    pub(crate) fn finish_discarding(
        &self,
        _: &mut Token,
        arena: &Arena,
        units: u64,
        is_done: bool,
    ) {
        let n_units = units.count_ones();
        if is_done {
            arena.dirty.set(arena.dirty.get() & !units);
            self.n_discarded.add(u64::from(n_units));
        } else {
            self.n_unused_dirty.add(n_units as usize);
            self.cannot_discard.set(1);
        }
        self.set_unused(arena, arena.unused.get() | units);
    }

    /// Maps an arena. Its memory comes last but for the directory's leaf, and records are kept for
    /// the next, so that little ever needs undoing.
    fn add<'h>(
        &'h self,
        source: Source<'_, impl PageSource>,
        directory: &Directory,
        config: Config,
    ) -> Option<&'h Arena> {
        if self.spare.get().is_none() {
            let arena: &Arena = map_record(source)?;
            arena.number.set(self.n_records.get() as u32);
            arena.set_scale(self.scale());
            arena.older.set(self.latest.get());
            self.latest.set(Some(arena));
            self.spare.set(Some(arena));
            self.n_records.add(1);
        }
        let arena = self.spare.get()?;
        let size = self.scale().arena_size();
        if config.has_block_words() {
            arena.words.prepare(source, self.scale())?;
        }
        let memory = Region::map(source, size, size)?;
        let base = memory.base();
        if directory.reserve(source, base.addr()).is_none() {
            memory.abandon(source);
            return None;
        }
        if config.has_huge_pages() {
            memory.prefer_huge(source);
        }
        arena.memory.put(memory);
        arena.dirty.set(0);
        for (unit, pool) in arena.pools.iter().enumerate() {
            pool.place(
                arena,
                unit as u8,
                base.wrapping_add(unit.wrapping_mul(self.scale().unit_size())),
            );
        }
        directory.set(base.addr(), size, Some(arena));
        self.spare.set(arena.next.get());
        arena.next.set(None);
        self.n_current.add(1);
        self.n_high_water.set(self.n_high_water.get().max(self.n_current.get()));
        self.n_total.add(1);
        self.set_unused(arena, u64::MAX);
        Some(arena)
    }

    /// Takes a wholly unused arena out.
    fn remove<'h>(&self, directory: &Directory, arena: &'h Arena) -> Leftover<'h> {
        let n_dirty = arena.dirty.get().count_ones() as usize;
        let n_bytes = n_dirty.wrapping_mul(self.scale().unit_size());
        self.n_unused_dirty.sub(n_dirty);
        self.set_unused(arena, 0);
        directory.set(arena.memory.base().addr(), self.scale().arena_size(), None);
        let memory = arena.memory.take();
        self.n_current.sub(1);
        Leftover::Unmap { arena, memory, n_bytes }
    }

    /// Keeps the records of an arena that is unmapped, for the next.
    pub(crate) fn keep_spare(&self, _: &mut Token, arena: &Arena) {
        arena.next.set(self.spare.get());
        self.spare.set(Some(arena));
    }

    /// Sets which units of `arena` are unused and moves it to the list for its longest run (A3).
    fn set_unused(&self, arena: &Arena, unused: u64) {
        let before = arena.unused.get();
        arena.unused.set(unused);
        if before == u64::MAX {
            self.n_wholly_unused.sub(1);
        }
        if unused == u64::MAX {
            self.n_wholly_unused.add(1);
        }
        let (was, is) = (arena.longest.get(), longest_run(unused) as u8);
        if was != is {
            arena.longest.set(is);
            self.unlink(arena, was);
            self.link(arena, is);
        }
    }

    fn link(&self, arena: &Arena, longest: u8) {
        let Some(at) = longest.checked_sub(1) else { return };
        let Some(list) = self.lists.get(at as usize) else { return };
        if let Some(first) = list.get() {
            first.prev.set(Some(arena));
        }
        arena.next.set(list.get());
        arena.prev.set(None);
        list.set(Some(arena));
        self.nonempty.set(self.nonempty.get() | run(u32::from(at), 1));
    }

    fn unlink(&self, arena: &Arena, longest: u8) {
        let Some(at) = longest.checked_sub(1) else { return };
        let Some(list) = self.lists.get(at as usize) else { return };
        if let Some(next) = arena.next.get() {
            next.prev.set(arena.prev.get());
        }
        match arena.prev.get() {
            Some(prev) => prev.next.set(arena.next.get()),
            None => list.set(arena.next.get()),
        }
        if list.get().is_none() {
            self.nonempty.set(self.nonempty.get() & !run(u32::from(at), 1));
        }
        arena.next.set(None);
        arena.prev.set(None);
    }

    /// In a forked child, with the lock held: takes back the units that threads which do not exist here
    /// were amid taking, giving back, or discarding. No block is in use in them.
    pub(crate) fn recover(&self) {
        let (mut n_used, mut n_unused_dirty) = (0usize, 0usize);
        for arena in self.mapped() {
            let mut unused = arena.unused.get();
            for (unit, pool) in arena.pools.iter().enumerate() {
                let first = arena.first_of(pool).unwrap_or(pool);
                if first.kind() == Kind::Unused {
                    pool.set_kind(Kind::Unused);
                    arena.words.end(unit as u8);
                    unused |= run(unit as u32, 1);
                }
            }
            self.set_unused(arena, unused);
            n_used = n_used.wrapping_add((!unused).count_ones() as usize);
            let unused_dirty = (unused & arena.dirty.get()).count_ones() as usize;
            n_unused_dirty = n_unused_dirty.wrapping_add(unused_dirty);
        }
        self.n_units_used.set(n_used);
        self.n_unused_dirty.set(n_unused_dirty);
    }

    /// The record made last.
    pub(crate) fn latest(&self) -> Option<&Arena> {
        self.latest.get()
    }

    /// Every record, mapped or spare, latest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Arena> {
        core::iter::successors(self.latest.get(), |arena| arena.older.get())
    }

    /// Every mapped arena, latest record first.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = &Arena> {
        self.records().filter(|arena| arena.is_mapped())
    }

    /// Whether A1 to A5 hold, by recounting; of A2, if an owner was lost in a fork, only that units in
    /// use are not marked as unused.
    pub(crate) fn is_consistent(&self, directory: &Directory, has_lost: bool) -> bool {
        let (mut n_current, mut n_used, mut n_dirty, mut n_wholly) =
            (0usize, 0usize, 0usize, 0usize);
        let mut n_listable = 0usize;
        for arena in self.mapped() {
            let unused = arena.unused.get();
            n_current = n_current.wrapping_add(1);
            n_used = n_used.wrapping_add((!unused).count_ones() as usize);
            n_dirty = n_dirty.wrapping_add((unused & arena.dirty.get()).count_ones() as usize);
            n_wholly = n_wholly.wrapping_add(usize::from(unused == u64::MAX));
            n_listable = n_listable.wrapping_add(usize::from(unused != 0));
            let is_found = directory
                .find(arena.memory.base().addr())
                .is_some_and(|(found, _)| core::ptr::eq(found, arena));
            let kinds_agree = arena.pools.iter().enumerate().all(|(unit, pool)| {
                let is_unused = unused & run(unit as u32, 1) != 0;
                match pool.kind() {
                    Kind::Unused => is_unused || has_lost,
                    _ => !is_unused,
                }
            });
            let is_in_right_list = u32::from(arena.longest.get()) == longest_run(unused);
            let has_words = arena.words.is_consistent(|unit| {
                let first = arena.pool(unit as usize)?;
                let kind = first.kind();
                let is_first = matches!(kind, Kind::Pool(_) | Kind::Run);
                is_first.then_some((kind, first.first_word.get() as usize))
            });
            if !is_found || !kinds_agree || !is_in_right_list || !has_words {
                return false;
            }
        }
        let mut n_listed = 0usize;
        for (at, list) in self.lists.iter().enumerate() {
            let nodes = core::iter::successors(list.get(), |arena| arena.next.get());
            let mut n_here = 0usize;
            for arena in nodes.take(n_current.wrapping_add(1)) {
                n_here = n_here.wrapping_add(1);
                if arena.longest.get() as usize != at.wrapping_add(1) {
                    return false;
                }
            }
            if (self.nonempty.get() >> at & 1 != 0) != (n_here != 0) {
                return false;
            }
            n_listed = n_listed.wrapping_add(n_here);
        }
        n_current == self.n_current.get()
            && n_used == self.n_units_used.get()
            && n_dirty == self.n_unused_dirty.get()
            && n_wholly == self.n_wholly_unused.get()
            && n_listed == n_listable
    }
}
