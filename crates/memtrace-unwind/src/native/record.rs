//! One validated record: what a walk depended on, and what it led to.
//!
//! # Layout
//!
//! | word | holds |
//! | --- | --- |
//! | 0 | one more than the call address at the start |
//! | 1 | stack pointer at the start |
//! | 2 | frame pointer at the start, if the walk depended on it |
//! | 3 | site (bits 0..32), groups of words (32..40), whether word 2 counts (40), whether the stack is at its limit (41), whether there are pairs (42), groups of pairs (43..48), the place of the word that must not be zero at the limit (48..64) |
//! | 4 | the slot of the index that names the record (bits 0..32), and its birth (32..64): see [`records`](super::records) |
//! | 5 | the guess by which the record was found that held after this one the last time, or zero |
//! | 10 a group | four pairs of values and, in the ninth word, the places of their first ones |
//! | 10 a group | eight values and, in the last two words, their places |
//!
//! where a *place* is a distance from the stack pointer in words. Functions with frame pointers leave two words
//! side by side, the frame pointer and above it the return address: such *pairs* are compared at once. What does
//! not fill a group of them is among the single words, whose last group is filled up by saying the last again.
//! Header and groups are whole vectors long: where a record begins at a multiple of 16 bytes, all values lie at one,
//! and are compared where they are.
//!
//! # Cost
//!
//! To compare: 27 instructions for eight words, 19 for four pairs; no load waits for another. 10 bytes a word, 48 a
//! record.
#![expect(
    unsafe_code,
    reason = "compares a record that is known to be whole without a look at its bounds"
)]

use crate::native::world::{Check, World, is_needed};
use core::num::NonZeroU32;
use core::slice;

pub(super) const HEADER_LEN: usize = 6;
/// The word of a record that says which slot names it, and when it was made.
const SLOT_WORD: usize = 4;
/// The word of a record that leads to the one after it.
pub(super) const NEXT_WORD: usize = 5;
/// Values of a group: so many words, or half as many pairs.
const N_VALUES: usize = 8;
const N_PAIRS: usize = N_VALUES / 2;
/// Places of a word.
const N_PLACES: usize = 4;
/// Values, and behind them their places.
pub(super) type Group = [u64; GROUP_LEN];
const GROUP_LEN: usize = N_VALUES + N_VALUES / N_PLACES;
/// Groups that a record may have: two words for each frame of the longest stack, and some for the
/// tool's own.
const MAX_SINGLES: usize = 32;
const MAX_PAIRS: usize = 31;
/// Vectors lie at multiples of so many words.
pub(super) const VECTOR_LEN: usize = 2;
const _: () =
    assert!(HEADER_LEN.is_multiple_of(VECTOR_LEN) && GROUP_LEN.is_multiple_of(VECTOR_LEN));

const FP_COUNTS: u64 = 1 << 40;
const IS_AT_LIMIT: u64 = 1 << 41;
const HAS_PAIRS: u64 = 1 << 42;

/// The state in which a capture begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) key: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
}

/// What a walk began with and led to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) start: Start,
    pub(crate) site: u32,
    /// Whether the walk depended on the frame pointer that it began with.
    pub(crate) fp_counts: bool,
    /// The word that must not be zero, if the stack was cut at its limit.
    pub(crate) limit_slot: Option<u64>,
}

/// A word on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Word {
    pub(crate) addr: u64,
    pub(crate) value: u64,
}

impl Word {
    const fn is_below(self, other: Self) -> bool {
        self.addr.wrapping_add(8) == other.addr
    }
}

/// How many groups a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    n_pairs: usize,
    n_singles: usize,
}

impl Groups {
    /// Those that these words need; `None` if they are too many.
    pub(super) fn of(words: &[Word]) -> Option<Self> {
        let is_pair = |[above, word]: &[Word; 2]| word.is_below(*above);
        let n_pairs = if words.array_windows().any(is_pair) { count_pairs(words) } else { 0 };
        let n_pairs = (n_pairs / N_PAIRS).min(MAX_PAIRS);
        let n_singles = words.len().wrapping_sub(n_pairs.wrapping_mul(N_VALUES)).div_ceil(N_VALUES);
        (n_singles <= MAX_SINGLES).then_some(Self { n_pairs, n_singles })
    }

    #[inline(always)]
    const fn from_facts(facts: u64) -> Self {
        Self { n_pairs: (facts >> 43 & 0x1F) as usize, n_singles: n_singles(facts) }
    }

    const fn facts(self) -> u64 {
        let has_pairs = if self.n_pairs == 0 { 0 } else { HAS_PAIRS };
        has_pairs | (self.n_pairs as u64) << 43 | (self.n_singles as u64) << 32
    }

