//! Earlier walks of a thread, by the state in which they began: *validated records*.
//!
//! A record holds the state at the start of a walk, every word that the walk depended on, and the site
//! that it led to. If a capture begins in the same state, and all those words hold the same values, a
//! walk would end at the same site. The comparisons are independent loads at known addresses: a walk's
//! steps wait for each other, these do not.
//!
//! # Layout
//!
//! Records, each as [`record`](super::record) says, lie one after the other in an array of words that is filled
//! over and over again, so that the oldest makes way for the newest.
//!
//! Several stacks often begin in the same state and differ further out. Which of them it is, is *guessed*: each record
//! says which one held next to it the last time, and if the start is like that one's, it is likely to hold again. So
//! nothing is read but records, of which the one that held last is at hand. Loops of allocations find 91 to 99 of 100
//! stacks in this way, a parser of JSON 67 and a web service 70. A record that is made is noted as the next one at
//! once: a program that does once more what it has done needs no third time.
//!
//! Where the start is another, or this guess was wrong, a table of guesses is asked for the record that held the last time
//! with this start and after the same other record. Where these have been those of
//! several, a word at a place where the stack of a wrong guess differed decides, too, and where that is not
//! enough another word, as in a decision tree. Start and record are known when a capture begins, and so is the place
//! where the guess is noted. Programs repeat themselves: of a parser of JSON that takes 359 pairs of start and record,
//! each of which always leads to the same, 996 guesses of 1000 are right.
//!
//! Where it is wrong, an *index* finds the record by its start. Where two records have a start in common, a
//! *fork* takes their place in the index. It says at which place the two differ first, leaf first; the hash
//! goes on with the word found there. Up to that place the two walks are the same, so that both read the word: a
//! return address, or a saved frame pointer where nothing else differs. So forks make a tree that leads from a start to
//! the one record that may hold. A hash has a set of [`N_WAYS`] slots, and one of them at which a fork or a record
//! stands if there is room. What a stack has at the place of a fork, or of a guess, that it has no frame at is data: as
//! soon as such a stack comes, the tree begins anew with a word that all of them have.
//!
//! # Invariants
//!
//! - **I1** A slot of the index is zero, or has the offset in memory of a record, or is a fork; with a part of
//!   the hash.
//! - **I2** A record that makes way is taken out of the index first: what a slot names is always whole.
//! - **I3** All places of a record lie in the thread's own stack, given its stack pointer.
//! - **I4** Guesses and forks are hints only: a record is good if it holds, however it was found.
//! - **I5** A guess that is not [ambiguous](AMBIGUOUS) names a record by its offset, its birth and a few bits of its start,
//!   or is zero. If the birth is not below the number of words that have made way, the record is there, and whole; else
//!   there may be anything.
//! - **I6** A [`Recollection`](super::guesses::Recollection) has the mask of its memory's length: every guess that it asks for is there.
//! - **I7** [`Hints`] name a record that is whole, or the front, which is as long as the header of one. What it says of
//!   the next record is a guess.
//! - **I8** Records begin at multiples of [`VECTOR_LEN`] words of a memory that begins at a multiple of 16 bytes; in tests,
//!   where no vectors are compared, any memory will do.

use crate::bounds::StackBounds;
use crate::native::guesses::{
    AMBIGUOUS, FRONT_LEN, GuessMask, Hints, MAX_FURTHER, N_GUESSES_A_SLOT, born, guess_of,
    hash_with, is_ambiguous, offset_of, place_of, word_within,
};
use crate::native::record::{
    self, Groups, NEXT_WORD, Outcome, Start, VECTOR_LEN, Word, birth_of, first_changed,
    has_word_at, holds, len_of, named_by, set_named_by, starts_at,
};
use crate::native::world::World;
use core::num::NonZeroU32;

