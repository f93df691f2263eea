//! From the state of a thread to the site of its stack.
//!
//! A capture tries three ways, each dearer than the one before:
//!
//! 1. a *validated record* of an earlier walk from the same state: some thirty loads that do not wait
//!    for each other, and the site is known;
//! 2. a walk that stops where it meets the *trail* of the last one, its hash, and the site table;
//! 3. a walk of the whole stack, hashed as it goes, and the site table.
//!
//! Where records or trails do not pay, because a program does not repeat itself, they are left out for
//! a while. All three lead to the same site: what is remembered is used only if every word that the
//! walk had read, and that mattered, holds the same value.
//!
//! # Invariants
//!
//! - **I1** Records and trail were made on the thread that uses them, within its own stack `stack`,
//!   under the rules of generation and for the limit of `epoch`; in another epoch they are void.
//! - **I2** `recall_generation` is one that rules may have only if there are records, whose guesses `guess_mask` is
//!   for.
//!
//! # Cost
//!
//! No memory for the first captures of a thread, then 24 KiB, then what its misses ask for up to
//! 1 MiB, within the budget of the process.
#![expect(unsafe_code, reason = "recollects from records that it knows to be there")]

use crate::bounds::StackBounds;
use crate::counts::Counts;
use crate::hash::StackHash;
use crate::native::choice::Choice;
use crate::native::entry::{Process, here};
use crate::native::growth::Growth;
use crate::native::guesses::{GuessMask, Hints, OFFSET_BITS, Recollection};
use crate::native::pages::Pages;
use crate::native::record::{Outcome, Start};
use crate::native::records::{self, Records};
use crate::native::trail::{self, CallAddrs, Found, MAX_LIMIT, Trail};
use crate::native::uncached::site_without_cache;
use crate::native::world::{Check, World, is_needed};
use crate::rule::{End, Registers};
use crate::site::Sites;
use crate::walker::{Place, visit, walk};
use core::marker::PhantomData;
use core::num::NonZeroU32;

/// Captures of a thread before it gets memory: many threads do not live longer.
const N_BEFORE_MEMORY: u32 = 32;
/// Words of records, level by level.
const LEVELS: [usize; 4] = [1 << 10, 16 << 10, 32 << 10, 1 << OFFSET_BITS];
/// There is to be a level above if not so many captures are answered by a record for each that is not.
const N_HITS_A_MISS: [u64; 3] = [256, 32, 32];
/// Fewer say nothing.
const N_MISSES_TO_GROW: u64 = 64;

/// Hits after which one is answered by a walk, and plain walks after which one looks whether the code
/// is still what it was.
const N_HITS_A_WALK: u64 = 4096;
const N_HITS_LEFT: i64 = N_HITS_A_WALK as i64 - 1;
/// The most stacks worth a record that are passed over for each that gets one, when most do not come
/// again.
const MAX_SKIPPED: u32 = 15;
/// What a record that holds takes, and what it costs to find none that does, in cycles of the clock: with all that it
/// drives out of the processor's caches. (Half as much, and a parser of Rust where four in ten held took 6 % longer.)
const HIT_CYCLES: u64 = 100;
const MISS_CYCLES: u64 = 200;
/// Records are few, and drive out nothing, if so many hold for each time that none does: then finding one takes no longer
/// than what leads to a walk. (A loop's stacks of one frame, walked in some 50 cycles, had no records most of the time,
/// and took twice as long.)
const N_HITS_A_MISS_OF_FEW: u64 = 64;
/// Walks after which one looks whether the code is still what it was.
const N_WALKS_A_LOOK: u64 = 1024;
/// Walks after which it is decided anew how records are used, level by level: as many as it takes for the stacks
/// that there is room for, if they are not very shallow, to come twice.
const N_WALKS_A_JUDGEMENT: [u64; 4] = [256, 1024, 2048, 4096];
/// Decisions that records are left out for.
const N_JUDGED_WITHOUT: u32 = 16;