    /// Words of memory that a record with so many takes.
    pub(super) const fn record_len(self) -> usize {
        HEADER_LEN
            .wrapping_add(self.pairs_len())
            .wrapping_add(self.n_singles.wrapping_mul(GROUP_LEN))
    }

    #[inline(always)]
    const fn pairs_len(self) -> usize {
        self.n_pairs.wrapping_mul(GROUP_LEN)
    }
}

fn count_pairs(words: &[Word]) -> usize {
    let mut n_pairs = 0usize;
    let mut above: Option<Word> = None;
    for &word in words {
        let is_pair = above.is_some_and(|above| word.is_below(above));
        n_pairs = n_pairs.wrapping_add(usize::from(is_pair));
        above = if is_pair { None } else { Some(word) };
    }
    n_pairs
}

#[inline(always)]
const fn n_singles(facts: u64) -> usize {
    (facts >> 32 & 0xFF) as usize
}

/// The distance of an address from the stack pointer in words, if it fits a place.
#[inline(always)]
fn place_of(addr: u64, sp: u64) -> Option<u64> {
    let distance = addr.wrapping_sub(sp);
    (distance >> 3 <= 0xFFFF).then_some(distance >> 3)
}

/// The values of a group, and their places; of pairs, which have one place for two values, those of the second half
/// are zero.
#[inline(always)]
pub(super) const fn values_and_places(group: &Group) -> ([u64; N_VALUES], [u64; N_VALUES]) {
    let &[a, b, c, d, e, f, g, h, first, second] = group;
    let ([i, j, k, l], [m, n, o, p]) = (places(first), places(second));
    ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p])
}

#[inline(always)]
const fn places(packed: u64) -> [u64; N_PLACES] {
    [packed & 0xFFFF, packed >> 16 & 0xFFFF, packed >> 32 & 0xFFFF, packed >> 48]
}

/// Writes a record that no slot names, made as the `birth`-th; `None` if a word is too far away, and then it is
/// none.
///
/// `words` are those that the walk depended on, leaf first; `groups` are those that they need, and `memory` is as long
/// as these. The order of the words is lost.
pub(super) fn write(
    memory: &mut [u64],
    outcome: Outcome,
    groups: Groups,
    words: &mut [Word],
    birth: u32,
) -> Option<()> {
    let Outcome { start, site, fp_counts, limit_slot } = outcome;
    let (header, body) = memory.split_first_chunk_mut::<HEADER_LEN>()?;
    let (pairs, singles) = body.split_at_mut_checked(groups.pairs_len())?;
    let (pairs, singles) = (pairs.as_chunks_mut().0, singles.as_chunks_mut().0);
    if groups.n_pairs == 0 {
        write_singles(singles, words, start.sp)?;
    } else {
        write_both(pairs, singles, words, start.sp)?;
    }
    let limit_place = limit_slot.map_or(Some(0), |addr| place_of(addr, start.sp))?;
    let facts = u64::from(site)
        | groups.facts()
        | if fp_counts { FP_COUNTS } else { 0 }
        | if limit_slot.is_some() { IS_AT_LIMIT | limit_place << 48 } else { 0 };
    let unnamed = u64::from(birth) << 32 | u64::from(u32::MAX);
    *header = [start.key, start.sp, start.fp, facts, unnamed, 0];
    Some(())
}

/// Writes groups of single words; `None` if one is too far away.
fn write_singles(groups: &mut [Group], words: &[Word], sp: u64) -> Option<()> {
    if groups.len() != words.len().div_ceil(N_VALUES) {
        return None;
    }
    let (eights, rest) = words.as_chunks();
    let mut beyond = 0;
    for (group, eight) in groups.iter_mut().zip(eights) {
        beyond |= write_group(group, eight, sp);
    }
    if let Some(&last) = rest.last() {
        let mut eight = [last; N_VALUES];
        eight.get_mut(..rest.len())?.copy_from_slice(rest);
        beyond |= write_group(groups.last_mut()?, &eight, sp);
    }
    (beyond == 0).then_some(())
}

/// Writes a group of single words, and returns what of their distances does not fit a place.
#[inline(always)]
fn write_group(group: &mut Group, words: &[Word; N_VALUES], sp: u64) -> u64 {
    let distances = words.map(|word| word.addr.wrapping_sub(sp) >> 3);
    let [a, b, c, d, e, f, g, h] = words.map(|word| word.value);
    let [i, j, k, l, m, n, o, p] = distances;
    let (first, second) = (i | j << 16 | k << 32 | l << 48, m | n << 16 | o << 32 | p << 48);
    *group = [a, b, c, d, e, f, g, h, first, second];
    distances.iter().fold(0, |all, distance| all | distance) >> 16
}