/// Slots of a set.
const N_WAYS: usize = 4;
// What lies before the records (I8): the front, and for each set guesses, slots and half as many marks.
const _: () = assert!(
    FRONT_LEN.is_multiple_of(VECTOR_LEN)
        && (N_WAYS * (N_GUESSES_A_SLOT + 2) + N_WAYS / 2).is_multiple_of(VECTOR_LEN)
);
/// Words of records after which their births begin anew, and with them all that is remembered. Few in tests.
const MAX_MADE: u32 = if cfg!(test) { 1 << 15 } else { 1 << 30 };
/// Forks that a search passes by, at most.
const MAX_DEPTH: usize = 32;
/// What says of a slot that it is a fork, and which bits of its hash a slot has.
const IS_FORK: u64 = 1 << 63;
const TAG_MASK: u64 = !(u32::MAX as u64) & !IS_FORK;

impl Start {
    /// The hash with which a search begins.
    #[inline(always)]
    const fn hash(self) -> u64 {
        hash_with(self.key.rotate_left(29), self.sp)
    }
}

/// What is known of an array of records beside its memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Where the oldest record is, and where the next goes.
    tail: usize,
    head: usize,
    /// Where the records end that lie behind `head`, when it has begun anew at the front.
    end: usize,
    n_records: usize,
    /// Words of all records so far, of which the number at its beginning is a record's *birth*, and of those of them
    /// that have made way.
    n_made: u32,
    n_gone: u32,
    /// Times that the array was filled.
    n_turns: u32,
}

impl Extent {
    /// An array of no records.
    pub(crate) const EMPTY: Self =
        Self { tail: 0, head: 0, end: 0, n_records: 0, n_made: 0, n_gone: 0, n_turns: 0 };

    /// Returns how many words of records have made way.
    #[inline(always)]
    pub(super) const fn n_gone(&self) -> u32 {
        self.n_gone
    }

    /// Returns how many words of records were made.
    pub(crate) const fn n_made(&self) -> u32 {
        self.n_made
    }

    /// Returns how often all room was used up.
    pub(crate) const fn n_turns(&self) -> u32 {
        self.n_turns
    }
}

/// Slots of the index for a memory of `n_words`: one word in 16, or in 32 where there are many, a power of two. There are
/// four times as many guesses that are found first, as many of all others, and half as many marks.
pub(super) const fn index_len(n_words: usize) -> usize {
    let len = if n_words <= 1 << 17 { n_words / 16 } else { n_words / 32 };
    if len < N_WAYS { 0 } else { 1 << len.ilog2() }
}

