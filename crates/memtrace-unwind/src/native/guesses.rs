//! Guesses: which record is likeliest to hold, from what is known before a capture begins.
//!
//! What they are, where they lie and what they promise is said in [`records`](crate::native::records): its invariants
//! I5 to I7 are those of this module.
#![expect(
    unsafe_code,
    reason = "reads guesses, and records that are whole, without a look at their bounds"
)]

use crate::bounds::StackBounds;
use crate::native::record::{HEADER_LEN, NEXT_WORD, Start, whole_holds};
use crate::native::records::{Extent, index_len};
use crate::native::world::World;
use core::num::NonZeroU32;

/// Guesses that are found by start and record, for each slot of the index. Fewer would share places: two that do
/// take turns at being wrong.
pub(super) const N_GUESSES_A_SLOT: usize = 4;
/// Words that decide between guesses, at most.
pub(super) const MAX_FURTHER: usize = 4;
/// Words at the front: a record of no start, which comes before the first. All but [`NEXT_WORD`] stay zero.
pub(super) const FRONT_LEN: usize = 8;

const _: () = assert!(HEADER_LEN <= FRONT_LEN);

/// How the guesses lie in a memory: the number of those that are found by start and record, a power of two, less one.
#[derive(Clone, Copy)]
pub(crate) struct GuessMask(usize);

impl GuessMask {
    /// That of no memory.
    pub(crate) const NONE: Self = Self(0);

    /// That of a memory of `n_words`; `None` if there is no room for guesses, or they could not tell where a record is.
    pub(crate) const fn of(n_words: usize) -> Option<Self> {
        if n_words > 1 << OFFSET_BITS {
            return None;
        }
        match index_len(n_words).wrapping_mul(N_GUESSES_A_SLOT).checked_sub(1) {
            Some(mask) => Some(Self(mask)),
            None => None,
        }
    }

    /// Returns the number of the guess that is found by start and record.
    #[inline(always)]
    pub(super) const fn number(self, hash: u64) -> usize {
        (hash >> 40) as usize & self.0
    }

    /// Returns the number of one that is found by words of the stack, too. Were it among the others, each kind would
    /// displace the other.
    #[inline(always)]
    pub(super) const fn further_number(self, hash: u64) -> usize {
        let mask = self.0 / N_GUESSES_A_SLOT;
        ((hash >> 40) as usize & mask).wrapping_add(self.0).wrapping_add(1)
    }
}

/// What a guess is made from: memory of [`Records`](crate::native::records::Records), and what is known of it.
pub(crate) struct Recollection<'a> {
    memory: *mut u64,
    mask: GuessMask,
    // And not the number that is asked for: that would take a register from the beginning.
    extent: &'a Extent,
    hints: &'a mut Hints,
}

impl<'a> Recollection<'a> {
    /// # Safety
    ///
    /// `memory` holds records of which these are extent and hints, and `mask` is that of its length. It begins at a
    /// multiple of 16 bytes if the world compares vectors.
    #[inline(always)]
    pub(crate) unsafe fn of(
        memory: &'a mut [u64],
        mask: GuessMask,
        extent: &'a Extent,
        hints: &'a mut Hints,
    ) -> Self {
        Self { memory: memory.as_mut_ptr(), mask, extent, hints }
    }

    /// Returns the site of the record that held the last time after the record that held last, with this start, if it
    /// holds now.
    #[inline(always)]
    pub(crate) fn recall(mut self, start: Start, world: &impl World) -> Option<NonZeroU32> {
        // Beside what is in use anyway, and right most of the time: so the table of guesses is not looked at.
        let mut guess = *self.next();
        if tag_of(guess) != tag(start) {
            guess = self.guess(self.mask.number(self.hints.hash(start)));
            if is_ambiguous(guess) {
                return None;
            }
            *self.next() = guess;
        }
        self.follow(guess, start, world)
    }

    /// The same where that was wrong or ambiguous: what decides are words of the stack, too.
    #[inline(always)]
    pub(crate) fn recall_further(
        mut self,
        start: Start,
        stack: &StackBounds,
        world: &impl World,
    ) -> Option<NonZeroU32> {
        let mut hash = self.hints.hash(start);
        let mut guess = self.guess(self.mask.number(hash));
        for _ in 0..MAX_FURTHER {
            if !is_ambiguous(guess) {
                break;
            }
            hash = hash_with(hash, word_within(start, place_of(guess), stack, world)?);
            guess = self.guess(self.mask.further_number(hash));
        }
        // What is noted as the next is what did not hold.
        if is_ambiguous(guess) || guess == *self.next() {
            return None;
        }
        *self.next() = guess;
        self.follow(guess, start, world)
    }

