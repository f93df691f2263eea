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
//!
//! # Cost
//!
//! No memory for the first captures of a thread, then 20 KiB, then what its misses ask for up to
//! 1 MiB, within the budget of the process.

use crate::bounds::StackBounds;
use crate::entry::{here, read_word};
use crate::hash::{StackHash, Sum};
use crate::pages::Pages;
use crate::records::{self, Records, Start};
use crate::rule::{End, Registers};
use crate::site::Sites;
use crate::table::{ProcessRules, generation};
use crate::trail::{self, Found, MAX_LIMIT, Trail};
use crate::walker::{Place, Visitor, visit, walk};
use core::marker::PhantomData;
use core::num::NonZeroU32;

/// Captures of a thread before it gets memory: many threads do not live longer.
const N_BEFORE_MEMORY: u32 = 32;
/// Words of the memory that trails are in, the table of stacks seen before included.
const TRAIL_WORDS: usize = trail::N_WORDS + N_SEEN;
const N_SEEN: usize = 128;
/// Words of records, level by level.
const LEVELS: [usize; 4] = [992, 8 << 10, 32 << 10, 128 << 10];

/// What one thread remembers of its earlier captures.
///
/// Made by and for one thread; it goes with one [`Sites`].
pub struct SiteCache {
    /// Generation of the rules, and the limit.
    epoch: u64,
    uses_records: bool,
    index_len: usize,
    records: Pages,
    records_extent: records::Extent,
    n_hits: u64,
    trail: Pages,
    trail_extent: trail::Extent,
    stack: StackBounds,
    level: usize,
    counts: Counts,
    record_trial: Trial,
    trail_trial: Trial,
    growth: Growth,
    /// Words of another thread's stack may not be there to be compared.
    _of_this_thread: PhantomData<*mut ()>,
}

/// How the captures of a thread were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// By a record.
    pub n_hits: u64,
    /// By a walk that met the trail of the last one.
    pub n_joined: u64,
    /// By a walk of the whole stack, with a trail left.
    pub n_walked: u64,
    /// By a walk of the whole stack, of which nothing is kept.
    pub n_plain: u64,
}

/// Whether something pays, found out again and again.
#[derive(Clone, Copy)]
struct Trial {
    /// Captures to go without it.
    n_off: u32,
    /// What [`Self::n_off`] is set to next.
    next_off: u32,
    n_tried: u32,
    n_gained: u32,
}

impl Trial {
    const LEN: u32 = 256;
    const FIRST_OFF: u32 = 1 << 10;
    const MAX_OFF: u32 = 1 << 14;

    const NEW: Self = Self { n_off: 0, next_off: Self::FIRST_OFF, n_tried: 0, n_gained: 0 };

    /// Whether this capture goes without.
    #[inline(always)]
    fn is_off(&mut self) -> bool {
        self.n_off = self.n_off.saturating_sub(1);
        self.n_off != 0
    }

    /// Counts a try that cost `cost` and gained `gain`; if the sum of gains then is less than that of
    /// the costs, there will be none for a while.
    #[inline(always)]
    fn count(&mut self, cost: u32, gain: u32) {
        self.n_tried = self.n_tried.wrapping_add(cost);
        self.n_gained = self.n_gained.wrapping_add(gain);
        if self.n_tried >= Self::LEN {
            if self.n_gained < self.n_tried {
                self.n_off = self.next_off;
                self.next_off = self.next_off.saturating_mul(2).min(Self::MAX_OFF);
            } else {
                self.next_off = Self::FIRST_OFF;
            }
            (self.n_tried, self.n_gained) = (0, 0);
        }
    }
}

/// When records get more memory.
#[derive(Clone, Copy)]
struct Growth {
    n_turns: u32,
    n_hits: u64,
    n_misses: u64,
}

impl SiteCache {
    /// Makes an empty cache, which takes no memory before it is used.
    pub const fn new() -> Self {
        Self {
            epoch: u64::MAX,
            uses_records: false,
            index_len: 0,
            records: Pages::empty(),
            records_extent: records::Extent::EMPTY,
            n_hits: 0,
            trail: Pages::empty(),
            trail_extent: trail::Extent::EMPTY,
            stack: StackBounds::UNKNOWN,
            level: 0,
            counts: Counts { n_hits: 0, n_joined: 0, n_walked: 0, n_plain: 0 },
            record_trial: Trial::NEW,
            trail_trial: Trial::NEW,
            growth: Growth { n_turns: 0, n_hits: 0, n_misses: 0 },
            _of_this_thread: PhantomData,
        }
    }

