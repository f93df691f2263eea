//! Stacks of one frame, which the return address tells alone.
//!
//! Asked for one frame, a walk makes one step, to see whether there is a frame beyond. Its rule is remembered by the
//! return address, and so is the site that it leads to; the step is made each time. What comes out is so what a walk would
//! find, whatever is on the stack: nothing else is compared, and where on the thread's own stack the call is does not
//! matter. A parser that allocates at 250 places, at each of them with many stack pointers, needs 250 entries, where
//! it would fill any number of [records](super::records).
//!
//! # Layout
//!
//! Two words an entry: the return address, then the site (bits 0..32) and the rule (32..64). Two entries lie side by side, in
//! a set that the low bits of the return address choose: so calls that are near to each other do not meet. Of three in a
//! set the oldest makes way; where as many have made way as there is room for, there is to be more room.
//!
//! # Invariants
//!
//! - **I1** Entries are of the rules of `generation`, of a capture that ended at its limit, one frame. They are not the
//!   tool's own, and their rule is one of those by which [`leads_on`] makes a step.
//!
//! # Cost
//!
//! 50 instructions to find a site. 8 KiB for 512 places of call, up to 1 MiB for 64 thousand.

use crate::bounds::StackBounds;
use crate::native::pages::{Pages, Share};
use crate::native::world::{Check, World, is_needed};
use crate::plain::Rules;
use crate::rule::{Registers, Rule};
use crate::walker::Place;
use core::num::NonZeroU32;

/// Words of all sets, level by level.
const LEVELS: [usize; 3] = [1 << 10, 16 << 10, 128 << 10];

/// A generation that no rules are of.
const NONE: u64 = u64::MAX;

/// Two entries: the return address, the site and above it the rule; the same of the older one.
type Set = [u64; 4];

/// Sites of stacks of one frame.
pub(super) struct OneFrame {
    sets: Pages,
    /// [`NONE`] if there are no entries.
    generation: u64,
    level: usize,
    /// Entries that have made way for others since there is as much room as now.
    n_displaced: usize,
}

impl OneFrame {
    /// No entries, and no memory.
    pub(super) const EMPTY: Self =
        Self { sets: Pages::empty(), generation: NONE, level: 0, n_displaced: 0 };

    /// Forgets all entries.
    pub(super) const fn clear(&mut self) {
        self.generation = NONE;
    }

    pub(super) fn has_memory(&self) -> bool {
        !self.sets.is_empty()
    }

    /// Returns the bytes mapped for entries.
    pub(super) fn memory(&self) -> usize {
        self.sets.len().saturating_mul(8)
    }

    /// Returns the site of the stack that begins at `start` if its return address has an entry and there is a frame beyond.
    #[inline(always)]
    pub(super) fn recall(
        &self,
        world: &impl World,
        start: Registers,
        stack: &StackBounds,
    ) -> Option<NonZeroU32> {
        if self.generation != u64::from(world.generation()) && is_needed(Check::Epoch) {
            return None;
        }
        let place = Place::of(start);
        let sets: &[Set] = self.sets.as_chunks().0;
        let &[newer, newer_facts, older, older_facts] =
            sets.get(set_number(place.key, sets.len()))?;
        let facts = if newer == place.key || !is_needed(Check::Start) {
            newer_facts
        } else if older == place.key {
            older_facts
        } else {
            return None;
        };
        let site = NonZeroU32::new(facts as u32)?;
        leads_on(Rule::from_word((facts >> 32) as u32), place, stack, world).then_some(site)
    }

    /// Notes the site that a walk for one frame has found under the rules of `generation`; nothing if the return address
    /// does not tell it alone, or if there is no room.
    #[cold]
    #[inline(never)]
    pub(super) fn note(
        &mut self,
        world: &impl World,
        generation: u32,
        start: Registers,
        stack: &StackBounds,
        site: NonZeroU32,
    ) {
        if !self.has_memory() {
            return;
        }
        let place = Place::of(start);
        let rule = world.rules().rule(place.call_addr());
        let is_step = rule == Rule::FRAME_POINTER || rule.is_plain_by_sp();
        if !is_step || !leads_on(rule, place, stack, world) || world.generation() != generation {
            return;
        }
        if self.generation != generation.into() {
            self.sets.fill(0);
            self.generation = generation.into();
        }
        self.make_room();
        let facts = u64::from(rule.to_word()) << 32 | u64::from(site.get());
        let sets: &mut [Set] = self.sets.as_chunks_mut().0;
        let number = set_number(place.key, sets.len());
        let Some([newer, newer_facts, older, older_facts]) = sets.get_mut(number) else { return };
        if *newer == place.key {
            *newer_facts = facts;
        } else if *older == place.key {
            *older_facts = facts;
        } else {
            self.n_displaced = self.n_displaced.saturating_add(usize::from(*older != 0));
            (*older, *older_facts) = (*newer, *newer_facts);
            (*newer, *newer_facts) = (place.key, facts);
        }
    }