/// Not one that [`World::generation`] returns.
const NO_GENERATION: u64 = u64::MAX;

/// What one thread remembers of its earlier captures.
///
/// Made by and for one thread; it goes with one [`Sites`].
pub struct SiteCache {
    /// Generation of the rules, and the limit.
    epoch: u64,
    /// The generation of the epoch, if records are used, else one that never is.
    recall_generation: u64,
    uses_records: bool,
    is_retired: bool,
    guess_mask: GuessMask,
    hints: Hints,
    records: Pages,
    records_extent: records::Extent,
    /// Hits before the next walk, counted down from [`N_HITS_LEFT`] until they are below zero, and those before.
    n_hits_left: i64,
    n_hits_before: u64,
    /// Whether the walk is one of those that look whether the code is still what it was: the stack has a record.
    is_checkup: bool,
    /// The site of the last walk.
    last_walked: u32,
    trail: Pages,
    trail_extent: trail::Extent,
    stack: StackBounds,
    level: usize,
    /// Stacks worth a record that are passed over for each that gets one, less than a power of two.
    n_skipped_a_record: u32,
    /// How often it was decided to go on without records.
    n_judged_without: u32,
    counts: Counts,
    choice: Choice,
    growth: Growth,
    /// Words of another thread's stack may not be there to be compared.
    _of_this_thread: PhantomData<*mut ()>,
}

impl SiteCache {
    /// Makes an empty cache, which takes no memory before it is used.
    pub const fn new() -> Self {
        Self {
            epoch: u64::MAX,
            recall_generation: NO_GENERATION,
            uses_records: false,
            is_retired: false,
            guess_mask: GuessMask::NONE,
            hints: Hints::NONE,
            records: Pages::empty(),
            records_extent: records::Extent::EMPTY,
            n_hits_left: N_HITS_LEFT,
            n_hits_before: 0,
            is_checkup: false,
            last_walked: 0,
            trail: Pages::empty(),
            trail_extent: trail::Extent::EMPTY,
            stack: StackBounds::UNKNOWN,
            level: 0,
            n_skipped_a_record: 0,
            n_judged_without: 0,
            counts: Counts { n_hits: 0, n_joined: 0, n_walked: 0, n_plain: 0 },
            choice: Choice::NEW,
            growth: Growth::since(0, 0),
            _of_this_thread: PhantomData,
        }
    }

    /// Returns the site of the caller's stack, at most `limit` frames of it, those that are the tool's
    /// own left out; `None` if the table of sites has no room.
    ///
    /// `stack` are the bounds of the current thread's own stack; on another stack (a signal's, a
    /// coroutine's) the stack is walked each time.
    ///
    /// **Cost**: at 25 frames 17 ns where a record holds, 60 to 110 where a walk meets the trail of the
    /// last one, 90 to 150 otherwise (see the crate's documentation).
    #[inline(always)]
    pub fn site_of_caller(
        &mut self,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(&Process, here(), stack, limit, sites)
    }

    #[inline(always)]
    pub(crate) fn site(
        &mut self,
        world: &impl World,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let is_of_epoch = self.epoch == epoch(world, limit);
        let recalled = if is_of_epoch { self.recall_in(world, start) } else { None };
        if recalled.is_some() {
            return recalled;
        }
        let recalled = if is_of_epoch { self.recall_further_in(world, start) } else { None };
        recalled.or_else(|| self.unrecalled_in(world, &start, stack, limit, sites))
    }

    /// Returns the site if the likeliest record holds.
    #[inline(always)]
    pub(crate) fn recall_in(&mut self, world: &impl World, start: Registers) -> Option<NonZeroU32> {
        if !self.may_recall(world) {
            return None;
        }
        let site = self.recollection().recall(start_of(start), world)?;
        self.counts_as_hit().then_some(site)
    }

