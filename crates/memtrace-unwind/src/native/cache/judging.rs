//! What is decided about records, and from what: whether they are used, which stacks get one, and how much memory
//! there is for them.
//!
//! # Mechanism
//!
//! Memory grows by what is missing: where records are driven out before they are needed, and where of all captures so
//! many walk by stacks that were met before that room for these would make a difference. Up to 1 MiB either will do.
//! *Large* records, of 8 and of 64 MiB, are for the second case only: a program that does over and over again what it
//! does by thousands or tens of thousands of stacks, and hardly anything new, and whose walks take longer than a record
//! that holds. (One that was last looked at long ago is in no cache of the processor, and takes as long as a walk.) There
//! each stack that was met before gets a record, as long as there is room. Where that much memory was in vain, because there
//! are more stacks still, it is given back, and not asked for again for a while, longer each time.

use crate::native::cache::{N_HITS_A_WALK, NO_GENERATION, SiteCache};
use crate::native::growth::Growth;
use crate::native::guesses::{GuessMask, Hints, OFFSET_BITS};
use crate::native::one_frame::OneFrame;
use crate::native::pages::{Pages, Share};
use crate::native::{records, trail};

/// Captures of a thread before it gets memory: many threads do not live longer.
const N_BEFORE_MEMORY: u32 = 32;
/// Words of records, level by level.
const LEVELS: [usize; 6] = [1 << 10, 16 << 10, 32 << 10, 128 << 10, 1 << 20, 1 << OFFSET_BITS];
/// The first of those that are *large*.
const FIRST_LARGE: usize = 4;
/// There is to be a level above if not so many captures are answered by a record for each that is not.
const N_HITS_A_MISS: [u64; 3] = [256, 32, 32];
/// Decisions between large records that were in vain and the next attempt, at first, level by level: by how much there was to
/// fill. Twice as many each time.
const N_JUDGED_BETWEEN: [u32; 2] = [16, 128];
/// A thread has walked once for so many words of large records before it gets them, and so many times since the last
/// decision at which many stacks were new.
const N_WORDS_A_WALK: u64 = 64;
const N_WALKS_OVER_AGAIN: u64 = 16 << 10;
/// Decisions one after another by which large records are of no use, before they are given back.
const N_USELESS: u32 = 4;
/// Fewer say nothing.
const N_MISSES_TO_GROW: u64 = 64;

/// The most stacks worth a record that are passed over for each that gets one, when most do not come
/// again.
const MAX_SKIPPED: u32 = 15;
/// What a record that holds takes, and what it costs to find none that does, in cycles of the clock: with all that it
/// drives out of the processor's caches. (Half as much, and a parser of Rust where four in ten held took 6 % longer.)
const HIT_CYCLES: u64 = 100;
const MISS_CYCLES: u64 = 200;
/// Records are few, and drive out nothing, if so many hold for each time that none does: then finding one takes no longer
/// than what leads to a walk. (A loop's stacks of one frame, walked in some 50 cycles, when they still needed records had none most
/// of the time, and took twice as long.)
const N_HITS_A_MISS_OF_FEW: u64 = 64;
/// Walks after which it is decided anew how records are used, level by level: as many as it takes for the stacks
/// that there is room for, if they are not very shallow, to come twice.
const N_WALKS_A_JUDGEMENT: [u64; 6] = [256, 1024, 2048, 4096, 16 << 10, 128 << 10];
/// Decisions that records are left out for.
const N_JUDGED_WITHOUT: u32 = 16;

impl SiteCache {
    /// Maps the first memory of a thread that has captured often enough.
    #[cold]
    #[inline(never)]
    pub(super) fn gets_memory(&mut self) -> bool {
        self.is_time_for_memory() && self.map_first()
    }

    /// Whether the thread has captured often enough; it is to be asked again after as many captures as came without.
    pub(super) const fn is_time_for_memory(&self) -> bool {
        let n = self.counts.n_plain;
        n >= N_BEFORE_MEMORY as u64 && n.is_power_of_two() && !self.is_retired
    }

    /// Maps memory for a trail and for records.
    fn map_first(&mut self) -> bool {
        // Both or none.
        let (Some(trail), Some(records)) =
            (Pages::map(trail::N_WORDS, Share::ALL), Pages::map(LEVELS[0], Share::ALL))
        else {
            return false;
        };
        self.trail = trail;
        self.trail_extent = trail::Extent::EMPTY;
        self.use_records(records, 0);
        true
    }

    /// Gives back what the other way remembers, and maps the first memory of the way that most captures go from now
    /// on, if the thread had some.
    pub(super) fn exchange_memory(&mut self, is_one_frame: bool) {
        if is_one_frame && !self.trail.is_empty() {
            self.trail = Pages::empty();
            self.use_no_records();
            self.one_frame.map_first();
        } else if !is_one_frame && self.one_frame.has_memory() {
            self.one_frame = OneFrame::EMPTY;
            if self.trail.is_empty() {
                self.map_first();
            }
        }
    }