    /// Maps the first memory, if there is any to be had.
    pub(super) fn map_first(&mut self) {
        self.map(0, Share::ALL);
    }

    /// Maps more room once as many entries were displaced as there is room for; where there is none to be had, it is asked
    /// for again when that many more were.
    fn make_room(&mut self) {
        if self.n_displaced >= self.sets.len() / 2 {
            self.n_displaced = 0;
            self.map(self.level.saturating_add(1), Share::HALF);
        }
    }

    fn map(&mut self, level: usize, share: Share) {
        let len = LEVELS.get(level).copied();
        if let Some(sets) = len.and_then(|len| Pages::map(len, share)) {
            (self.sets, self.level) = (sets, level);
        }
    }
}

/// The set of a return address, among a power of two of them.
#[inline(always)]
const fn set_number(key: u64, n_sets: usize) -> usize {
    key as usize & n_sets.wrapping_sub(1)
}

/// Whether a step by a plain rule, counted from the stack pointer or [`Rule::FRAME_POINTER`], leads to another frame of
/// the same stack: where this says so [`visit`](crate::walker::visit) does.
#[inline(always)]
fn leads_on(rule: Rule, place: Place, stack: &StackBounds, world: &impl World) -> bool {
    let (lowest, slot) = if rule == Rule::FRAME_POINTER {
        (place.fp, place.fp.wrapping_add(8))
    } else {
        let slot = place.sp.wrapping_add(rule.cfa_offset()).wrapping_sub(8);
        (slot, slot)
    };
    // At or above the stack pointer: with both on the stack, so is all between.
    lowest >= place.sp
        && stack.contains_word(place.sp)
        && stack.contains_word(slot)
        && (world.read_word(slot) != 0 || !is_needed(Check::LimitWord))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::CfaBase;
    use crate::walker::{Visitor, visit};
    use proptest::prelude::*;
    extern crate std;

    /// A process of one rule and one word.
    #[derive(Clone, Copy)]
    struct OneWord {
        rule: Rule,
        word: u64,
    }

    impl Rules for OneWord {
        fn rule(&mut self, _: u64) -> Rule {
            self.rule
        }

        fn interpret(
            &mut self,
            _: Registers,
            _: &mut dyn FnMut(u64) -> Option<u64>,
        ) -> Option<Registers> {
            None
        }
    }

    impl World for OneWord {
        type Rules = Self;

        fn rules(&self) -> Self {
            *self
        }

        fn read_word(&self, _: u64) -> u64 {
            self.word
        }

        fn trusted(&self, stack: &StackBounds) -> StackBounds {
            *stack
        }

        fn generation(&self) -> u32 {
            3
        }

        fn cycles(&self) -> u64 {
            0
        }

        fn look_for_unloaded(&self, _: impl Iterator<Item = u64>) {}
    }

    /// One in which all functions have a frame of two words.
    const PROCESS: OneWord = OneWord { rule: Rule::plain(CfaBase::Sp, 16, None).unwrap(), word: 1 };

    fn call(i: u32) -> Registers {
        // Wherever it is on the stack, and in the code.
        let sp = 0x7000_0000 - u64::from(i % 100 + 2) * 8;
        let pc = 0x40_0000 + u64::from(i * 16 + (i.wrapping_mul(0x9E37_79B1) >> 28));
        Registers { pc, sp, fp: 0, is_exact_pc: false }
    }

    /// Goes through so many places of call again and again, and returns which part was told the last time.
    fn told(one_frame: &mut OneFrame, n_calls: u32) -> f64 {
        let stack = StackBounds::from_range(0x6000_0000..0x7000_0000);
        let mut n_told = 0;
        for _ in 0..8 {
            n_told = 0;
            for i in 0..n_calls {
                let site = NonZeroU32::new(i + 1).unwrap();
                match one_frame.recall(&PROCESS, call(i), &stack) {
                    Some(told) => {
                        assert_eq!(told, site);
                        n_told += 1;
                    }
                    None => one_frame.note(&PROCESS, 3, call(i), &stack, site),
                }
            }
        }
        f64::from(n_told) / f64::from(n_calls)
    }

    #[test]
    fn there_is_room_for_as_many_places_of_call_as_there_are() {
        for (n_calls, n_kib) in [(200, 8), (2000, 128), (20_000, 1024)] {
            let mut one_frame = OneFrame::EMPTY;
            assert_eq!(told(&mut one_frame, 100), 0.0, "without memory");
            one_frame.map_first();
            let part = told(&mut one_frame, n_calls);
            assert!(part > 0.95, "{n_calls}: {part}");
            assert_eq!(one_frame.memory(), n_kib << 10, "{n_calls}");
        }
    }

    #[test]
    fn where_there_are_more_than_all_room_is_for_none_is_taken_for_another() {
        let mut one_frame = OneFrame::EMPTY;
        one_frame.map_first();
        let part = told(&mut one_frame, 200_000);
        assert!(part < 0.5, "{part}");
        assert_eq!(one_frame.memory(), 1 << 20);
    }

    #[test]
    fn two_calls_that_meet_in_a_set_both_stay_and_of_three_the_oldest_goes() {
        let stack = StackBounds::from_range(0x6000_0000..0x7000_0000);
        let mut one_frame = OneFrame::EMPTY;
        one_frame.map_first();
        let call = |i: u64| Registers { pc: 0x40_0000 + (i << 20), ..call(0) };
        let site = |i: u64| NonZeroU32::new(i as u32 + 1);
        for i in [0, 1, 0, 2] {
            one_frame.note(&PROCESS, 3, call(i), &stack, site(i).unwrap());
        }
        let told = [0, 1, 2].map(|i| one_frame.recall(&PROCESS, call(i), &stack));
        assert_eq!(told, [None, site(1), site(2)]);
    }

    #[test]
    fn what_is_cleared_or_of_other_rules_is_not_told() {
        let stack = StackBounds::from_range(0x6000_0000..0x7000_0000);
        let mut one_frame = OneFrame::EMPTY;
        one_frame.map_first();
        let site = NonZeroU32::MIN;
        one_frame.note(&PROCESS, 2, call(1), &stack, site);
        assert_eq!(one_frame.recall(&PROCESS, call(1), &stack), None, "the rules have changed");
        one_frame.note(&PROCESS, 3, call(1), &stack, site);
        assert_eq!(one_frame.recall(&PROCESS, call(1), &stack), Some(site));
        assert_eq!(one_frame.recall(&PROCESS, call(2), &stack), None);
        let foreign = Registers { sp: 0x5000_0000, ..call(1) };
        assert_eq!(one_frame.recall(&PROCESS, foreign, &stack), None, "on another stack");
        let last = Registers { sp: 0x7000_0000 - 8, ..call(1) };
        assert_eq!(one_frame.recall(&PROCESS, last, &stack), None, "beyond the stack's end");
        one_frame.clear();
        assert_eq!(one_frame.recall(&PROCESS, call(1), &stack), None);
    }

    /// Counts the frames of a walk, and ends it at the second.
    struct Second(u32);

    impl Visitor for Second {
        fn frame(&mut self, place: Place) -> Option<Place> {
            self.0 += 1;
            (self.0 < 2).then_some(place)
        }
    }

    /// What a step depends on, with addresses near the bounds of a stack.
    fn steps() -> impl Strategy<Value = (Rule, Place, StackBounds, u64)> {
        let near =
            |addr: u64| (0u64..48, 0u64..2).prop_map(move |(n, odd)| addr - 24 * 8 + n * 8 + odd);
        let addrs = || prop_oneof![8 => near(0x7000), 2 => near(0x7800), 1 => any::<u64>()];
        let offsets = prop_oneof![4 => 1i64..40, 1 => 1i64..0x1FFF].prop_map(|words| words * 8);
        let saved = prop_oneof![Just(None), (2i64..20).prop_map(|words| Some(-8 * words))];
        let by_sp = (offsets, saved).prop_map(|(offset, saved)| {
            let rule = Rule::plain(CfaBase::Sp, offset, saved);
            rule.or_else(|| Rule::plain(CfaBase::Sp, offset, None)).unwrap()
        });
        let rules = prop_oneof![by_sp, Just(Rule::FRAME_POINTER)];
        let bounds =
            (addrs(), addrs()).prop_map(|(a, b)| StackBounds::from_range(a.min(b)..a.max(b)));
        let place = (addrs(), addrs()).prop_map(|(sp, fp)| Place { key: 0x40_0001, sp, fp });
        (rules, place, bounds, prop_oneof![4 => Just(1u64), 1 => Just(0)])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn a_step_that_leads_on_is_one_of_a_walk((rule, place, stack, word) in steps()) {
            let world = OneWord { rule, word };
            let leads_on = leads_on(rule, place, &stack, &world);
            let registers = Registers { pc: place.key, sp: place.sp, fp: place.fp, is_exact_pc: false };
            let mut second = Second(0);
            let ended = visit(registers, &stack, &mut world.rules(), |_| Some(word), &mut second);
            let does = ended.is_none() && second.0 == 2;
            prop_assert!(does || !leads_on);
            // The other way round on the thread's own stack, but for a frame pointer just below the stack pointer.
            let is_usual = stack.contains_word(place.sp)
                && (rule != Rule::FRAME_POINTER || place.fp >= place.sp);
            prop_assert!(leads_on || !does || !is_usual);
        }
    }
}
