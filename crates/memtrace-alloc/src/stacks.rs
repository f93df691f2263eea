//! Stacks, stored as lists of *runs* of frames: a run that several stacks have in common is there once.
//!
//! A stack is cut behind every address that [ends a run](ends_run), one of four or so, and after [`MAX_RUN`]
//! frames. So what two stacks have in common is cut alike in both, from the first such address in it on, wherever it
//! lies. (*Content-defined chunking*, as stores of files do it:
//! A. Muthitacharoen, B. Chen, D. Mazières, "A Low-bandwidth Network File System", SOSP 2001.) Of 1.7 million stacks of
//! a parser of Rust, 25 frames deep, through 2,018 calls, runs of up to 8 frames leave 33 bytes each of 200; where
//! one address in two ends a run 59, in eight 52 with runs of up to 16.
//!
//! # Invariants
//!
//! - **I1** An element of `lists` below `n_listed` is the number of a word below `n_words`, at which a run begins; neither ever
//!   changes.
//! - **I2** A slot of the table of runs is zero (empty), or has the number of the first word of a run in its lower half
//!   and a part of the run's hash in the upper one. At most three quarters are in use.
//! - **I3** The words of a run lie in one segment.
//!
//! Runs do not say how long they are. Who reads a stack knows how many frames it has, and sees where a run ends.
//!
//! # Orderings
//!
//! None: [`Stacks::add`] is called under a lock, and who called it publishes what it returned.
//!
//! # Cost
//!
//! To add: a look into a table of a few thousand runs for every three frames. To read: a load and some arithmetic
//! a frame.
#![expect(unsafe_code, reason = "structures in mapped memory, shared without locks")]

use crate::mapped::{self, Part};
use crate::segments::Segments;
use core::ptr::{self, NonNull};

/// Frames of a run, at most.
const MAX_RUN: usize = 8;
const FIRST_TABLE_LEN: usize = 1 << 9;
const N_SEGMENTS: usize = 20;

/// Stacks that do not change, and places for more of them.
pub(crate) struct Stacks {
    /// The addresses of all runs. Number 0 is no one's.
    words: Segments<u64, { 1 << 10 }, N_SEGMENTS>,
    /// Of each stack the numbers of its runs' first words, newest frame first.
    lists: Segments<u32, { 1 << 11 }, N_SEGMENTS>,
}

/// What is in use of [`Stacks`], and which runs there are: for who adds to them.
pub(crate) struct Runs {
    n_words: u32,
    n_listed: u32,
    n_runs: usize,
    table: *mut u64,
    table_len: usize,
}

// SAFETY: the table is used by whoever has the value.
unsafe impl Send for Runs {}

impl Stacks {
    pub(crate) const fn new() -> Self {
        Self { words: Segments::new(Part::Sites), lists: Segments::new(Part::Sites) }
    }

    /// Stores a stack, newest frame first, and returns by which number it is [read](Self::read); `None` if there is no
    /// room.
    ///
    /// `runs` are always the same for these stacks.
    pub(crate) fn add(&self, runs: &mut Runs, call_addrs: &[u64]) -> Option<u32> {
        let first = runs.n_listed;
        let mut number = first;
        let mut rest = call_addrs;
        while let Some((hash, run, others)) = first_run(rest) {
            // First, so that runs are not stored for nothing.
            let place = self.lists.place_or_map(number)?;
            let word = self.intern(runs, hash, run)?;
            // SAFETY: mapped, and not read by anyone before the stack's number is known.
            unsafe { place.write(word) };
            number = number.checked_add(1)?;
            rest = others;
        }
        runs.n_listed = number;
        Some(first)
    }

    /// Returns the addresses of a stack that was added as `first`, of `n_frames`.
    pub(crate) const fn read(&'static self, first: u32, n_frames: usize) -> CallAddrs {
        CallAddrs {
            stacks: self,
            list: first,
            n_in_run: MAX_RUN,
            word: NonNull::dangling(),
            n_left: n_frames,
        }
    }

    /// Returns the number of the first word of a run, which is stored if there is none like it.
    #[inline(always)]
    fn intern(&self, runs: &mut Runs, hash: u64, run: &[u64]) -> Option<u32> {
        if !runs.has_room() && !runs.grow() {
            return None;
        }
        let n_words = runs.n_words;
        let slots = runs.slots();
        let slot = slots.get_mut(place(slots, hash, |word| self.is_at(word, run, n_words)))?;
        if *slot != 0 {
            return Some(*slot as u32);
        }
        let (first, place) = self.room_for(run.len(), n_words)?;
        // SAFETY: there is room, which is not read by anyone before it is part of a stack.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(run).cast(), run.len()) };
        *slot = hash & TAG_MASK | u64::from(first);
        runs.n_words = first.saturating_add(run.len() as u32);
        runs.n_runs = runs.n_runs.wrapping_add(1);
        Some(first)
    }