    fn use_records(&mut self, records: Pages, level: usize) {
        self.records = records;
        self.level = level;
        self.guess_mask = GuessMask::of(self.records.len()).unwrap_or(GuessMask::NONE);
        self.hints = Hints::NONE;
        self.records_extent = records::Extent::EMPTY;
        self.n_useless = 0;
        self.n_skipped_a_record = 0;
        self.begin_growth(is_large(level));
        self.set_uses_records(true);
    }

    /// Gives all memory of records back.
    fn use_no_records(&mut self) {
        self.use_records(Pages::empty(), 0);
    }

    /// Begins anew with what is there, of which all has become void.
    pub(super) fn begin_with_none(&mut self) {
        self.records_extent = records::Extent::EMPTY;
        self.n_skipped_a_record = 0;
        self.begin_growth(is_large(self.level) && self.uses_records);
    }

    fn begin_growth(&mut self, is_filling: bool) {
        let (extent, n_hits) = (&self.records_extent, self.n_hits());
        self.growth.begin(extent.n_turns(), extent.n_made(), n_hits, is_filling);
    }

    /// Whether it is time to decide how records are used.
    #[inline(always)]
    pub(super) fn is_to_judge(&self) -> bool {
        let is_full = self.is_full() && self.growth.n_misses >= N_MISSES_TO_GROW;
        let n_hits = self.n_hits().wrapping_sub(self.growth.n_hits);
        let are_many = self.growth.n_misses >= self.n_walks_a_judgement();
        are_many || is_full || n_hits >= N_HITS_A_WALK
    }

    /// Decides whether records are used, and whether there is room for enough of them.
    #[cold]
    #[inline(never)]
    pub(super) fn judge_records(&mut self) {
        let n_hits = self.n_hits().wrapping_sub(self.growth.n_hits);
        let since = self.growth;
        let is_full = self.is_full();
        let has_turned = self.records_extent.n_turns() != 0;
        let is_filling = is_large(self.level) && !has_turned;
        self.begin_growth(is_filling);
        self.n_walks_over_again = if since.are_hardly_new(n_hits) {
            self.n_walks_over_again.saturating_add(since.n_misses)
        } else {
            0
        };
        self.n_judged_before_large = self.n_judged_before_large.saturating_sub(1);
        // New records cost, and drive out older ones. Where stacks seldom come again in time, only few
        // are let in: those stay long enough to be of use.
        if n_hits >= since.n_misses.saturating_mul(2) {
            self.n_skipped_a_record /= 2;
        } else if self.uses_records && !is_filling {
            let n_skipped = self.n_skipped_a_record.saturating_mul(2).saturating_add(1);
            self.n_skipped_a_record = n_skipped.min(MAX_SKIPPED);
        }
        if self.is_to_grow(&since, n_hits, is_full) && self.grow().is_some() {
            return;
        }
        // Looking for records costs, too. What a hit saves is the walk.
        let made_some = self.records_extent.n_made() != since.n_made;
        let has_room = if is_filling {
            // There are stacks of which no record can be made.
            since.are_known(n_hits) && (made_some || !self.uses_records)
        } else {
            self.uses_records && since.comes_again() && !has_turned
        };
        let pays = self.uses_records && self.pay(n_hits, since.n_misses);
        let uses_records = if has_room || pays {
            true
        } else if self.uses_records {
            false
        } else {
            self.n_judged_without = self.n_judged_without.wrapping_add(1);
            self.n_judged_without.is_multiple_of(N_JUDGED_WITHOUT)
        };
        let is_of_use = pays || uses_records && made_some;
        self.n_useless = if is_of_use { 0 } else { self.n_useless.saturating_add(1) };
        let is_in_vain = has_turned && !uses_records || self.n_useless >= N_USELESS;
        if is_large(self.level) && is_in_vain {
            return self.shrink();
        }
        self.growth.is_filling &= uses_records;
        self.set_uses_records(uses_records);
    }

    /// Whether there is too little room, by what there was since that was last decided.
    fn is_to_grow(&self, since: &Growth, n_hits: u64, is_full: bool) -> bool {
        if since.n_misses < N_MISSES_TO_GROW {
            return false;
        }
        let has_turned = self.records_extent.n_turns() != 0;
        let is_tried = has_turned || !is_large(self.level) && !self.uses_records;
        if is_tried && since.are_known(n_hits) {
            let above = self.level.wrapping_add(1);
            return !is_large(above) || self.n_judged_before_large == 0 && self.is_worth(above);
        }
        let Some(&n_hits_a_miss) = N_HITS_A_MISS.get(self.level) else { return false };
        if since.n_misses.saturating_mul(n_hits_a_miss) <= n_hits {
            return false;
        }
        let comes_again = since.comes_again();
        // The first room is too small to tell what comes again from what does not.
        let is_too_small = self.level == 0 && since.n_misses >= self.n_walks_a_judgement();
        (is_full || comes_again && has_turned || is_too_small)
            && (self.n_skipped_a_record < 3 || comes_again || is_too_small)
    }