    /// Returns the site of the caller's stack, at most `limit` frames of it, those that are the tool's
    /// own left out; `None` if the table of sites has no room.
    ///
    /// `stack` are the bounds of the current thread's own stack; on another stack (a signal's, a
    /// coroutine's) the stack is walked each time.
    ///
    /// **Cost**: at 25 frames 12 to 20 ns where a record holds, 30 to 60 where the walk meets the trail
    /// of the last one, 90 otherwise.
    #[inline(always)]
    pub fn site_of_caller(
        &mut self,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        self.site(here(), stack, limit, sites)
    }

    #[inline(always)]
    fn site(
        &mut self,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        if self.uses_records && self.epoch == epoch(limit) {
            let start = start_of(start);
            if let Some(site) = records::find(&self.records, self.index_len, start, read_word) {
                self.n_hits = self.n_hits.wrapping_add(1);
                return NonZeroU32::new(site);
            }
        }
        self.site_by_walk(start, stack, limit, sites)
    }

    #[inline(never)]
    fn site_by_walk(
        &mut self,
        start: Registers,
        stack: &StackBounds,
        limit: usize,
        sites: &impl Sites,
    ) -> Option<NonZeroU32> {
        if self.epoch != epoch(limit) || self.stack != *stack {
            self.renew(stack, limit);
        }
        let remembers = !self.trail.is_empty() || self.gets_memory();
        if !remembers
            || limit > MAX_LIMIT
            || limit == 0
            || !stack.contains_word(start.sp)
            || self.trail_trial.is_off()
        {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            return site_without_cache(start, stack, limit, sites);
        }
        let (memory, seen) = self.trail.split_at_mut_checked(trail::N_WORDS)?;
        let trail = Trail::in_memory(memory, &mut self.trail_extent)?;
        let mut along = trail.along(limit, |addr| sites.is_own(addr), read_word);
        let read = |addr: u64| Some(read_word(addr));
        let ended = visit(start, stack, &mut ProcessRules::new(), read, &mut along);
        let Some((trail, found)) = along.finish(ended) else {
            self.counts.n_plain = self.counts.n_plain.wrapping_add(1);
            return site_without_cache(start, stack, limit, sites);
        };
        let n_frames = found.len() as u32;
        let n_saved = n_frames.saturating_sub(found.n_fresh as u32);
        // A frame that is met costs a third of one that is walked and recorded.
        self.trail_trial.count(1, u32::from(n_saved.saturating_mul(4) > n_frames));
        let count =
            if n_saved == 0 { &mut self.counts.n_walked } else { &mut self.counts.n_joined };
        *count = count.wrapping_add(1);

        let site = match sites.find(found.hash) {
            Some(site) => site,
            None => insert(&trail, &found, sites)?,
        };
        // A stack is worth a record when it comes for the second time.
        let mark = found.hash.get() ^ start.sp;
        let is_seen = match seen.get_mut(mark as usize % N_SEEN) {
            Some(place) => core::mem::replace(place, mark) == mark,
            None => false,
        };
        if is_seen
            && let Some(mut records) =
                Records::in_memory(&mut self.records, &mut self.records_extent)
        {
            let limit_slot = match found.end {
                End::Limit => Some(trail.limit_slot(&found)),
                _ => None,
            };
            let words = |word: &mut dyn FnMut(u64, u64) -> bool| trail.for_each_word(&found, word);
            let fp_counts = trail.depends_on_fp();
            records.insert(start_of(start), site.get(), fp_counts, limit_slot, words);
        }
        self.look_after_records();
        Some(site)
    }