    /// Finds room for the words of a run (I3), from a number on that no one has.
    #[cold]
    #[inline(never)]
    fn room_for(&self, len: usize, number: u32) -> Option<(u32, NonNull<u64>)> {
        self.words.place_or_map(number)?;
        let (place, n_places) = self.words.places_from(number)?;
        if len <= n_places {
            return Some((number, place));
        }
        // The next segment, which is longer than a run.
        let number = number.checked_add(u32::try_from(n_places).ok()?)?;
        Some((number, self.words.place_or_map(number)?))
    }

    /// Whether a run lies at a word, among the first `n_words`. It may be another one that begins in the same way: it is
    /// read alike.
    fn is_at(&self, word: u32, run: &[u64], n_words: u32) -> bool {
        let Some((first, n_places)) = self.words.places_from(word) else { return false };
        let n_told = n_places.min(n_words.saturating_sub(word) as usize);
        let word = |i: usize| {
            // SAFETY: no further than there are places, below.
            let place = unsafe { first.add(i) };
            // SAFETY: it was written, or will never be; and nobody else writes.
            unsafe { place.read() }
        };
        run.len() <= n_told && run.iter().enumerate().all(|(i, &addr)| word(i) == addr)
    }

    #[inline]
    fn listed(&self, number: u32) -> Option<u32> {
        // SAFETY: mapped memory, written before anyone knew of the stack.
        self.lists.place(number).map(|place| unsafe { place.read() })
    }
}

impl Runs {
    pub(crate) const fn new() -> Self {
        Self { n_words: 1, n_listed: 0, n_runs: 0, table: ptr::null_mut(), table_len: 0 }
    }

    fn slots(&mut self) -> &mut [u64] {
        if self.table.is_null() {
            return &mut [];
        }
        // SAFETY: mapped with this length, zeroed, and this value's alone.
        unsafe { core::slice::from_raw_parts_mut(self.table, self.table_len) }
    }

    const fn has_room(&self) -> bool {
        self.n_runs < self.table_len.wrapping_sub(self.table_len / 4)
    }

    /// Replaces the table by one twice as large; `false` if there is no memory for it. Those that were replaced are, all
    /// together, no larger than the last one, and stay.
    fn grow(&mut self) -> bool {
        let len = self.table_len.saturating_mul(2).max(FIRST_TABLE_LEN);
        let table = mapped::map::<u64>(len, Part::Sites);
        if table.is_null() {
            return false;
        }
        let mut grown = Self { table, table_len: len, ..*self };
        for &slot in self.slots().iter().filter(|slot| **slot != 0) {
            let slots = grown.slots();
            if let Some(place) = slots.get_mut(place(slots, slot, |_| false)) {
                *place = slot;
            }
        }
        *self = grown;
        true
    }
}

/// The bits of a hash that a slot has.
const TAG_MASK: u64 = !(u32::MAX as u64);

/// Returns the place of the slot that has a hash, and a word of which `is_it` says that it is the right one, or else that of
/// an empty one.
fn place(slots: &[u64], hash: u64, is_it: impl Fn(u32) -> bool) -> usize {
    let mask = slots.len().wrapping_sub(1);
    let mut place = (hash >> 32) as usize & mask;
    while let Some(&slot) = slots.get(place)
        && slot != 0
        && ((slot ^ hash) & TAG_MASK != 0 || !is_it(slot as u32))
    {
        place = place.wrapping_add(1) & mask;
    }
    place
}

/// Spreads the bits of an address to the uppermost ones.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Whether a stack is cut behind an address.
#[inline(always)]
const fn ends_run(addr: u64) -> bool {
    addr.wrapping_mul(SPREAD) >> 62 == 0
}

/// Cuts off the first run of a stack: its hash, the run, and what follows it. `None` of no frames.
#[inline(always)]
fn first_run(call_addrs: &[u64]) -> Option<(u64, &[u64], &[u64])> {
    let mut hash = 0u64;
    let mut len = 0usize;
    for &addr in call_addrs.iter().take(MAX_RUN) {
        hash = hash.rotate_left(29) ^ addr.wrapping_mul(SPREAD);
        len = len.wrapping_add(1);
        if ends_run(addr) {
            break;
        }
    }
    let (run, others) = call_addrs.split_at_checked(len).filter(|(run, _)| !run.is_empty())?;
    Some((hash.wrapping_mul(SPREAD), run, others))
}

/// Addresses inside the calling instructions of a stack, newest first.
#[derive(Clone)]
pub struct CallAddrs {
    stacks: &'static Stacks,
    /// The next run in the list.
    list: u32,
    /// Words of this one so far; so many as end it, too, where one ends otherwise.
    n_in_run: usize,
    /// The next of them.
    word: NonNull<u64>,
    n_left: usize,
}

// SAFETY: what it points to stays there and does not change.
unsafe impl Send for CallAddrs {}
// SAFETY: the same.
unsafe impl Sync for CallAddrs {}

impl Iterator for CallAddrs {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        let n_left = self.n_left.checked_sub(1)?;
        if self.n_in_run == MAX_RUN {
            self.word = self.stacks.words.place(self.stacks.listed(self.list)?)?;
            self.list = self.list.wrapping_add(1);
            self.n_in_run = 0;
        }
        // SAFETY: the word of a run that is part of a stack (I1), in one segment (I3).
        let addr = unsafe { self.word.read() };
        // SAFETY: no further than just behind that segment.
        self.word = unsafe { self.word.add(1) };
        self.n_in_run = if ends_run(addr) { MAX_RUN } else { self.n_in_run.wrapping_add(1) };
        self.n_left = n_left;
        Some(addr)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.n_left, Some(self.n_left))
    }
}