/// Writes groups of pairs and of single words; `None` if one is too far away. What is left of `words` are the single
/// ones.
fn write_both(
    pairs: &mut [Group],
    singles: &mut [Group],
    words: &mut [Word],
    sp: u64,
) -> Option<()> {
    let max_pairs = pairs.len().wrapping_mul(N_PAIRS);
    let (mut i, mut n_pairs, mut n_singles) = (0usize, 0usize, 0usize);
    while let Some(&word) = words.get(i) {
        i = i.wrapping_add(1);
        match words.get(i) {
            Some(&below) if n_pairs < max_pairs && below.is_below(word) => {
                write_pair(pairs, n_pairs, below, word, sp)?;
                n_pairs = n_pairs.wrapping_add(1);
                i = i.wrapping_add(1);
            }
            _ => {
                *words.get_mut(n_singles)? = word;
                n_singles = n_singles.wrapping_add(1);
            }
        }
    }
    write_singles(singles, words.get(..n_singles)?, sp)
}

/// Writes the `n`-th pair, of a word and the one above it; `None` if they are too far away.
fn write_pair(groups: &mut [Group], n: usize, low: Word, high: Word, sp: u64) -> Option<()> {
    let (place, _) = (place_of(low.addr, sp)?, place_of(high.addr, sp)?);
    let i = n % N_PAIRS;
    let (told, places) = groups.get_mut(n / N_PAIRS)?.split_first_chunk_mut::<N_VALUES>()?;
    if i == 0 {
        // What a record has left that has made way.
        places.fill(0);
    }
    *told.as_chunks_mut().0.get_mut(i)? = [low.value, high.value];
    *places.first_mut()? |= place.wrapping_shl(16u32.wrapping_mul(i as u32));
    Some(())
}

/// Words of memory that a record takes; `None` if it is cut short.
pub(super) fn len_of(record: &[u64]) -> Option<usize> {
    let &[_, _, _, facts, ..] = record.first_chunk::<HEADER_LEN>()?;
    Some(Groups::from_facts(facts).record_len())
}

/// Whether a record has this start.
pub(super) fn starts_at(record: &[u64], start: Start) -> bool {
    record.starts_with(&[start.key, start.sp])
}

/// The number of the slot that names a record.
pub(super) fn named_by(record: &[u64]) -> usize {
    record.get(SLOT_WORD).copied().unwrap_or(0) as u32 as usize
}

/// The guess of the record that held after one the last time.
#[cfg(test)]
pub(super) fn next_of(record: &[u64]) -> u64 {
    record.get(NEXT_WORD).copied().unwrap_or(0)
}

/// The start of a record.
#[cfg(test)]
pub(super) fn start_of(record: &[u64]) -> Start {
    Start { key: record[0], sp: record[1], fp: record[2] }
}

/// When a record was made.
pub(super) fn birth_of(record: &[u64]) -> u32 {
    (record.get(SLOT_WORD).copied().unwrap_or(0) >> 32) as u32
}

/// Notes which slot names a record.
pub(super) fn set_named_by(record: &mut [u64], number: usize) {
    if let Some(word) = record.get_mut(SLOT_WORD) {
        *word = *word & !u64::from(u32::MAX) | number as u64;
    }
}

/// A word of a record: its place and its value.
pub(super) type Told = (u64, u64);

/// The pairs of a record, leaf first: lower word and upper.
fn pairs_of(record: &[u64]) -> impl Iterator<Item = [Told; 2]> {
    let (groups, body) = parts_of(record);
    let pairs = body.get(..groups.pairs_len()).unwrap_or(&[]).as_chunks().0;
    pairs.iter().flat_map(|group| {
        let (values, places) = values_and_places(group);
        let pair = move |i: usize| {
            let (&[low, high], &place) = (values.as_chunks().0.get(i)?, places.get(i)?);
            Some([(place, low), (place.wrapping_add(1), high)])
        };
        (0..N_PAIRS).filter_map(pair)
    })
}

/// Its single words, leaf first, the last of them perhaps twice.
fn singles_of(record: &[u64]) -> impl Iterator<Item = Told> {
    let (groups, body) = parts_of(record);
    let singles = body.get(groups.pairs_len()..).unwrap_or(&[]).as_chunks().0;
    singles.iter().take(groups.n_singles).flat_map(|group| {
        let (values, places) = values_and_places(group);
        places.into_iter().zip(values)
    })
}