    /// Begins a new epoch: nothing that is remembered holds in it.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, stack: &StackBounds, limit: usize) {
        self.epoch = epoch(limit);
        self.stack = *stack;
        self.trail_extent = trail::Extent::EMPTY;
        if let Some(mut records) = Records::in_memory(&mut self.records, &mut self.records_extent) {
            records.clear();
        }
    }

    /// Maps the first memory of a thread that has captured often enough.
    #[cold]
    #[inline(never)]
    fn gets_memory(&mut self) -> bool {
        // Asked for again after as many captures as came without.
        let n = self.counts.n_plain;
        if n < N_BEFORE_MEMORY.into() || !n.is_power_of_two() {
            return false;
        }
        let Some(trail) = Pages::map(TRAIL_WORDS, 1) else { return false };
        self.trail = trail;
        self.trail_extent = trail::Extent::EMPTY;
        if let Some(records) = Pages::map(LEVELS[0], 1) {
            self.use_records(records);
        }
        true
    }

    fn use_records(&mut self, records: Pages) {
        self.records = records;
        self.index_len = records::index_len(self.records.len());
        self.records_extent = records::Extent::EMPTY;
        self.growth = Growth { n_turns: 0, n_hits: self.n_hits, n_misses: 0 };
        self.uses_records = true;
    }

    /// Decides, now and then, whether records are used, and whether there is room for enough of them.
    #[inline(always)]
    fn look_after_records(&mut self) {
        self.growth.n_misses = self.growth.n_misses.wrapping_add(1);
        if self.growth.n_misses % 256 == 0 || self.records_extent.n_turns() != self.growth.n_turns {
            self.judge_records();
        }
    }

    #[cold]
    #[inline(never)]
    fn judge_records(&mut self) {
        let n_hits = self.n_hits.wrapping_sub(self.growth.n_hits);
        let n_misses = self.growth.n_misses;
        let is_full = self.records_extent.n_turns() != self.growth.n_turns;
        self.growth = Growth { n_turns: self.records_extent.n_turns(), n_hits: self.n_hits, n_misses: 0 };
        if is_full
            && n_misses.saturating_mul(32) > n_hits
            && let Some(&len) = LEVELS.get(self.level.wrapping_add(1))
            && let Some(records) = Pages::map(len, 2)
        {
            self.level = self.level.wrapping_add(1);
            self.use_records(records);
        }
        let _ = n_misses;
    }

    /// Returns how the captures so far were answered.
    pub fn counts(&self) -> Counts {
        Counts { n_hits: self.n_hits, ..self.counts }
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

#[inline(always)]
fn epoch(limit: usize) -> u64 {
    u64::from(generation()) << 32 | limit as u64 & 0xFFFF_FFFF
}

#[inline(always)]
fn start_of(registers: Registers) -> Start {
    let Place { key, sp, fp } = Place::of(registers);
    Start { key, sp, fp }
}

/// Gives a number to a stack that a walk has left on the trail.
#[cold]
#[inline(never)]
fn insert(trail: &Trail<'_>, found: &Found, sites: &impl Sites) -> Option<NonZeroU32> {
    let len = found.len();
    sites.with_buffer(len, |buffer| {
        let call_addrs = buffer.get_mut(..len)?;
        trail.copy_to(found, call_addrs);
        sites.insert(found.hash, call_addrs, found.end)
    })?
}

/// Hashes the frames of a walk, those of the tool's own at its beginning left out.
struct Hashed<O> {
    limit: usize,
    is_own: O,
    is_in_own: bool,
    n_own: usize,
    len: usize,
    sum: Sum,
}

impl<O: Fn(u64) -> bool> Visitor for Hashed<O> {
    #[inline(always)]
    fn frame(&mut self, place: &mut Place) -> bool {
        if self.is_in_own {
            self.is_in_own = (self.is_own)(place.call_addr());
            if self.is_in_own {
                self.n_own = self.n_own.wrapping_add(1);
                return true;
            }
        }
        if self.len == self.limit {
            return false;
        }
        self.len = self.len.wrapping_add(1);
        self.sum.push(place.call_addr());
        true
    }
}

/// Walks the whole stack and looks its hash up.
#[inline(always)]
fn site_without_cache(
    start: Registers,
    stack: &StackBounds,
    limit: usize,
    sites: &impl Sites,
) -> Option<NonZeroU32> {
    let mut hashed = Hashed {
        limit,
        is_own: |addr| sites.is_own(addr),
        is_in_own: true,
        n_own: 0,
        len: 0,
        sum: Sum::new(),
    };
    let read = |addr: u64| Some(read_word(addr));
    let ended = visit(start, stack, &mut ProcessRules::new(), read, &mut hashed);
    let end = ended.map_or(End::Limit, |(end, _)| end);
    let hash = hashed.sum.finish(end);
    if hashed.len != 0
        && let Some(site) = sites.find(hash)
    {
        return Some(site);
    }
    insert_by_walk(start, stack, limit, hashed.n_own, sites)
}

/// Walks the stack once more, to give it a number.
#[cold]
#[inline(never)]
fn insert_by_walk(
    start: Registers,
    stack: &StackBounds,
    limit: usize,
    n_own: usize,
    sites: &impl Sites,
) -> Option<NonZeroU32> {
    let len = limit.saturating_add(n_own);
    sites.with_buffer(len, |buffer| {
        let buffer = buffer.get_mut(..len)?;
        let read = |addr: u64| Some(read_word(addr));
        let walk = walk(start, stack, &mut ProcessRules::new(), read, buffer);
        let walked = buffer.get(..walk.len)?;
        // A stack that ends inside the tool was cut there: better those frames than none.
        let n_own = if n_own == walk.len { 0 } else { n_own };
        let mut stack = walked.get(n_own..)?;
        let mut end = walk.end;
        if stack.len() > limit {
            stack = stack.get(..limit)?;
            end = End::Limit;
        }
        let hash = StackHash::of(stack, end);
        sites.find(hash).or_else(|| sites.insert(hash, stack, end))
    })?
}