    /// Returns the site if it takes more than the start to tell the likeliest record, and that one holds.
    #[inline(always)]
    pub(crate) fn recall_further_in(
        &mut self,
        world: &impl World,
        start: Registers,
    ) -> Option<NonZeroU32> {
        if !self.may_recall(world) || self.n_hits_left < 0 {
            return None;
        }
        let stack = self.stack;
        let site = self.recollection().recall_further(start_of(start), &stack, world)?;
        self.counts_as_hit().then_some(site)
    }

    /// Whether what is remembered may be made use of (I2).
    #[inline(always)]
    fn may_recall(&self, world: &impl World) -> bool {
        self.recall_generation == u64::from(world.generation())
            || !is_needed(Check::Epoch) && self.uses_records
    }

    #[inline(always)]
    fn recollection(&mut self) -> Recollection<'_> {
        // SAFETY: there are records (I2), and the mask is that of their memory.
        unsafe {
            Recollection::of(
                &mut self.records,
                self.guess_mask,
                &self.records_extent,
                &mut self.hints,
            )
        }
    }

    /// Counts a record that held; `false` now and then, when a walk is to look whether the code is still what it was.
    #[inline(always)]
    fn counts_as_hit(&mut self) -> bool {
        // It stays below zero, should a signal handler come before the walk.
        self.n_hits_left = self.n_hits_left.wrapping_sub(1);
        self.n_hits_left >= 0
    }

    /// Returns the site where [`Self::recall_in`] did not.
    #[inline(never)]
    pub(crate) fn unrecalled_in(
        &mut self,
        world: &impl World,
        start: &Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.is_checkup = self.n_hits_left < 0;
        if self.is_checkup {
            self.n_hits_left = N_HITS_LEFT;
            self.n_hits_before = self.n_hits_before.wrapping_add(N_HITS_A_WALK);
        } else if self.uses_records && self.epoch == epoch(world, limit) {
            let records =
                Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints);
            let stack = &self.stack;
            let found =
                records.and_then(|mut records| records.search(start_of(*start), stack, world));
            if found.is_some() {
                self.counts_as_hit();
                return found;
            }
        }
        self.site_by_walk(world, start, stack, limit, sites)
    }

    #[inline(never)]
    fn site_by_walk(
        &mut self,
        world: &impl World,
        start: &Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let stack = &world.trusted(stack);
        if self.epoch != epoch(world, limit) || self.stack != *stack {
            self.renew(stack, epoch(world, limit));
        }
        if limit > MAX_LIMIT
            || limit == 0
            || !stack.contains_word(start.sp) && is_needed(Check::OwnStack)
            || self.trail.is_empty() && !self.gets_memory()
        {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            if self.counts.n_plain.is_multiple_of(N_HITS_A_WALK) {
                look_for_unloaded(world, start, stack);
            }
            return site_without_cache(world, start, stack, limit, 0, sites);
        }
        let is_timed = self.choice.begin();
        let begun = if is_timed { world.cycles() } else { 0 };
        let site = if self.choice.is_trail {
            self.site_by_trail(world, start, stack, limit, sites)
        } else {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            let found = site_without_cache(world, start, stack, limit, self.last_walked, sites);
            if let Some(site) = found
                && self.uses_records
                && !self.is_checkup
                && self.lets_in(site, start.sp)
            {
                // A walk of its own, which remembers what the record is made of.
                self.choice.is_spoilt = true;
                self.remember(world, start, stack, limit, sites);
            }
            found
        };
        self.last_walked = site.map_or(0, NonZeroU32::get);
        if is_timed {
            self.choice.end(world.cycles().wrapping_sub(begun));
        }
        self.growth.n_misses = self.growth.n_misses.wrapping_add(1);
        let is_full = self.is_full() && self.growth.n_misses >= N_MISSES_TO_GROW;
        let n_hits = self.n_hits().wrapping_sub(self.growth.n_hits);
        let are_many = self.growth.n_misses >= self.n_walks_a_judgement();
        let is_judged = are_many || is_full || n_hits >= N_HITS_A_WALK;
        if is_judged || self.growth.n_misses.is_multiple_of(N_WALKS_A_LOOK) {
            look_for_unloaded(world, start, stack);
        }
        if is_judged {
            self.judge_records();
        }
        site
    }

    /// Finds the site by a walk that stops where it meets the trail of the last one.
    #[inline(never)]
    fn site_by_trail(
        &mut self,
        world: &impl World,
        start: &Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let trail = Trail::in_memory(&mut self.trail, &mut self.trail_extent)?;
        let read_word = |addr: u64| world.read_word(addr);
        let mut along = trail.along(limit, |addr| sites.is_own(addr), read_word);
        let read = |addr: u64| Some(read_word(addr));
        let ended = visit(*start, stack, &mut world.rules(), read, &mut along);
        let found = along.finish(ended);
        let Some((trail, found)) = found.filter(|_| self.epoch == epoch(world, limit)) else {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            return site_without_cache(world, start, stack, limit, 0, sites);
        };
        let count = if found.n_fresh >= found.len() {
            &mut self.counts.n_walked
        } else {
            &mut self.counts.n_joined
        };
        *count = count.wrapping_add(1);
        let site = match sites.find_after(self.last_walked, found.hash) {
            Some(site) => site,
            None => {
                self.choice.is_spoilt = true;
                insert(trail.call_addrs(&found), found.hash, found.end, sites)?
            }
        };
        if self.uses_records
            && !self.is_checkup
            && self.growth.n_misses as u32 & self.n_skipped_a_record == 0
            && let Some(mut records) =
                Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
            && self.growth.is_seen(&mut records, site, start.sp)
        {
            add_record(&mut records, &trail, &found, *start, site, stack, world);
        }
        Some(site)
    }

    /// Whether the stack of a site is worth a record and is to get one now.
    #[inline(always)]
    fn lets_in(&mut self, site: NonZeroU32, sp: u64) -> bool {
        self.growth.n_misses as u32 & self.n_skipped_a_record == 0
            && Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
                .is_some_and(|mut records| self.growth.is_seen(&mut records, site, sp))
    }

    /// Makes a record of a stack that was walked without a trail.
    #[cold]
    #[inline(never)]
    fn remember(
        &mut self,
        world: &impl World,
        start: &Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<()> {
        let trail = Trail::in_memory(&mut self.trail, &mut self.trail_extent)?;
        let read_word = |addr: u64| world.read_word(addr);
        let mut along = trail.along(limit, |addr| sites.is_own(addr), read_word);
        let read = |addr: u64| Some(read_word(addr));
        let ended = visit(*start, stack, &mut world.rules(), read, &mut along);
        let (trail, found) = along.finish(ended)?;
        if self.epoch != epoch(world, limit) {
            return None;
        }
        let site = sites.find(found.hash)?;
        let mut records =
            Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)?;
        add_record(&mut records, &trail, &found, *start, site, stack, world);
        Some(())
    }

    /// Begins a new epoch: nothing that is remembered holds in it.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, stack: &StackBounds, epoch: u64) {
        self.epoch = epoch;
        self.set_uses_records(self.uses_records);
        self.stack = *stack;
        self.trail_extent = trail::Extent::EMPTY;
        if let Some(mut records) =
            Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
        {
            records.clear();
        }
    }

    /// Maps the first memory of a thread that has captured often enough.
    #[cold]
    #[inline(never)]
    fn gets_memory(&mut self) -> bool {
        // Asked for again after as many captures as came without.
        let n = self.counts.n_plain;
        if n < N_BEFORE_MEMORY.into() || !n.is_power_of_two() || self.is_retired {
            return false;
        }
        // Both or none.
        let (Some(trail), Some(records)) =
            (Pages::map(trail::N_WORDS, 1), Pages::map(LEVELS[0], 1))
        else {
            return false;
        };
        self.trail = trail;
        self.trail_extent = trail::Extent::EMPTY;
        self.use_records(records);
        true
    }

    fn use_records(&mut self, records: Pages) {
        self.records = records;
        self.guess_mask = GuessMask::of(self.records.len()).unwrap_or(GuessMask::NONE);
        self.hints = Hints::NONE;
        self.records_extent = records::Extent::EMPTY;
        self.growth = Growth::since(0, self.n_hits());
        self.n_skipped_a_record = 0;
        self.set_uses_records(true);
    }

    /// Decides whether records are used, and whether there is room for enough of them.
    #[cold]
    #[inline(never)]
    fn judge_records(&mut self) {
        let n_hits = self.n_hits().wrapping_sub(self.growth.n_hits);
        let n_misses = self.growth.n_misses;
        let comes_again = self.growth.comes_again();
        let is_full = self.is_full() || comes_again && self.records_extent.n_turns() != 0;
        self.growth = Growth::since(self.records_extent.n_turns(), self.n_hits());
        // New records cost, and drive out older ones. Where stacks seldom come again in time, only few
        // are let in: those stay long enough to be of use.
        if n_hits >= n_misses.saturating_mul(2) {
            self.n_skipped_a_record /= 2;
        } else if self.uses_records {
            let n_skipped = self.n_skipped_a_record.saturating_mul(2).saturating_add(1);
            self.n_skipped_a_record = n_skipped.min(MAX_SKIPPED);
        }
        // The first room is too small to tell what comes again from what does not.
        let is_too_small = self.level == 0 && n_misses >= self.n_walks_a_judgement();
        if (is_full || is_too_small)
            && n_misses >= N_MISSES_TO_GROW
            && let Some(&n_hits_a_miss) = N_HITS_A_MISS.get(self.level)
            && n_misses.saturating_mul(n_hits_a_miss) > n_hits
            && (self.n_skipped_a_record < 3 || comes_again || is_too_small)
            && let Some(&len) = LEVELS.get(self.level.wrapping_add(1))
            && let Some(records) = Pages::map(len, 2)
        {
            self.level = self.level.wrapping_add(1);
            return self.use_records(records);
        }
        // Looking for records costs, too. What a hit saves is the walk.
        let uses_records = if self.uses_records {
            let has_room = comes_again && self.records_extent.n_turns() == 0;
            has_room || records_pay(n_hits, n_misses, self.choice.mean_cycles())
        } else {
            self.n_judged_without = self.n_judged_without.wrapping_add(1);
            self.n_judged_without.is_multiple_of(N_JUDGED_WITHOUT)
        };
        self.set_uses_records(uses_records);
    }

    fn set_uses_records(&mut self, uses_records: bool) {
        // With an empty memory there is nothing to be read (I2).
        let uses_records = uses_records && GuessMask::of(self.records.len()).is_some();
        self.uses_records = uses_records;
        self.recall_generation = if uses_records { self.epoch >> 32 } else { NO_GENERATION };
    }

    fn n_walks_a_judgement(&self) -> u64 {
        N_WALKS_A_JUDGEMENT.get(self.level).copied().unwrap_or(0)
    }

    /// Whether all room for records was used up since it was last decided how they are used.
    fn is_full(&self) -> bool {
        self.records_extent.n_turns() != self.growth.n_turns
    }

    fn n_hits(&self) -> u64 {
        let n_hits = N_HITS_LEFT.wrapping_sub(self.n_hits_left);
        self.n_hits_before.wrapping_add_signed(n_hits)
    }

    /// Lets go of all memory, and takes none again: to be called when the thread is about to end. Some of it is kept
    /// for other threads' caches.
    ///
    /// Captures go on being right, by a walk each.
    pub fn retire(&mut self) {
        let (n_hits_before, counts) = (self.n_hits(), self.counts);
        *self = Self { is_retired: true, n_hits_before, counts, ..Self::new() };
    }

    /// Returns how the captures so far were answered.
    pub fn counts(&self) -> Counts {
        Counts { n_hits: self.n_hits(), ..self.counts }
    }

    /// Whether the invariants of what is remembered hold.
    #[cfg(test)]
    pub(crate) fn is_consistent(&mut self) -> bool {
        let is_trail_consistent = self.trail.is_empty()
            || Trail::in_memory(&mut self.trail, &mut self.trail_extent)
                .is_some_and(|trail| trail.is_consistent());
        let records =
            Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints);
        is_trail_consistent && records.is_none_or(|records| records.is_consistent())
    }

    /// Returns the bytes mapped for this cache.
    pub fn memory(&self) -> usize {
        self.trail.len().saturating_add(self.records.len()).saturating_mul(8)
    }
}