impl Records<'_> {
    /// Notes what would have been the right guess, and, where a wrong one of the same start was made, by which word
    /// it would have been known.
    fn note_guess(
        &mut self,
        start: Start,
        stack: &StackBounds,
        world: &impl World,
        right: u64,
    ) -> Option<()> {
        let mask = self.mask;
        let now = |place: u64| world.read_word(start.sp.wrapping_add(place << 3));
        let mut hash = self.hints.hash(start);
        let mut number = mask.number(hash);
        let mut place = None;
        for n_words in 0..=MAX_FURTHER {
            let guess = *self.guesses.get(number)?;
            if !is_ambiguous(guess) {
                let other = if n_words == MAX_FURTHER { None } else { self.guessed(guess) };
                // What was found by other facts has only displaced the right one.
                let other = other.filter(|record| starts_at(record, start));
                let told =
                    other.and_then(|record| first_changed(record, |(at, word)| now(at) != word));
                let Some((at, word)) = told.filter(|(at, _)| Some(*at) != place) else { break };
                *self.guesses.get_mut(number)? = AMBIGUOUS | at;
                for (word, guess) in [(word, guess), (now(at), right)] {
                    *self.guesses.get_mut(mask.further_number(hash_with(hash, word)))? = guess;
                }
                return Some(());
            }
            // What decides between others may be data here: then it makes way for what they all have.
            let is_read =
                self.guessed(right).is_some_and(|record| has_word_at(record, place_of(guess)));
            let word = word_within(start, place_of(guess), stack, world);
            let Some(word) = word.filter(|_| is_read) else { break };
            place = Some(place_of(guess));
            if n_words != MAX_FURTHER {
                hash = hash_with(hash, word);
                number = mask.further_number(hash);
            }
        }
        *self.guesses.get_mut(number)? = right;
        Some(())
    }

    /// Notes in the record that held last which one holds now.
    fn note_next(&mut self, guess: u64) {
        let place = match self.hints.last.checked_sub(self.base) {
            Some(last) => self.words.get_mut(last.wrapping_add(NEXT_WORD)),
            None => self.front.get_mut(NEXT_WORD),
        };
        if let Some(place) = place {
            *place = guess;
        }
    }

    /// The record that a guess leads to; `None` where nothing is guessed, or it leads nowhere by now.
    fn guessed(&self, guess: u64) -> Option<&[u64]> {
        let record = self.words.get(offset_of(guess).checked_sub(self.base)?..)?;
        (born(guess) >= self.extent.n_gone).then_some(record)
    }

    /// Searches the index for a record that holds, and notes it as the right guess.
    #[inline(never)]
    pub(crate) fn search(
        &mut self,
        start: Start,
        stack: &StackBounds,
        world: &impl World,
    ) -> Option<NonZeroU32> {
        let mut hash = start.hash();
        for _ in 0..=MAX_DEPTH {
            let first = set_start(hash, self.index.len());
            let set: &[u64; N_WAYS] = self.index.get(first..)?.first_chunk()?;
            let mut fork = None;
            for &slot in set.iter().filter(|slot| has_tag(**slot, hash)) {
                if is_fork(slot) {
                    fork = Some(slot);
                    continue;
                }
                let offset = slot as u32 as usize;
                let record = self.words.get(offset.wrapping_sub(self.base)..)?;
                if let Some(site) = holds(record, start, world) {
                    let guess = guess_of(start, offset, birth_of(record));
                    self.note_guess(start, stack, world, guess);
                    self.note_next(guess);
                    self.hints.last = offset;
                    return Some(site);
                }
            }
            hash = hash_with(hash, word_at(start, place_of_fork(fork?), stack, world));
        }
        None
    }
}

/// The same; zero beyond the stack.
#[inline(always)]
fn word_at(start: Start, place: u64, stack: &StackBounds, world: &impl World) -> u64 {
    word_within(start, place, stack, world).unwrap_or(0)
}

/// Returns the slot at which a hash is looked for first, in an index of a power of two slots.
#[inline(always)]
const fn slot_number(hash: u64, n_slots: usize) -> usize {
    (hash >> 32) as usize & n_slots.wrapping_sub(1)
}

/// Returns where the set of a hash begins.
#[inline(always)]
const fn set_start(hash: u64, n_slots: usize) -> usize {
    slot_number(hash, n_slots) & !(N_WAYS - 1)
}

/// A slot that names a record at an offset of the memory.
#[inline(always)]
const fn record_slot(hash: u64, offset: usize) -> u64 {
    hash & TAG_MASK | offset as u64
}

/// A slot that is a fork.
#[inline(always)]
const fn fork_slot(hash: u64, place: u64) -> u64 {
    hash & TAG_MASK | IS_FORK | place
}

/// Whether a slot was made for a hash, or one that is like it.
#[inline(always)]
const fn has_tag(slot: u64, hash: u64) -> bool {
    slot != 0 && (slot ^ hash) & TAG_MASK == 0
}

#[inline(always)]
const fn is_fork(slot: u64) -> bool {
    slot & IS_FORK != 0
}

#[inline(always)]
const fn place_of_fork(slot: u64) -> u64 {
    slot & 0xFFFF
}

/// The records of one thread, in borrowed memory.
pub(crate) struct Records<'a> {
    front: &'a mut [u64; FRONT_LEN],
    index: &'a mut [u64],
    mask: GuessMask,
    guesses: &'a mut [u64],
    marks: &'a mut [u64],
    words: &'a mut [u64],
    /// Where `words` begin.
    base: usize,
    extent: &'a mut Extent,
    hints: &'a mut Hints,
}