    /// Where the guess is of the record that holds next: in the one that held last.
    #[inline(always)]
    fn next(&mut self) -> &mut u64 {
        // SAFETY: that record is whole (I7).
        unsafe { &mut *self.memory.wrapping_add(self.hints.last).wrapping_add(NEXT_WORD) }
    }

    #[inline(always)]
    fn guess(&self, number: usize) -> u64 {
        // SAFETY: below the number of all guesses, which lie behind the front (I6).
        unsafe { self.memory.wrapping_add(FRONT_LEN).wrapping_add(number).read() }
    }

    /// Returns the site of the record that a guess leads to if it holds. Nothing guessed leads to the front, where
    /// there is no start.
    #[inline(always)]
    fn follow(self, guess: u64, start: Start, world: &impl World) -> Option<NonZeroU32> {
        // There may be another record by now, or a part of one.
        if born(guess) < self.extent.n_gone() {
            return None;
        }
        let offset = offset_of(guess);
        // SAFETY: a record that has not made way is whole (I5).
        let site = unsafe { whole_holds(self.memory.wrapping_add(offset), start, world) }?;
        self.hints.last = offset;
        Some(site)
    }
}

/// What guesses are made from, beside the start: what is known before a capture begins.
#[derive(Clone, Copy)]
pub(crate) struct Hints {
    /// Where in memory the record is that held last.
    pub(super) last: usize,
}

impl Hints {
    pub(crate) const NONE: Self = Self { last: 0 };

    /// By what a guess is found: the start, and the record before.
    #[inline(always)]
    pub(super) const fn hash(&self, start: Start) -> u64 {
        let state = (start.sp ^ (self.last as u64) << 21).wrapping_add(start.key << 29);
        state.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

/// What stands for a guess where the facts by which it was found are those of more than one record. Below it is the
/// place of a word that decides, too.
pub(super) const AMBIGUOUS: u64 = 1 << 63;

#[inline(always)]
pub(super) const fn is_ambiguous(guess: u64) -> bool {
    // Compilers take a number below zero for the exception, too.
    (guess as i64) < 0
}

/// The place of an ambiguous guess.
#[inline(always)]
pub(super) const fn place_of(guess: u64) -> u64 {
    guess & 0xFFFF
}

/// Bits of a guess: when the record was made, where it is, and what its start is like; above them [`AMBIGUOUS`].
const OFFSET_SHIFT: u32 = 32;
const TAG_SHIFT: u32 = OFFSET_SHIFT + OFFSET_BITS;
/// Memories have at most so many words, as a power of two.
pub(super) const OFFSET_BITS: u32 = 23;
const TAG_MASK: u64 = (1 << (63 - TAG_SHIFT)) - 1;

/// The guess that leads to a record of this start.
pub(super) const fn guess_of(start: Start, offset: usize, birth: u32) -> u64 {
    tag(start) << TAG_SHIFT | (offset as u64) << OFFSET_SHIFT | birth as u64
}

/// What a start is like, by which most of those are told apart that come after the same record.
#[inline(always)]
pub(super) const fn tag(start: Start) -> u64 {
    start.key.wrapping_add(start.sp) & TAG_MASK
}

/// That of the start a guess is for; none of any start where it is ambiguous.
#[inline(always)]
pub(super) const fn tag_of(guess: u64) -> u64 {
    guess >> TAG_SHIFT
}

#[inline(always)]
pub(super) const fn offset_of(guess: u64) -> usize {
    (guess >> OFFSET_SHIFT) as usize & ((1 << OFFSET_BITS) - 1)
}

#[inline(always)]
pub(super) const fn born(guess: u64) -> u32 {
    guess as u32
}

/// The hash with which one goes on from a fork at which this word was found.
#[inline(always)]
pub(super) const fn hash_with(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Returns the word at a place; `None` beyond the stack, where places noted for another stack pointer may lie.
#[inline(always)]
pub(super) fn word_within(
    start: Start,
    place: u64,
    stack: &StackBounds,
    world: &impl World,
) -> Option<u64> {
    let addr = start.sp.wrapping_add(place << 3);
    stack.contains_word(addr).then(|| world.read_word(addr))
}
