//! From the state of a thread to the site of its stack.
//!
//! Where one frame is asked for, its return address [tells](super::one_frame) the site. Else a capture tries three ways,
//! each dearer than the one before:
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
//!   What is remembered of one frame is so under the rules of its own generation, and is void with all else.
//! - **I2** `recall_generation` is one that rules may have only if there are records, whose guesses `guess_mask` is
//!   for.
//!
//! # Cost
//!
//! No memory for the first captures of a thread, then 24 KiB (8 for one frame), then what its misses ask for up to
//! 1 MiB; up to 64 MiB where a program does over and over again what it does by tens of thousands of stacks. All
//! within the budget of the process.
#![expect(unsafe_code, reason = "recollects from records that it knows to be there")]

mod judging;

use crate::bounds::StackBounds;
use crate::counts::Counts;
use crate::hash::StackHash;
use crate::native::choice::Choice;
use crate::native::entry::{Process, here};
use crate::native::growth::Growth;
use crate::native::guesses::{GuessMask, Hints, Recollection};
use crate::native::one_frame::OneFrame;
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

/// Hits after which one is answered by a walk, and plain walks after which one looks whether the code
/// is still what it was.
const N_HITS_A_WALK: u64 = 4096;
const N_HITS_LEFT: i64 = N_HITS_A_WALK as i64 - 1;
/// Walks after which one looks whether the code is still what it was.
const N_WALKS_A_LOOK: u64 = 1024;

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
    one_frame: OneFrame,
    stack: StackBounds,
    level: usize,
    /// Stacks worth a record that are passed over for each that gets one, less than a power of two.
    n_skipped_a_record: u32,
    /// How often it was decided to go on without records.
    n_judged_without: u32,
    /// Decisions before large records are tried once more, how often they were in vain, and decisions one after another
    /// by which those that there are are of no use.
    n_judged_before_large: u32,
    n_large_in_vain: u32,
    n_useless: u32,
    /// Walks since the last decision at which many stacks were new.
    n_walks_over_again: u64,
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
            one_frame: OneFrame::EMPTY,
            stack: StackBounds::UNKNOWN,
            level: 0,
            n_skipped_a_record: 0,
            n_judged_without: 0,
            n_judged_before_large: 0,
            n_large_in_vain: 0,
            n_useless: 0,
            n_walks_over_again: 0,
            counts: Counts { n_hits: 0, n_joined: 0, n_walked: 0, n_plain: 0 },
            choice: Choice::NEW,
            growth: Growth::NEW,
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
        // One after the other: as alternatives of one expression they take ten instructions more.
        let is_of_epoch = self.epoch == epoch(world, limit);
        let recalled = if is_of_epoch { self.recall_in(world, start) } else { None };
        if recalled.is_some() {
            return recalled;
        }
        let recalled = if is_of_epoch { self.recall_one_frame_in(world, start) } else { None };
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

    /// Returns the site of one frame, where so many are asked for, if its place of call tells it.
    #[inline(always)]
    pub(crate) fn recall_one_frame_in(
        &mut self,
        world: &impl World,
        start: Registers,
    ) -> Option<NonZeroU32> {
        let site = self.one_frame.recall(world, start, &self.stack)?;
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

    /// Counts a record that held, or one frame that was told; `false` now and then, when a walk is to look whether the code is still what it was.
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
        // What begins in the tool's own frames, or elsewhere, is not told by where it begins.
        if limit == 1 && stack.contains_word(start.sp) && !sites.is_own(start.call_addr()) {
            return self.site_of_one_frame(world, start, sites);
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
        // What a record is made of lies on a trail.
        let is_filling = self.growth.is_filling;
        let is_timed = !is_filling && self.choice.begin();
        let begun = if is_timed { world.cycles() } else { 0 };
        let site = if self.choice.is_trail || is_filling {
            self.site_by_trail(world, start, stack, limit, sites)
        } else {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            let found = site_without_cache(world, start, stack, limit, self.last_walked, sites);
            if let Some(site) = found
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
        let is_judged = self.is_to_judge();
        if is_judged || self.growth.n_misses.is_multiple_of(N_WALKS_A_LOOK) {
            look_for_unloaded(world, start, stack);
        }
        if is_judged {
            self.judge_records();
        }
        site
    }

    /// Finds the site of one frame, where the stack begins in the program's code, and notes by what it is told.
    #[inline(never)]
    fn site_of_one_frame(
        &mut self,
        world: &impl World,
        start: &Registers,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        let stack = &self.stack;
        self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
        if self.is_checkup || self.counts.n_plain.is_multiple_of(N_WALKS_A_LOOK) {
            look_for_unloaded(world, start, stack);
        }
        if !self.one_frame.has_memory() && self.is_time_for_memory() {
            self.one_frame.map_first();
        }
        let generation = world.generation();
        let site = site_without_cache(world, start, stack, 1, self.last_walked, sites)?;
        self.last_walked = site.get();
        if self.epoch == epoch(world, 1) {
            self.one_frame.note(world, generation, *start, stack, site);
        }
        Some(site)
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
        let Some((mut trail, found)) = found.filter(|_| self.epoch == epoch(world, limit)) else {
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
                let site = insert(trail.call_addrs(&found), found.hash, found.end, sites);
                let Some(site) = site else {
                    self.growth.meets_new();
                    return None;
                };
                site
            }
        };
        let is_known = self.growth.knows(site);
        if self.uses_records
            && !self.is_checkup
            && self.growth.n_misses as u32 & self.n_skipped_a_record == 0
            && let Some(mut records) =
                Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
            && self.growth.lets_in(&mut records, site, start.sp, is_known)
        {
            add_record(&mut records, &mut trail, &found, *start, site, stack, world);
        }
        Some(site)
    }

    /// Whether a stack that was walked without a trail is worth a record and is to get one now.
    #[inline(always)]
    fn lets_in(&mut self, site: NonZeroU32, sp: u64) -> bool {
        let is_known = self.growth.knows(site);
        self.uses_records
            && !self.is_checkup
            && self.growth.n_misses as u32 & self.n_skipped_a_record == 0
            && Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
                .is_some_and(|mut records| self.growth.lets_in(&mut records, site, sp, is_known))
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
        let (mut trail, found) = along.finish(ended)?;
        if self.epoch != epoch(world, limit) {
            return None;
        }
        let site = sites.find(found.hash)?;
        let mut records =
            Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)?;
        add_record(&mut records, &mut trail, &found, *start, site, stack, world);
        Some(())
    }

    /// Begins a new epoch: nothing that is remembered holds in it.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, stack: &StackBounds, epoch: u64) {
        let (was_one_frame, is_one_frame) = (is_of_one_frame(self.epoch), is_of_one_frame(epoch));
        self.epoch = epoch;
        self.stack = *stack;
        if is_one_frame != was_one_frame {
            self.exchange_memory(is_one_frame);
        }
        self.set_uses_records(self.uses_records);
        self.trail_extent = trail::Extent::EMPTY;
        if let Some(mut records) =
            Records::in_memory(&mut self.records, &mut self.records_extent, &mut self.hints)
        {
            records.clear();
        }
        self.begin_with_none();
        self.one_frame.clear();
    }

    /// Forgets all that is remembered, as if rules had been forgotten: to be called after a capture whose limit may not
    /// have been that of all captures any more when it began.
    #[cold]
    pub fn forget(&mut self) {
        self.epoch |= NO_GENERATION << 32;
        self.recall_generation = NO_GENERATION;
        self.one_frame.clear();
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
        let n_words = self.trail.len().saturating_add(self.records.len());
        n_words.saturating_mul(8).saturating_add(self.one_frame.memory())
    }
}

impl Default for SiteCache {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(always)]
fn epoch(world: &impl World, limit: usize) -> u64 {
    if !is_needed(Check::Epoch) {
        return 0;
    }
    u64::from(world.generation()) << 32 | limit.min(u32::MAX as usize) as u64
}

const fn is_of_one_frame(epoch: u64) -> bool {
    epoch as u32 == 1
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
    trail: &mut Trail<'_>,
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
    if let Some(words) = trail.words(found) {
        records.insert(outcome, stack, world, words);
    }
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