impl ExactSizeIterator for CallAddrs {}
impl core::iter::FusedIterator for CallAddrs {}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn stacks() -> (&'static Stacks, Runs) {
        (Box::leak(Box::new(Stacks::new())), Runs::new())
    }

    /// Stacks of few addresses, which have much in common, some of them long.
    fn many() -> impl Strategy<Value = Vec<Vec<u64>>> {
        let stack = |n_addrs, len| prop::collection::vec(0..n_addrs, 0..len);
        let stack =
            prop_oneof![8 => stack(4u64, 12usize), 4 => stack(300, 40), 1 => stack(9, 3000)];
        prop::collection::vec(stack, 1..200)
    }

    fn cut(call_addrs: &[u64]) -> impl Iterator<Item = &[u64]> {
        let mut rest = call_addrs;
        core::iter::from_fn(move || {
            let (_, run, others) = first_run(rest)?;
            rest = others;
            Some(run)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn what_was_added_is_read(added in many()) {
            let (stacks, mut runs) = stacks();
            let numbers: Vec<u32> =
                added.iter().map(|stack| stacks.add(&mut runs, stack).unwrap()).collect();
            for (&number, stack) in numbers.iter().zip(&added) {
                let read = stacks.read(number, stack.len());
                prop_assert_eq!(read.len(), stack.len());
                prop_assert_eq!(read.collect::<Vec<_>>(), &stack[..]);
            }
            // Once more, and all runs are there.
            let before = (runs.n_words, runs.n_runs);
            for stack in &added {
                stacks.add(&mut runs, stack).unwrap();
            }
            prop_assert_eq!((runs.n_words, runs.n_runs), before);
        }

        #[test]
        fn stacks_are_cut_alike_wherever_a_run_lies(
            stack in prop::collection::vec(any::<u64>(), 0..100), before in prop::collection::vec(any::<u64>(), 0..20),
        ) {
            let runs: Vec<&[u64]> = cut(&stack).collect();
            prop_assert_eq!(runs.concat(), &stack[..]);
            let is_cut = |run: &&[u64]| {
                let (last, others) = run.split_last().unwrap();
                run.len() <= MAX_RUN
                    && !others.iter().any(|&addr| ends_run(addr))
                    && (ends_run(*last) || run.len() == MAX_RUN)
            };
            prop_assert!(runs.iter().rev().skip(1).all(is_cut), "{runs:?}");
            // From the first address on that ends a run, other frames before it change nothing.
            let Some(first) = stack.iter().position(|&addr| ends_run(addr)) else { return Ok(()) };
            let other = [&before[..], &stack[first..]].concat();
            let (tail, others): (Vec<_>, Vec<_>) = (cut(&stack[first + 1..]).collect(), cut(&other).collect());
            prop_assert!(others.ends_with(&tail));
        }
    }

    #[test]
    fn deep_stacks_that_differ_in_their_newest_frames_share_the_others() {
        let (stacks, mut runs) = stacks();
        // As addresses of code are: a recursion of 40 functions, 25 frames of it, called from 20,000 places.
        let addr = |function: u64, call: u64| 0x5555_5555_0000 + function * 977 + call * 13;
        let stack = |i: u64| -> Vec<u64> {
            let newest = addr(100, i);
            core::iter::once(newest).chain((0..24).map(|k| addr((i + k) % 40, 0))).collect()
        };
        let numbers: Vec<u32> =
            (0..20_000).map(|i| stacks.add(&mut runs, &stack(i)).unwrap()).collect();
        for (i, &number) in (0..).zip(&numbers) {
            assert!(stacks.read(number, 25).eq(stack(i)), "{i}");
        }
        let n_bytes = 8 * runs.n_words + 4 * runs.n_listed + 8 * runs.table_len as u32;
        assert!(n_bytes < 20_000 * 100, "{} bytes a stack, not 200", n_bytes / 20_000);
    }

    #[test]
    fn without_memory_a_stack_is_refused_and_those_before_stay() {
        for n_before in 0.. {
            let (stacks, mut runs) = stacks();
            let mut added = Vec::new();
            let is_refused = mapped::refusal::during(n_before, || {
                for i in 0..3000u64 {
                    let stack: Vec<u64> = (0..i % 30).map(|k| i * k * 977).collect();
                    let number = stacks.add(&mut runs, &stack);
                    added.push((stack, number));
                }
            });
            for (stack, number) in &added {
                if let &Some(number) = number {
                    assert!(stacks.read(number, stack.len()).eq(stack.iter().copied()));
                }
            }
            let n_refused = added.iter().filter(|(_, number)| number.is_none()).count();
            assert_eq!(n_refused > 0, is_refused);
            if !is_refused {
                assert!(n_before > 10);
                break;
            }
        }
    }
}
