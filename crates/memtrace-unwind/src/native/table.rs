//! The process-wide table of rules: call address → [`Rule`], filled as addresses are first seen.
//!
//! An array of 64-bit words in zeroed memory. A word holds the part of its address that its place
//! does not tell, and the rule; it is published by one store and never changes until it is displaced
//! or the table is cleared, so there is nothing to lock and nothing torn to see, in a signal handler
//! or anywhere else. An address has its place, and if another has that one, the three others of its
//! group. Sixteen neighbouring addresses share a place, of which calls seldom return to two: so a page of
//! code has its rules in one page of the table.
//!
//! # Invariants
//!
//! - **I1** A word is zero (empty) or `tag(key) << 32 | rule`; the group and the tag together are the
//!   whole of a key below [`END_OF_KEYS`], so that no address is ever given the rule of another.
//! - **I2** The table is a cache: any word may be zeroed or replaced by another valid one at any
//!   time, at the price of one more look into the unwind tables.
//! - **I3** The generation is raised before the table is cleared and once more after it: what was
//!   derived from a rule under one generation is not used under a later one, and who begins under the
//!   last one sees no rule from before.
//!
//! # Orderings
//!
//! Words are `Relaxed`: each is complete in itself and publishes nothing else. The second raise of the
//! generation is a Release, and reading it an Acquire: it publishes that the words before are gone. Which pages
//! are used is `Relaxed`, too: who stores in a page that another thread does not yet know to be used, and so does
//! not clear, finds out by [`object::is_still_noted`] that the rules were forgotten, as for any word.
//!
//! # Cost
//!
//! One load for a known address, up to four where addresses share a place. 1 MiB of address space,
//! resident as far as it is touched.

use crate::native::registered::{self, Interpreter, Learned};
use crate::object;
use crate::plain::Rules;
use crate::rule::{Registers, Rule};
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

const PLACE_BITS: u32 = 17;
const N_PLACES: usize = 1 << PLACE_BITS;
/// Words that an address may have: those whose places agree with its own but for the upper bits.
const WAY_BITS: u32 = 2;
const N_WAYS: usize = 1 << WAY_BITS;
/// Bits of a key that its group tells.
const GROUP_BITS: u32 = PLACE_BITS - WAY_BITS;
/// Bits of a key that its place does not tell, at the lower end.
const LOW_BITS: u32 = 4;
/// Keys at and above this (57-bit user space, kernel) do not fit a word, and are looked up in the
/// unwind tables each time.
const END_OF_KEYS: u64 = (1 << 47) - (1 << (GROUP_BITS + LOW_BITS));

/// Places of a page.
const PAGE_PLACES: usize = 512;
const N_PAGES: usize = N_PLACES / PAGE_PLACES;

#[repr(align(4096))]
struct Table([AtomicU64; N_PLACES]);

static TABLE: Table = Table([const { AtomicU64::new(0) }; N_PLACES]);

/// A bit for each page of the table in which anything was ever stored: others are not touched, since that alone
/// would make them resident.
static USED_PAGES: [AtomicU64; N_PAGES / 64] = [const { AtomicU64::new(0) }; N_PAGES / 64];

/// How often the table was cleared.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The rules of this process, for one walk.
pub(crate) struct ProcessRules(Interpreter);

impl ProcessRules {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self(Interpreter::new())
    }
}

impl Rules for ProcessRules {
    #[inline(always)]
    fn rule(&mut self, call_addr: u64) -> Rule {
        let key = key(call_addr);
        // A place in the array for any key, which the compiler sees.
        #[expect(clippy::indexing_slicing, reason = "masked to below the length")]
        let word = TABLE.0[place(key)].load(Relaxed);
        if word >> 32 == tag(key) {
            return Rule::from_word(word as u32);
        }
        look_further(call_addr)
    }

    #[cold]
    fn interpret(
        &mut self,
        registers: Registers,
        read_word: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Option<Registers> {
        self.0.step(registers, read_word)
    }
}

/// Forgets the rules of all addresses: to be called when a library may have been unloaded.
///
/// **Cost**: goes through what there is of the table, up to 1 MiB; the rules come back one by one as they are
/// needed.
pub fn forget_unloaded() {
    object::forget_objects();
    if USED_PAGES.iter().all(|pages| pages.load(Relaxed) == 0) {
        return;
    }
    GENERATION.fetch_add(1, Relaxed);
    for (number, page) in TABLE.0.as_chunks::<PAGE_PLACES>().0.iter().enumerate() {
        if is_used(number) {
            page.iter().for_each(|word| word.store(0, Relaxed));
        }
    }
    // Release pairs with the Acquire in `generation`: publishes that the old words are gone.
    GENERATION.fetch_add(1, Release);
}

fn is_used(page: usize) -> bool {
    USED_PAGES.get(page / 64).is_some_and(|pages| pages.load(Relaxed) >> (page % 64) & 1 != 0)
}

/// Notes that something is about to be stored in a page.
fn note_use(page: usize) {
    if !is_used(page)
        && let Some(pages) = USED_PAGES.get(page / 64)
    {
        pages.fetch_or(1 << (page % 64), Relaxed);
    }
}

/// Returns how often rules were forgotten: what was derived from them before is void.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    GENERATION.load(Acquire)
}

