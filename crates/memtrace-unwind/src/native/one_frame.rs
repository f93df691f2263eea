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
//! Two words an entry: the return address, then the site (bits 0..32) and the rule (32..64). Its place is what the low bits
//! of the return address say: calls of one function have places of their own. Who comes later displaces what was there;
//! where as many were displaced as there are places, there is to be more room.
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

/// Words of entries, level by level.
const LEVELS: [usize; 3] = [1 << 10, 16 << 10, 128 << 10];

/// A generation that no rules are of.
const NONE: u64 = u64::MAX;

/// The return address; the site, and the rule above it.
type Entry = [u64; 2];

/// Sites of stacks of one frame.
pub(super) struct OneFrame {
    entries: Pages,
    /// [`NONE`] if there are no entries.
    generation: u64,
    level: usize,
    /// Entries that made way for others since there is as much room as now.
    n_displaced: usize,
}

impl OneFrame {
    /// No entries, and no memory.
    pub(super) const EMPTY: Self =
        Self { entries: Pages::empty(), generation: NONE, level: 0, n_displaced: 0 };

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.entries.fill(0);
        self.generation = NONE;
    }

    pub(super) fn has_memory(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Returns the bytes mapped for entries.
    pub(super) fn memory(&self) -> usize {
        self.entries.len().saturating_mul(8)
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
        let entries: &[Entry] = self.entries.as_chunks().0;
        let &[key, facts] = entries.get(number(place.key, entries.len()))?;
        if key != place.key && is_needed(Check::Start) {
            return None;
        }
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
        let place = Place::of(start);
        let rule = world.rules().rule(place.call_addr());
        let is_step = rule == Rule::FRAME_POINTER || rule.is_plain_by_sp();
        if !is_step || !leads_on(rule, place, stack, world) || world.generation() != generation {
            return;
        }
        if self.has_memory() {
            self.make_room();
        }
        let entries: &mut [Entry] = self.entries.as_chunks_mut().0;
        let number = number(place.key, entries.len());
        let Some(entry) = entries.get_mut(number) else { return };
        let [key, _] = *entry;
        if key != 0 && key != place.key {
            self.n_displaced = self.n_displaced.saturating_add(1);
        }
        *entry = [place.key, u64::from(rule.to_word()) << 32 | u64::from(site.get())];
        self.generation = generation.into();
    }

    /// Maps the first memory, if there is any to be had.
    pub(super) fn map_first(&mut self) {
        self.map(0, Share::ALL);
    }

    /// Maps more room once as many entries were displaced as there is room for; where there is none to be had, it is asked
    /// for again when that many more were.
    fn make_room(&mut self) {
        if self.n_displaced >= self.entries.as_chunks::<2>().0.len() {
            self.n_displaced = 0;
            self.map(self.level.saturating_add(1), Share::HALF);
        }
    }

    fn map(&mut self, level: usize, share: Share) {
        let len = LEVELS.get(level).copied();
        if let Some(entries) = len.and_then(|len| Pages::map(len, share)) {
            (self.entries, self.level) = (entries, level);
        }
    }
}

/// Where the entry of a return address is, among a power of two of them.
#[inline(always)]
const fn number(key: u64, n_entries: usize) -> usize {
    key as usize & n_entries.wrapping_sub(1)
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
    // Above the stack pointer, so that what lies between is there if both are.
    lowest >= place.sp
        && stack.contains_word(place.sp)
        && stack.contains_word(slot)
        && (world.read_word(slot) != 0 || !is_needed(Check::LimitWord))
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    /// A process in which all functions have a frame of two words, and all words are return addresses.
    struct Process;

    impl Rules for Process {
        fn rule(&mut self, _: u64) -> Rule {
            Rule::plain(crate::rule::CfaBase::Sp, 16, None).unwrap()
        }

        fn interpret(
            &mut self,
            _: Registers,
            _: &mut dyn FnMut(u64) -> Option<u64>,
        ) -> Option<Registers> {
            None
        }
    }

    impl World for Process {
        type Rules = Self;

        fn rules(&self) -> Self {
            Self
        }

        fn read_word(&self, _: u64) -> u64 {
            1
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

    fn call(i: u32) -> Registers {
        // Wherever it is on the stack.
        let sp = 0x7000_0000 - u64::from(i % 100 + 2) * 8;
        Registers { pc: 0x40_0000 + u64::from(i) * 7, sp, fp: 0, is_exact_pc: false }
    }

    /// Goes through so many places of call again and again, and returns which part was told the last time.
    fn told(one_frame: &mut OneFrame, n_calls: u32) -> f64 {
        let stack = StackBounds::from_range(0x6000_0000..0x7000_0000);
        let mut n_told = 0;
        for _ in 0..8 {
            n_told = 0;
            for i in 0..n_calls {
                let site = NonZeroU32::new(i + 1).unwrap();
                match one_frame.recall(&Process, call(i), &stack) {
                    Some(told) => {
                        assert_eq!(told, site);
                        n_told += 1;
                    }
                    None => one_frame.note(&Process, 3, call(i), &stack, site),
                }
            }
        }
        f64::from(n_told) / f64::from(n_calls)
    }

    #[test]
    fn there_is_room_for_as_many_places_of_call_as_there_are() {
        for (n_calls, n_kib) in [(200, 8), (5000, 128), (40_000, 1024)] {
            let mut one_frame = OneFrame::EMPTY;
            assert_eq!(told(&mut one_frame, 100), 0.0, "without memory");
            one_frame.map_first();
            let part = told(&mut one_frame, n_calls);
            assert!(part > 0.7, "{n_calls}: {part}");
            assert_eq!(one_frame.memory(), n_kib << 10, "{n_calls}");
            // More than all room is for changes nothing but that.
            told(&mut one_frame, 200_000);
            assert_eq!(one_frame.memory(), 1 << 20);
        }
    }

    #[test]
    fn what_is_cleared_or_of_other_rules_is_not_told() {
        let stack = StackBounds::from_range(0x6000_0000..0x7000_0000);
        let mut one_frame = OneFrame::EMPTY;
        one_frame.map_first();
        let site = NonZeroU32::MIN;
        one_frame.note(&Process, 2, call(1), &stack, site);
        assert_eq!(one_frame.recall(&Process, call(1), &stack), None, "the rules have changed");
        one_frame.note(&Process, 3, call(1), &stack, site);
        assert_eq!(one_frame.recall(&Process, call(1), &stack), Some(site));
        assert_eq!(one_frame.recall(&Process, call(2), &stack), None);
        let foreign = Registers { sp: 0x5000_0000, ..call(1) };
        assert_eq!(one_frame.recall(&Process, foreign, &stack), None, "on another stack");
        let last = Registers { sp: 0x7000_0000 - 8, ..call(1) };
        assert_eq!(one_frame.recall(&Process, last, &stack), None, "beyond the stack's end");
        one_frame.clear();
        assert_eq!(one_frame.recall(&Process, call(1), &stack), None);
    }
}
