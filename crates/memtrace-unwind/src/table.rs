//! The process-wide table of rules: call address → [`Rule`], filled as addresses are first seen.
//!
//! An array of buckets of four 64-bit words in zeroed memory. A word holds the part of its address
//! that its bucket does not tell, and the rule; it is published by one store and never changes until
//! it is displaced or the table is cleared, so there is nothing to lock and nothing torn to see, in
//! a signal handler or anywhere else.
//!
//! # Invariants
//!
//! - **I1** A word is zero (empty) or `tag(call_addr) << 32 | rule`; bucket and tag together are the
//!   whole of an address below 2⁴⁷, so that no address is ever given the rule of another.
//! - **I2** The table is a cache: any word may be zeroed or replaced by another valid one at any
//!   time, at the price of one more look into the unwind tables.
//!
//! # Orderings
//!
//! Everything is `Relaxed`: a word is complete in itself and publishes nothing else.
//!
//! # Cost
//!
//! One to four loads in one cache line for a known address. 1 MiB of address space, resident as far
//! as it is touched.

use crate::object;
use crate::plain::Rules;
use crate::registered::{self, Interpreter, Learned};
use crate::rule::{Registers, Rule};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const BUCKET_BITS: u32 = 15;
const N_BUCKETS: usize = 1 << BUCKET_BITS;
const N_WAYS: usize = 4;
/// Addresses at and above this (kernel, or 57-bit user space) do not fit a word, and are looked up
/// in the unwind tables each time.
const END_OF_KEYS: u64 = 1 << (BUCKET_BITS + 32);

#[repr(align(32))]
struct Bucket([AtomicU64; N_WAYS]);

static TABLE: [Bucket; N_BUCKETS] =
    [const { Bucket([const { AtomicU64::new(0) }; N_WAYS]) }; N_BUCKETS];

/// Whether anything was ever stored: a table that was never used is not touched to clear it.
static IS_USED: AtomicBool = AtomicBool::new(false);

/// The rules of this process, for one walk.
pub(crate) struct ProcessRules(Interpreter);

impl ProcessRules {
    pub(crate) const fn new() -> Self {
        Self(Interpreter::new())
    }
}

impl Rules for ProcessRules {
    #[inline]
    fn rule(&mut self, call_addr: u64) -> Rule {
        if call_addr < END_OF_KEYS {
            for word in &bucket(call_addr).0 {
                let word = word.load(Relaxed);
                if word >> 32 == tag(call_addr) && word != 0 {
                    return Rule::from_word(word as u32);
                }
            }
        }
        learn(call_addr)
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
    for word in TABLE.iter().flat_map(|bucket| &bucket.0) {
        if word.load(Relaxed) != 0 {
            word.store(0, Relaxed);
        }
    }
}

/// Returns the address and the size in bytes of the rule table, so that its resident part can be
/// measured.
pub fn rule_table() -> (*const u8, usize) {
    (TABLE.as_ptr().cast(), size_of_val(&TABLE))
}

#[cold]
#[inline(never)]
fn learn(call_addr: u64) -> Rule {
    let rule = match registered::learn(call_addr) {
        Learned::Lasting(rule) => rule,
        Learned::Passing(rule) => return rule,
    };
    if call_addr < END_OF_KEYS {
        let bucket = &bucket(call_addr).0;
        // In a full bucket the tag picks the word to displace: any choice is right (I2).
        let word = bucket
            .iter()
            .find(|word| word.load(Relaxed) == 0)
            .or_else(|| bucket.get(tag(call_addr) as usize % N_WAYS));
        if let Some(word) = word {
            IS_USED.store(true, Relaxed);
            word.store(tag(call_addr) << 32 | u64::from(rule.to_word()), Relaxed);
            object::is_still_noted(call_addr);
        }
    }
    rule
}

/// The bucket of an address: bits 3 to 17, so that the calls of one function lie close together.
#[inline(always)]
fn bucket(call_addr: u64) -> &'static Bucket {
    // The mask keeps the index below the length, which the compiler sees.
    #[expect(clippy::indexing_slicing, reason = "masked to the length, a power of two")]
    &TABLE[(call_addr >> 3) as usize & (N_BUCKETS - 1)]
}

/// The bits of an address that its bucket does not tell: 0 to 2 and 18 to 46.
#[inline(always)]
fn tag(call_addr: u64) -> u64 {
    call_addr >> (BUCKET_BITS + 3) << 3 | call_addr & 7
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bucket_and_tag_tell_every_address_from_every_other(
            a in 0..END_OF_KEYS,
            flip in 0..BUCKET_BITS + 32,
        ) {
            let b = a ^ 1 << flip;
            let same_bucket = core::ptr::eq(bucket(a), bucket(b));
            prop_assert!(!same_bucket || tag(a) != tag(b));
            prop_assert!(tag(a) <= u64::from(u32::MAX));
        }
    }

    #[test]
    fn an_address_outside_of_every_object_has_no_rule_and_keeps_having_none() {
        for call_addr in [0, 16, END_OF_KEYS - 1, END_OF_KEYS, u64::MAX] {
            for _ in 0..2 {
                // To be interpreted once `prepare` has found whom to ask.
                let rule = ProcessRules::new().rule(call_addr);
                assert!(rule == Rule::UNKNOWN || rule == Rule::INTERPRETED, "{call_addr:#x}");
            }
        }
    }
}