impl<'a> Records<'a> {
    /// Returns the records that lie in `memory`, which was zero at first.
    pub(crate) fn in_memory(
        memory: &'a mut [u64],
        extent: &'a mut Extent,
        hints: &'a mut Hints,
    ) -> Option<Self> {
        let (len, n_words) = (index_len(memory.len()), memory.len());
        let mask = GuessMask::of(n_words)?;
        let n_guesses = len.wrapping_mul(N_GUESSES_A_SLOT.wrapping_add(1));
        let (front, rest) = memory.split_first_chunk_mut()?;
        let (guesses, rest) = rest.split_at_mut_checked(n_guesses)?;
        let (index, rest) = rest.split_at_mut_checked(len)?;
        let (marks, words) = rest.split_at_mut_checked(len / 2)?;
        let base = n_words.wrapping_sub(words.len());
        Some(Self { front, index, mask, guesses, marks, words, base, extent, hints })
    }

    /// Marks a stack as seen, and returns whether it seems to have been before: a stack is worth a
    /// record when it comes for the second time.
    #[inline(always)]
    pub(crate) fn is_seen(&mut self, stack: u64) -> bool {
        // One byte a stack, eight a word.
        let place = (stack >> 8) as usize & self.marks.len().wrapping_mul(8).wrapping_sub(1);
        let Some(word) = self.marks.get_mut(place / 8) else { return false };
        let shift = (place as u32 % 8).wrapping_mul(8);
        let (old, new) = (*word >> shift & 0xFF, stack & 0xFF);
        *word ^= (old ^ new) << shift;
        old == new
    }

    /// Whether I1, I2, I5, I7 and I8 hold: the slots that are not zero name whole records, each of which knows its
    /// slot, guesses lead to whole records or to such as have made way, and the record that held last is whole.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        use crate::native::guesses::{tag, tag_of};
        extern crate std;