impl Default for SiteCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether records saved time that held so often, and so often did not, where a walk takes so many cycles, or 0 if that
/// is not known.
fn records_pay(n_hits: u64, n_misses: u64, walk_cycles: u64) -> bool {
    let walk_cycles = if walk_cycles == 0 { 8 * HIT_CYCLES } else { walk_cycles };
    let are_few = n_hits >= n_misses.saturating_mul(N_HITS_A_MISS_OF_FEW);
    let hit_cycles = if are_few { 0 } else { HIT_CYCLES };
    let saved = n_hits.saturating_mul(walk_cycles.saturating_sub(hit_cycles));
    saved >= n_misses.saturating_mul(MISS_CYCLES)
}

#[inline(always)]
fn epoch(world: &impl World, limit: usize) -> u64 {
    if !is_needed(Check::Epoch) {
        return 0;
    }
    u64::from(world.generation()) << 32 | limit as u64 & 0xFFFF_FFFF
}

#[inline(always)]
fn start_of(registers: Registers) -> Start {
    let Place { key, sp, fp } = Place::of(registers);
    Start { key, sp, fp }
}

/// Makes a record of the stack that the last walk found.
#[inline(always)]
fn add_record(
    records: &mut Records<'_>,
    trail: &Trail<'_>,
    found: &Found,
    start: Registers,
    site: NonZeroU32,
    stack: &StackBounds,
    world: &impl World,
) {
    let limit_slot = match found.end {
        End::Limit => Some(trail.limit_slot(found)),
        _ => None,
    };
    let outcome = Outcome {
        start: start_of(start),
        site: site.get(),
        fp_counts: trail.depends_on_fp(),
        limit_slot,
    };
    records.insert(outcome, stack, world, trail.words(found));
}