fn parts_of(record: &[u64]) -> (Groups, &[u64]) {
    let (header, body) = record.split_at_checked(HEADER_LEN).unwrap_or((&[], &[]));
    (Groups::from_facts(header.get(3).copied().unwrap_or(0)), body)
}

/// Returns the first word of a record, leaf first, of which `is_other` says that it has changed: of a frame, the
/// return address before the frame pointer.
pub(super) fn first_changed(record: &[u64], is_other: impl Fn(Told) -> bool) -> Option<Told> {
    let pair = pairs_of(record).flat_map(|[low, high]| [high, low]).find(|&told| is_other(told));
    let single = singles_of(record).find(|&told| is_other(told));
    pair.into_iter().chain(single).min_by_key(|&(place, _)| place)
}

/// Whether a record holds a word of a place.
pub(super) fn has_word_at(record: &[u64], place: u64) -> bool {
    first_changed(record, |(at, _)| at == place).is_some()
}

/// Returns the site of a record if a walk from `start` would now be the one it was made from.
pub(super) fn holds(record: &[u64], start: Start, world: &impl World) -> Option<NonZeroU32> {
    let is_whole = len_of(record).is_some_and(|len| len <= record.len());
    // SAFETY: it has all words that it says it has, and lies where records do (I8 of `records`).
    if is_whole { unsafe { whole_holds(record.as_ptr(), start, world) } } else { None }
}