        let Extent { tail, head, end, n_records, .. } = *self.extent;
        let mut positions = std::vec![false; self.words.len()];
        let mut position = tail;
        for _ in 0..n_records {
            let is_behind = position >= head && tail >= head;
            let limit = if is_behind { end } else { head };
            let len = len_of(&self.words[position..]).unwrap();
            if !(self.base + position).is_multiple_of(VECTOR_LEN) {
                return false;
            }
            let next = position + len;
            if next > limit {
                return false;
            }
            positions[position] = true;
            position = if is_behind && next == end { 0 } else { next };
        }
        let is_guessed = |&guess: &u64| {
            let position = offset_of(guess).wrapping_sub(self.base);
            guess == 0
                || is_ambiguous(guess)
                || born(guess) < self.extent.n_gone
                || positions.get(position) == Some(&true)
                    && birth_of(&self.words[position..]) == born(guess)
                    && tag_of(guess) == tag(record::start_of(&self.words[position..]))
        };
        let last = self.hints.last.checked_sub(self.base);
        let is_whole = last.map_or(self.hints.last == 0, |last| positions[last]);
        let is_next_guessed = || {
            let records = positions.iter().zip(&self.words[..]).enumerate();
            let whole = records.filter(|(_, (is_start, _))| **is_start);
            let mut next = whole.map(|(position, _)| record::next_of(&self.words[position..]));
            next.all(|next| is_guessed(&next)) && is_guessed(&record::next_of(&self.front[..]))
        };
        let is_named = |(number, &slot): (usize, &u64)| {
            let position = (slot as u32 as usize).wrapping_sub(self.base);
            slot == 0
                || is_fork(slot)
                || positions.get(position) == Some(&true)
                    && named_by(&self.words[position..]) == number
        };
        self.index.iter().enumerate().all(is_named)
            && self.guesses.iter().all(is_guessed)
            && is_whole
            && is_next_guessed()
    }

    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        *self.hints = Hints::NONE;
        self.front.fill(0);
        self.index.fill(0);
        self.guesses.fill(0);
        self.marks.fill(0);
        *self.extent = Extent { n_turns: self.extent.n_turns, ..Extent::EMPTY };
    }

    /// Adds a record; one that does not fit is left out.
    ///
    /// `words` are those that the walk depended on, leaf first: none where the start tells all that was asked for.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        outcome: Outcome,
        stack: &StackBounds,
        world: &impl World,
        words: &mut [Word],
    ) {
        let start = outcome.start;
        let Some(groups) = Groups::of(words) else { return };
        let Some(position) = self.make_room(groups.record_len()) else { return };
        if !self.is_last_whole() {
            *self.hints = Hints::NONE;
        }
        let memory = self.words.get_mut(position..).unwrap_or(&mut []);
        let memory = memory.get_mut(..groups.record_len()).unwrap_or(&mut []);
        let birth = self.extent.n_made;
        if record::write(memory, outcome, groups, words, birth).is_none() {
            // Nothing names it yet.
            self.extent.head = position;
            return;
        }
        self.extent.n_made = birth.wrapping_add(groups.record_len() as u32);
        self.extent.n_records = self.extent.n_records.wrapping_add(1);
        // If the program does once more what it does now, it is the right one at once.
        let offset = self.base.wrapping_add(position);
        let guess = guess_of(start, offset, birth);
        self.note_guess(start, stack, world, guess);
        self.note_next(guess);
        self.hints.last = offset;
        let hash = self.find_leaf(start, position, stack, world);
        self.point_to(hash, position);
    }

    /// Whether the record that held last is still there, when room was made and before it is used.
    fn is_last_whole(&self) -> bool {
        let Some(last) = self.hints.last.checked_sub(self.base) else { return true };
        self.words.get(last..).is_some_and(|record| birth_of(record) >= self.extent.n_gone)
    }

    /// Returns the hash that the record at a position, of the stack as it is, is found by. Where another record has
    /// that place, and the two can be told apart, a fork takes it; one at a place that this record does not hold makes
    /// way.
    fn find_leaf(
        &mut self,
        start: Start,
        position: usize,
        stack: &StackBounds,
        world: &impl World,
    ) -> u64 {
        let mut hash = start.hash();
        for _ in 0..MAX_DEPTH {
            let Some((number, slot)) = self.slot_of(hash, start) else { break };
            let place = if is_fork(slot) {
                let place = place_of_fork(slot);
                let record = self.words.get(position..).unwrap_or(&[]);
                if !has_word_at(record, place) {
                    if let Some(slot) = self.index.get_mut(number) {
                        *slot = 0;
                    }
                    break;
                }
                place
            } else {
                let other = (slot as u32 as usize).wrapping_sub(self.base);
                let record = self.words.get(other..).unwrap_or(&[]);
                let now = |place: u64| world.read_word(start.sp.wrapping_add(place << 3));
                // Leaf first: up to there the two walks are the same, and so both read this word.
                let is_other = |(place, value)| now(place) != value;
                let Some((place, value)) = first_changed(record, is_other) else {
                    self.take_out(other);
                    break;
                };
                self.fork(hash, number, place);
                self.point_to(hash_with(hash, value), other);
                place
            };
            hash = hash_with(hash, word_at(start, place, stack, world));
        }
        hash
    }

    /// Returns the fork that a hash leads to, or else a record of this start, and the number of its slot.
    fn slot_of(&self, hash: u64, start: Start) -> Option<(usize, u64)> {
        let first = set_start(hash, self.index.len());
        let set = self.index.iter().copied().enumerate().skip(first).take(N_WAYS);
        let is_of_start = |slot: u64| {
            let position = (slot as u32 as usize).wrapping_sub(self.base);
            self.words.get(position..).is_some_and(|record| starts_at(record, start))
        };
        set.filter(|&(_, slot)| has_tag(slot, hash) && (is_fork(slot) || is_of_start(slot)))
            .max_by_key(|&(_, slot)| is_fork(slot))
    }

    /// Makes a fork of a slot that names a record. It stands where it is looked for first, unless another
    /// fork does.
    fn fork(&mut self, hash: u64, number: usize, place: u64) {
        let preferred = slot_number(hash, self.index.len());
        let displaced = self.index.get(preferred).copied().unwrap_or(0);
        let number = if number != preferred && !is_fork(displaced) {
            // The record that was there changes places with the one that makes way.
            if displaced != 0 {
                let position = (displaced as u32 as usize).wrapping_sub(self.base);
                if let Some(record) = self.words.get_mut(position..) {
                    set_named_by(record, number);
                }
            }
            if let Some(slot) = self.index.get_mut(number) {
                *slot = displaced;
            }
            preferred
        } else {
            number
        };
        if let Some(slot) = self.index.get_mut(number) {
            *slot = fork_slot(hash, place);
        }
    }

    /// Lets a slot of the index name a record: the one at which it is looked for first, if that is free,
    /// else another free one of the set, or that of its oldest record, or of a fork.
    fn point_to(&mut self, hash: u64, position: usize) {
        let tail = self.extent.tail;
        let first = set_start(hash, self.index.len());
        let preferred = slot_number(hash, self.index.len());
        // Records behind the tail are older than those before it.
        let rank = |number: usize, slot: u64| match (slot as u32 as usize).checked_sub(self.base) {
            _ if slot == 0 => (0, usize::from(number != preferred)),
            _ if is_fork(slot) => (3, number),
            Some(position) if position < tail => (2, position),
            position => (1, position.unwrap_or(0)),
        };
        let set = self.index.iter_mut().enumerate().skip(first).take(N_WAYS);
        if let Some((number, slot)) = set.min_by_key(|(number, slot)| rank(*number, **slot)) {
            *slot = record_slot(hash, self.base.wrapping_add(position));
            if let Some(record) = self.words.get_mut(position..) {
                set_named_by(record, number);
            }
        }
    }

    /// Empties the slot that names a record, if it still does.
    fn take_out(&mut self, position: usize) {
        let named = self.base.wrapping_add(position) as u64;
        let number = self.words.get(position..).map_or(0, named_by);
        if let Some(slot) = self.index.get_mut(number)
            && !is_fork(*slot)
            && u64::from(*slot as u32) == named
        {
            *slot = 0;
        }
    }

    /// Returns where a record of `len` words can go, which makes way for it; `None` if it is too long.
    fn make_room(&mut self, len: usize) -> Option<usize> {
        if len > self.words.len() {
            return None;
        }
        if self.extent.n_made >= MAX_MADE {
            self.clear();
        }
        if self.extent.head.wrapping_add(len) > self.words.len() {
            // Those that lie from here to the end are the oldest.
            while self.extent.n_records != 0 && self.extent.tail >= self.extent.head {
                self.drop_oldest();
            }
            self.extent.end = self.extent.head;
            self.extent.head = 0;
            self.extent.n_turns = self.extent.n_turns.wrapping_add(1);
            self.drop_forks();
            if self.extent.n_records == 0 {
                self.extent.tail = 0;
            }
        }
        let end = self.extent.head.wrapping_add(len);
        while self.extent.n_records != 0
            && self.extent.tail >= self.extent.head
            && self.extent.tail < end
        {
            self.drop_oldest();
        }
        let position = self.extent.head;
        if self.extent.n_records == 0 {
            self.extent.tail = position;
        }
        self.extent.head = end;
        Some(position)
    }

    /// Takes the forks out of a part of the index, another each time: those of records that are no more would
    /// fill it up. What others lead to will be walked to, and recorded, once more.
    fn drop_forks(&mut self) {
        const N_PARTS: usize = 4;
        let len = self.index.len() / N_PARTS;
        let first = len.wrapping_mul(self.extent.n_turns as usize % N_PARTS);
        let part = self.index.iter_mut().skip(first).take(len);
        part.filter(|slot| is_fork(**slot)).for_each(|slot| *slot = 0);
    }

    fn drop_oldest(&mut self) {
        let record = self.words.get(self.extent.tail..).unwrap_or(&[]);
        let Some(len) = len_of(record) else { return self.clear() };
        self.take_out(self.extent.tail);
        self.extent.n_records = self.extent.n_records.wrapping_sub(1);
        self.extent.tail = self.extent.tail.wrapping_add(len);
        self.extent.n_gone = self.extent.n_gone.wrapping_add(len as u32);
        if self.extent.tail == self.extent.end && self.extent.tail > self.extent.head {
            self.extent.tail = 0;
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "recollects from a memory of its own")]
mod tests {
    use super::*;
    use crate::native::guesses::Recollection;
    use crate::native::table::ProcessRules;
    extern crate std;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const SP: u64 = 4096;
    const START: Start = Start { key: 5, sp: SP, fp: 0 };