/// Forgets all rules if code on the stack is not what it was when its rules were learned.
#[cold]
#[inline(never)]
fn look_for_unloaded(world: &impl World, start: &Registers, stack: &StackBounds) {
    let mut call_addrs = [0; MAX_LIMIT + trail::MAX_OWN];
    let read = |addr: u64| Some(world.read_word(addr));
    let walk = walk(*start, stack, &mut world.rules(), read, &mut call_addrs);
    world.look_for_unloaded(call_addrs.iter().take(walk.len).copied());
}

/// Gives a number to a stack that a walk has left on the trail.
#[cold]
#[inline(never)]
fn insert(
    call_addrs: CallAddrs<'_>,
    hash: StackHash,
    end: End,
    sites: &impl Sites,
) -> Option<NonZeroU32> {
    let len = call_addrs.len();
    sites.with_buffer(len, |buffer| {
        let buffer = buffer.get_mut(..len)?;
        buffer.iter_mut().zip(call_addrs.iter()).for_each(|(place, addr)| *place = addr);
        sites.insert(hash, buffer, end)
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_pay_by_what_a_walk_takes_and_how_often_they_hold() {
        // A loop that asks for one frame: hardly any walks, and those short.
        assert!(records_pay(4096, 1, 50));
        // Many stacks of one frame, which do not all come again in time.
        assert!(!records_pay(4000, 1000, 50));
        // A parser with deep stacks, and one that comes upon new ones all the time.
        assert!(records_pay(4000, 6000, 450));
        assert!(!records_pay(1000, 6000, 450));
        // Before a walk was timed.
        assert!(records_pay(4000, 6000, 0));
    }
}
