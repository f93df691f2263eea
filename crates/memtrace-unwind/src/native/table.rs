//! The process-wide table of rules: call address → [`Rule`], filled as addresses are first seen.
//!
//! An array of 64-bit words in zeroed memory. A word holds the part of its address that its place
//! does not tell, and the rule; it is published by one store and never changes until it is displaced
//! or the table is cleared, so there is nothing to lock and nothing torn to see, in a signal handler
//! or anywhere else. An address has its place, and if another has that one, the three others of its
//! group.
//!
//! # Invariants
//!
//! - **I1** A word is zero (empty) or `tag(key) << 32 | rule`; the group and the tag together are the
//!   whole of a key below 2⁴⁷, so that no address is ever given the rule of another.
//! - **I2** The table is a cache: any word may be zeroed or replaced by another valid one at any
//!   time, at the price of one more look into the unwind tables.
//! - **I3** The generation is raised before the table is cleared and once more after it: what was
//!   derived from a rule under one generation is not used under a later one, and who begins under the
//!   last one sees no rule from before.
//!
//! # Orderings
//!
//! Words are `Relaxed`: each is complete in itself and publishes nothing else. The second raise of the
//! generation is a Release, and reading it an Acquire: it publishes that the words before are gone.
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
    AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

const PLACE_BITS: u32 = 17;
const N_PLACES: usize = 1 << PLACE_BITS;
/// Words that an address may have: those whose places agree with its own but for the upper bits.
const WAY_BITS: u32 = 2;
const N_WAYS: usize = 1 << WAY_BITS;
/// Bits of a key that its group tells.
const GROUP_BITS: u32 = PLACE_BITS - WAY_BITS;
/// Keys at and above this (57-bit user space, kernel) do not fit a word, and are looked up in the
/// unwind tables each time.
const END_OF_KEYS: u64 = 1 << 47;

#[repr(align(64))]
struct Table([AtomicU64; N_PLACES]);

static TABLE: Table = Table([const { AtomicU64::new(0) }; N_PLACES]);

/// Whether anything was ever stored: a table that was never used is not touched to clear it.
static IS_USED: AtomicBool = AtomicBool::new(false);

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
/// **Cost**: touches the table, 1 MiB; the rules come back one by one as they are needed.
pub fn forget_unloaded() {
    object::forget_objects();
    if !IS_USED.load(Relaxed) {
        return;
    }
    GENERATION.fetch_add(1, Relaxed);
    for word in &TABLE.0 {
        if word.load(Relaxed) != 0 {
            word.store(0, Relaxed);
        }
    }
    // Release pairs with the Acquire in `generation`: publishes that the old words are gone.
    GENERATION.fetch_add(1, Release);
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
    let ways = (0..N_WAYS).filter_map(|way| TABLE.0.get(place(key) ^ way << GROUP_BITS));
    for word in ways.clone() {
        let word = word.load(Relaxed);
        if word >> 32 == tag(key) {
            return Rule::from_word(word as u32);
        }
    }
    let rule = match registered::learn(call_addr) {
        Learned::Lasting(rule) => rule,
        Learned::Passing(rule) => return rule,
    };
    // Where all are taken its own is displaced: any choice is right (I2).
    let free = ways.clone().find(|word| word.load(Relaxed) == 0);
    if let Some(word) = free.or_else(|| ways.clone().next()) {
        IS_USED.store(true, Relaxed);
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

/// The place of a key: its lowest bits.
#[inline(always)]
const fn place(key: u64) -> usize {
    key as usize & (N_PLACES - 1)
}

/// The bits of a key that its group does not tell: those of a key below 2⁴⁷ fit 32 bits. Zero, the tag
/// of an empty word, is that of the lowest 32 KiB, where no system maps code; an empty word is the rule
/// [`Rule::UNKNOWN`], so that a stack which claims to lead there is cut.
#[inline(always)]
const fn tag(key: u64) -> u64 {
    key >> GROUP_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn group_and_tag_tell_every_address_from_every_other(
            a in 0..END_OF_KEYS,
            flip in 0..64u32,
        ) {
            let b = a ^ 1 << flip;
            let group = |key| place(key) % (1 << GROUP_BITS);
            prop_assert!(group(a) != group(b) || tag(a) != tag(b));
            prop_assert!(tag(a) <= u64::from(u32::MAX));
            prop_assert!(b < END_OF_KEYS || tag(b) > u64::from(u32::MAX));
        }
    }

    #[test]
    fn the_lowest_addresses_which_an_empty_word_seems_to_know_are_unknown() {
        for call_addr in [0, 1, 0x7FE, 0x7FFE] {
            assert_eq!(ProcessRules::new().rule(call_addr), Rule::UNKNOWN, "{call_addr:#x}");
        }
    }

    #[test]
    fn an_address_outside_of_every_object_has_no_rule_and_keeps_having_none() {
        for call_addr in [1 << 16, 1 << 20, END_OF_KEYS - 1, END_OF_KEYS, u64::MAX - 1] {
            for _ in 0..2 {
                // To be interpreted once `prepare` has found whom to ask.
                let rule = ProcessRules::new().rule(call_addr);
                assert!(rule == Rule::UNKNOWN || rule == Rule::INTERPRETED, "{call_addr:#x}");
            }
        }
    }
}