    /// The words of a stack, by place.
    struct Stack(BTreeMap<u64, u64>);

    impl World for &Stack {
        type Rules = ProcessRules;

        fn rules(&self) -> ProcessRules {
            ProcessRules::new()
        }

        fn read_word(&self, addr: u64) -> u64 {
            self.0.get(&(addr.wrapping_sub(SP) >> 3)).copied().unwrap_or(0)
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

    /// How the stacks of one start and one record before were found.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Found {
        n_recalled: u32,
        n_searched: u32,
        n_recorded: u32,
    }

    /// A stack: its return addresses by place, a place that holds other data each time, and from which time on it comes.
    type Coming<'a> = (&'a [(u64, u64)], u64, u64);

    /// Captures each stack in turn, so many times. All begin alike.
    fn capture(stacks: &[Coming<'_>], n_times: u64) -> Vec<Found> {
        let mut memory = std::vec![0; 4096];
        let mut extent = Extent::EMPTY;
        let bounds = StackBounds::from_range(SP..SP + 4096);
        let mut found = std::vec![Found::default(); stacks.len()];
        for n in 0..n_times {
            for (i, &(words, data, since)) in stacks.iter().enumerate() {
                if n < since {
                    continue;
                }
                let found = &mut found[i];
                let mut stack =
                    Stack(BTreeMap::from([(data, n.wrapping_mul(0x9E37_79B9_7F4A_7C15))]));
                stack.0.extend(words.iter().copied());
                let mut hints = Hints::NONE;
                let mask = GuessMask::of(memory.len()).unwrap();
                // SAFETY: all of this memory, whose extent and hints these are.
                let first = unsafe { Recollection::of(&mut memory, mask, &extent, &mut hints) };
                let site = first.recall(START, &&stack);
                // SAFETY: as above.
                let further = unsafe { Recollection::of(&mut memory, mask, &extent, &mut hints) };
                if site.or_else(|| further.recall_further(START, &bounds, &&stack)).is_some() {
                    found.n_recalled += 1;
                    continue;
                }
                let mut records = Records::in_memory(&mut memory, &mut extent, &mut hints).unwrap();
                if records.search(START, &bounds, &&stack).is_some() {
                    found.n_searched += 1;
                } else {
                    let outcome = Outcome {
                        start: START,
                        site: i as u32 + 1,
                        fp_counts: false,
                        limit_slot: None,
                    };
                    let words = words.iter().map(|&(at, value)| Word { addr: SP + 8 * at, value });
                    records.insert(outcome, &bounds, &&stack, &mut words.collect::<Vec<_>>());
                    found.n_recorded += 1;
                }
                assert!(records.is_consistent());
            }
        }
        found
    }

    #[test]
    fn a_word_that_decides_between_some_stacks_and_is_data_of_another_makes_way() {
        // The first two differ at place 9, where the third, which differs from both at place 4, holds data.
        let (a, b): (&[_], &[_]) = (&[(4, 10), (9, 20)], &[(4, 10), (9, 21)]);
        let c: &[_] = &[(4, 11), (7, 30)];
        for since in [0, 10] {
            let (a, b, c) = ((a, 1, 0), (b, 1, 0), (c, 9, since));
            for stacks in [[a, b, c], [c, a, b], [a, c, b]] {
                for found in capture(&stacks, 1000) {
                    assert!(found.n_recalled > 970 && found.n_recorded < 5, "{found:?}");
                }
            }
        }
    }

    /// What recalls stacks, one after another, and records them where it must.
    struct Thread {
        memory: Vec<u64>,
        extent: Extent,
        hints: Hints,
    }

    impl Thread {
        fn records(&mut self) -> Records<'_> {
            Records::in_memory(&mut self.memory, &mut self.extent, &mut self.hints).unwrap()
        }

        /// Captures a stack with return addresses at these places, all alike; whether it was recalled at once.
        fn capture(&mut self, start: Start, return_addr: u64, places: &[u64]) -> bool {
            let stack = Stack(places.iter().map(|&place| (place, return_addr)).collect());
            let bounds = StackBounds::from_range(SP..SP + 4096);
            let mask = GuessMask::of(self.memory.len()).unwrap();
            let Self { memory, extent, hints } = self;
            // SAFETY: all of this memory, whose extent and hints these are.
            let recollection = unsafe { Recollection::of(memory, mask, extent, hints) };
            let site = recollection.recall(start, &&stack);
            if let Some(site) = site {
                assert_eq!(u64::from(site.get()), start.key + return_addr);
                return true;
            }
            let mut records = self.records();
            if records.search(start, &bounds, &&stack).is_none() {
                let site = (start.key + return_addr) as u32;
                let outcome = Outcome { start, site, fp_counts: false, limit_slot: None };
                let word = |&place: &u64| Word { addr: SP + 8 * place, value: return_addr };
                let mut words: Vec<_> = places.iter().map(word).collect();
                records.insert(outcome, &bounds, &&stack, &mut words);
            }
            assert!(records.is_consistent());
            false
        }
    }