    fn pay(&self, n_hits: u64, n_misses: u64) -> bool {
        records_pay(n_hits, n_misses, self.choice.mean_cycles(), is_large(self.level))
    }

    /// Whether the thread walks so much, and so long, that large records may be worth their memory.
    fn is_worth(&self, level: usize) -> bool {
        let counts = &self.counts;
        let n_walks =
            counts.n_joined.saturating_add(counts.n_walked).saturating_add(counts.n_plain);
        let n_words = LEVELS.get(level).copied().unwrap_or(0);
        let walk_cycles = self.choice.mean_cycles();
        n_walks >= n_words as u64 / N_WORDS_A_WALK
            && self.n_walks_over_again >= N_WALKS_OVER_AGAIN
            && (walk_cycles == 0 || walk_cycles > HIT_CYCLES)
    }

    /// Goes on with records of the next level, of which there are none yet; `None` if there is no memory.
    fn grow(&mut self) -> Option<()> {
        let level = self.level.wrapping_add(1);
        let share = if is_large(level) { Share::SOME } else { Share::HALF };
        let records = Pages::map(*LEVELS.get(level)?, share);
        if records.is_none() && is_large(level) {
            // To ask takes from others what is kept for them.
            self.n_judged_before_large = n_judged_between(level);
        }
        self.use_records(records?, level);
        Some(())
    }

    /// Gives large records back, which were in vain, and begins anew with as much memory as others may have.
    fn shrink(&mut self) {
        let n_times = 1u32.checked_shl(self.n_large_in_vain).unwrap_or(u32::MAX);
        let n_judged = n_judged_between(self.level).saturating_mul(n_times);
        self.n_judged_before_large = self.n_judged_before_large.max(n_judged);
        self.n_large_in_vain = self.n_large_in_vain.saturating_add(1);
        // First of all, since there may be no room for both.
        self.use_no_records();
        let levels = LEVELS.iter().enumerate().take(FIRST_LARGE).rev();
        let mut records =
            levels.filter_map(|(level, &len)| Some((level, Pages::map(len, Share::ALL)?)));
        if let Some((level, records)) = records.next() {
            self.use_records(records, level);
        }
    }

    pub(super) fn set_uses_records(&mut self, uses_records: bool) {
        // With an empty memory there is nothing to be read (I2).
        let uses_records = uses_records && GuessMask::of(self.records.len()).is_some();
        self.uses_records = uses_records;
        self.recall_generation = if uses_records { self.epoch >> 32 } else { NO_GENERATION };
    }

    fn n_walks_a_judgement(&self) -> u64 {
        // Without records nothing has to come twice.
        let level = if self.uses_records { self.level } else { self.level.min(FIRST_LARGE) };
        N_WALKS_A_JUDGEMENT.get(level).copied().unwrap_or(0)
    }

    /// Whether all room for records was used up since it was last decided how they are used.
    fn is_full(&self) -> bool {
        self.records_extent.n_turns() != self.growth.n_turns
    }
}

fn n_judged_between(level: usize) -> u32 {
    N_JUDGED_BETWEEN.get(level.wrapping_sub(FIRST_LARGE)).copied().unwrap_or(0)
}

const fn is_large(level: usize) -> bool {
    level >= FIRST_LARGE
}

/// Whether records saved time that held so often, and so often did not, where a walk takes so many cycles, or 0 if that
/// is not known.
fn records_pay(n_hits: u64, n_misses: u64, walk_cycles: u64, are_large: bool) -> bool {
    let walk_cycles = if walk_cycles == 0 { 8 * HIT_CYCLES } else { walk_cycles };
    let are_few = !are_large && n_hits >= n_misses.saturating_mul(N_HITS_A_MISS_OF_FEW);
    let hit_cycles = if are_few { 0 } else { HIT_CYCLES };
    let saved = n_hits.saturating_mul(walk_cycles.saturating_sub(hit_cycles));
    saved >= n_misses.saturating_mul(MISS_CYCLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_pay_by_what_a_walk_takes_and_how_often_they_hold() {
        // A loop that asks for one frame: hardly any walks, and those short.
        assert!(records_pay(4096, 1, 50, false));
        assert!(!records_pay(4096, 1, 50, true));
        // Many stacks of one frame, which do not all come again in time.
        assert!(!records_pay(4000, 1000, 50, false));
        // A parser with deep stacks, and one that comes upon new ones all the time.
        assert!(records_pay(4000, 6000, 450, false));
        assert!(!records_pay(1000, 6000, 450, false));
        // Before a walk was timed.
        assert!(records_pay(4000, 6000, 0, false));
    }
}