/// Returns the address and the size in bytes of the rule table, so that its resident part can be
/// measured.
pub fn rule_table() -> (*const u8, usize) {
    (TABLE.0.as_ptr().cast(), size_of_val(&TABLE))
}

/// Looks at the other words that an address may have, and then into the unwind tables.
#[cold]
#[inline(never)]
fn look_further(call_addr: u64) -> Rule {
    let key = key(call_addr);
    if key >= END_OF_KEYS {
        let (Learned::Lasting(rule) | Learned::Passing(rule)) = registered::learn(call_addr);
        return rule;
    }
    // Its own place first.
    let ways = (0..N_WAYS).filter_map(|way| {
        let place = place(key) ^ way << GROUP_BITS;
        Some((place, TABLE.0.get(place)?))
    });
    // Of pages in which nothing was stored nothing is read, either: that, too, makes them resident.
    let held = |place, word: &AtomicU64| {
        if is_used(place / PAGE_PLACES) { word.load(Relaxed) } else { 0 }
    };
    for (place, word) in ways.clone() {
        let word = held(place, word);
        if word >> 32 == tag(key) {
            return Rule::from_word(word as u32);
        }
    }
    let rule = match registered::learn(call_addr) {
        Learned::Lasting(rule) => rule,
        Learned::Passing(rule) => return rule,
    };
    // Where all are taken its own is displaced: any choice is right (I2).
    let free = ways.clone().find(|&(place, word)| held(place, word) == 0);
    if let Some((place, word)) = free.or_else(|| ways.clone().next()) {
        note_use(place / PAGE_PLACES);
        word.store(tag(key) << 32 | u64::from(rule.to_word()), Relaxed);
        if !object::is_still_noted(call_addr) {
            forget_unloaded();
        }
    }
    rule
}

/// What an address is looked up by: one more than it, which for most is the return address itself.
#[inline(always)]
const fn key(call_addr: u64) -> u64 {
    call_addr.wrapping_add(1)
}

/// The place of a key: its bits above the lowest.
#[inline(always)]
const fn place(key: u64) -> usize {
    (key >> LOW_BITS) as usize & (N_PLACES - 1)
}

/// The bits of a key that its group does not tell: those of a key below [`END_OF_KEYS`] fit 32 bits. No key
/// has zero, the tag of an empty word.
#[inline(always)]
const fn tag(key: u64) -> u64 {
    let low = key & ((1 << LOW_BITS) - 1);
    ((key >> (GROUP_BITS + LOW_BITS)) << LOW_BITS).wrapping_add(low).wrapping_add(1 << LOW_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn are_told_apart(a: u64, b: u64) -> bool {
        let group = |key| place(key) % (1 << GROUP_BITS);
        group(a) != group(b) || tag(a) != tag(b)
    }

    proptest! {
        #[test]
        fn group_and_tag_tell_every_address_from_every_other(
            a in 0..END_OF_KEYS,
            flip in 0..47u32,
            b in 0..END_OF_KEYS,
        ) {
            prop_assert!(are_told_apart(a, a ^ 1 << flip));
            prop_assert!(a == b || are_told_apart(a, b));
            prop_assert!(tag(a) != 0 && tag(a) <= u64::from(u32::MAX));
        }

        #[test]
        fn a_key_that_does_not_fit_has_the_tag_of_no_word(key in END_OF_KEYS..) {
            prop_assert!(tag(key) > u64::from(u32::MAX));
        }
    }

    #[test]
    fn an_address_outside_of_every_object_has_no_rule_and_keeps_having_none() {
        for call_addr in
            [0, 0x7FE, 1 << 16, 1 << 20, END_OF_KEYS - 2, END_OF_KEYS - 1, u64::MAX - 1]
        {
            for _ in 0..2 {
                // To be interpreted once `prepare` has found whom to ask.
                let rule = ProcessRules::new().rule(call_addr);
                assert!(rule == Rule::UNKNOWN || rule == Rule::INTERPRETED, "{call_addr:#x}");
            }
        }
    }
}