    #[test]
    fn a_loop_is_recalled_from_its_records_alone() {
        let mut thread =
            Thread { memory: std::vec![0; 4096], extent: Extent::EMPTY, hints: Hints::NONE };
        // The last two begin alike, and which of them it is, follows from the one before.
        let stacks = [(10, 500), (20, 500), (30, 501), (10, 600), (30, 601)];
        for round in 0..10 {
            for (key, return_addr) in stacks {
                thread.records().guesses.fill(0);
                let is_recalled = thread.capture(Start { key, sp: SP, fp: 0 }, return_addr, &[4]);
                // What comes after the last one is known once it has come.
                let is_known = round > 1 || round == 1 && (key, return_addr) != stacks[0];
                assert_eq!(is_recalled, is_known, "{round}: {key}, {return_addr}");
            }
        }
    }

    #[test]
    fn what_comes_next_is_forgotten_with_the_records() {
        let mut thread =
            Thread { memory: std::vec![0; 256], extent: Extent::EMPTY, hints: Hints::NONE };
        let (mut n_recalled, mut n_first, mut n_cleared) = (0, 0, 0);
        for n in 0..20_000u64 {
            let n_made = thread.extent.n_made;
            // Now and then others, for which the oldest make way, the one that held last among them. They are of another
            // length, so that where one began there is the middle of another.
            let (key, places): (_, &[u64]) = match n % 50 {
                // Too far away for a record.
                20 => (n, &[1 << 17]),
                0..30 => (10 * (n % 3), &[4]),
                _ => (n, &[4, 9, 11, 12, 20]),
            };
            let is_recalled = thread.capture(Start { key: key + 1, sp: SP, fp: 0 }, n % 2, places);
            n_recalled += u32::from(is_recalled);
            n_first += u32::from(thread.records().front.iter().any(|word| *word != 0));
            n_cleared += u32::from(thread.extent.n_made < n_made);
            assert!(thread.records().is_consistent());
        }
        assert!(n_recalled > 5000 && thread.extent.n_turns > 100, "{n_recalled}");
        assert!(n_first > 100 && n_cleared > 2, "{n_first}, {n_cleared}");
    }

    #[test]
    fn stacks_that_differ_at_their_first_word_only_are_told_apart() {
        let (a, b): (&[_], &[_]) = (&[(0, 10), (9, 20)], &[(0, 11), (9, 20)]);
        for found in capture(&[(a, 1, 0), (b, 1, 0)], 1000) {
            assert!(found.n_recalled > 990 && found.n_recorded == 1, "{found:?}");
        }
    }
}