/// The same of a record that is known to be whole, or else of [`HEADER_LEN`] words of which all but [`NEXT_WORD`] are
/// zero.
///
/// # Safety
///
/// So many words are there, of a record those that [`write`] has written; at a multiple of 16 bytes if `world` compares
/// vectors.
#[inline(always)]
pub(super) unsafe fn whole_holds(
    record: *const u64,
    start: Start,
    world: &impl World,
) -> Option<NonZeroU32> {
    // SAFETY: the caller's promise.
    let &[key, sp, fp, facts, _, _] = unsafe { &*record.cast::<[u64; HEADER_LEN]>() };
    // No start has a key of zero.
    if (key != start.key || sp != start.sp) && is_needed(Check::Start) {
        return None;
    }
    if facts & FP_COUNTS != 0 && fp != start.fp && is_needed(Check::StartFp) {
        return None;
    }
    let mut groups = record.wrapping_add(HEADER_LEN);
    if facts & HAS_PAIRS != 0 {
        let n_pairs = Groups::from_facts(facts).n_pairs;
        // SAFETY: a record has its groups of pairs behind the header.
        let pairs = unsafe { slice::from_raw_parts(groups.cast(), n_pairs) };
        if world.differ_by_pairs(sp, pairs) && is_needed(Check::Pairs) {
            return None;
        }
        groups = pairs.as_ptr_range().end.cast();
    }
    // SAFETY: its groups of single words lie behind these.
    let singles = unsafe { slice::from_raw_parts(groups.cast(), n_singles(facts)) };
    if world.differ_by_singles(sp, singles) && is_needed(Check::ReturnAddrs) {
        return None;
    }
    let at = |place: u64| world.read_word(sp.wrapping_add(place << 3));
    if facts & IS_AT_LIMIT != 0 && at(facts >> 48) == 0 && is_needed(Check::LimitWord) {
        return None;
    }
    NonZeroU32::new(facts as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::StackBounds;
    use crate::native::table::ProcessRules;
    extern crate std;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::vec::Vec;

    const START: Start = Start { key: 5, sp: 4096, fp: 7 };

    /// Words of a stack; whoever asks for another is told off.
    struct Memory(RefCell<BTreeMap<u64, u64>>);

    impl World for Memory {
        type Rules = ProcessRules;

        fn rules(&self) -> ProcessRules {
            ProcessRules::new()
        }

        fn read_word(&self, addr: u64) -> u64 {
            *self.0.borrow().get(&addr).expect("a word of the record")
        }

        fn trusted(&self, stack: &StackBounds) -> StackBounds {
            *stack
        }

        fn generation(&self) -> u32 {
            0
        }

        fn cycles(&self) -> u64 {
            0
        }

        fn look_for_unloaded(&self, _: impl Iterator<Item = u64>) {}
    }

    /// Words as walks find them: return addresses outward, some with a frame pointer below.
    fn words() -> impl Strategy<Value = Vec<Word>> {
        let frame =
            (1..40u64, any::<[u64; 2]>(), prop_oneof![1 => Just(0u64), 3 => Just(1), 1 => Just(2)]);
        prop::collection::vec(frame, 0..60).prop_map(|frames| {
            let (mut words, mut addr) = (Vec::new(), START.sp);
            for (n_words, [return_addr, fp], distance) in frames {
                addr += 8 * (n_words + 2);
                words.push(Word { addr, value: return_addr });
                if distance != 0 {
                    words.push(Word { addr: addr - 8 * distance, value: fp });
                }
            }
            words
        })
    }

    proptest! {
        #[test]
        fn a_record_holds_as_long_as_no_word_changes(
            words in words(), fp_counts: bool, is_at_limit: bool, which: prop::sample::Index,
            flip in 0..64u32,
        ) {
            let groups = Groups::of(&words).unwrap();
            let highest = words.iter().map(|word| word.addr).max().unwrap_or(START.sp);
            let limit_slot = is_at_limit.then_some(highest + 8);
            let outcome = Outcome { start: START, site: 9, fp_counts, limit_slot };
            let mut record = std::vec![0; groups.record_len()];
            write(&mut record, outcome, groups, &mut words.clone(), 77).unwrap();
            set_named_by(&mut record, 5);
            prop_assert_eq!((named_by(&record), birth_of(&record)), (5, 77));
            prop_assert_eq!(len_of(&record), Some(record.len()));
            let place = |word: &Word| ((word.addr - START.sp) / 8, word.value);
            let told: BTreeSet<_> =
                pairs_of(&record).flatten().chain(singles_of(&record)).collect();
            prop_assert_eq!(told, words.iter().map(place).collect());

            let memory = words.iter().map(|word| (word.addr, word.value));
            let memory = Memory(RefCell::new(memory.chain(limit_slot.map(|addr| (addr, 1))).collect()));
            let site = |start| holds(&record, start, &memory).map(NonZeroU32::get);
            prop_assert_eq!(site(START), Some(9));
            prop_assert_eq!(site(Start { fp: 8, ..START }), (!fp_counts).then_some(9));
            prop_assert_eq!(site(Start { key: 6, ..START }), None);
            if words.is_empty() {
                return Ok(());
            }
            let changed = which.get(&words).addr;
            *memory.0.borrow_mut().get_mut(&changed).unwrap() ^= 1 << flip;
            prop_assert_eq!(site(START), None);
            let is_other = |(place, value)| memory.read_word(START.sp + 8 * place) != value;
            let first = first_changed(&record, is_other).unwrap();
            prop_assert_eq!(first, place(which.get(&words)));
            *memory.0.borrow_mut().get_mut(&changed).unwrap() ^= 1 << flip;
            prop_assert_eq!(site(START), Some(9));
            if let Some(addr) = limit_slot {
                memory.0.borrow_mut().insert(addr, 0);
                prop_assert_eq!(site(START), None);
            }
        }
    }

    #[test]
    fn frame_pointers_beside_return_addresses_take_less_room() {
        let frames = (1..=25u64).flat_map(|i| {
            let addr = START.sp + 64 * i;
            [Word { addr, value: i }, Word { addr: addr - 8, value: addr + 56 }]
        });
        let groups = Groups::of(&frames.collect::<Vec<_>>()).unwrap();
        assert_eq!(groups, Groups { n_pairs: 6, n_singles: 1 });
    }

    #[test]
    fn where_all_has_changed_the_first_return_address_is_told() {
        for n_frames in [3, 4, 9] {
            let frames = (1..=n_frames).flat_map(|i| {
                let addr = START.sp + 64 * i;
                [Word { addr, value: i }, Word { addr: addr - 8, value: addr }]
            });
            let outcome = Outcome { start: START, site: 1, fp_counts: true, limit_slot: None };
            let mut frames: Vec<_> = frames.collect();
            let groups = Groups::of(&frames).unwrap();
            let mut record = std::vec![0; groups.record_len()];
            write(&mut record, outcome, groups, &mut frames, 1).unwrap();
            assert_eq!(first_changed(&record, |_| true), Some((8, 1)));
            assert_eq!(first_changed(&record, |(place, _)| place > 8), Some((16, 2)));
            assert_eq!(first_changed(&record, |(place, _)| place == 7), Some((7, START.sp + 64)));
            assert_eq!(first_changed(&record, |_| false), None);
        }
    }

    #[test]
    fn a_word_too_far_away_makes_no_record() {
        let mut far = [Word { addr: START.sp + (8 << 16), value: 1 }];
        let groups = Groups::of(&far).unwrap();
        let outcome = Outcome { start: START, site: 1, fp_counts: false, limit_slot: None };
        let mut record = std::vec![0; groups.record_len()];
        assert_eq!(write(&mut record, outcome, groups, &mut far, 1), None);
    }
}
