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
//! Several stacks often begin in the same state and differ further out. Which of them it is, is *guessed*: the
//! record that held the last time with this start and after the same other record; where these have been those
//! of several, the first return address decides, too; and where that is not enough, a word at a place where the
//! stack of a wrong guess differed. Start and record are known when a capture begins, and where the first return
//! address is. Programs repeat themselves: on JSON 99 guesses of 100 are right, on a service 98; by the start alone
//! it would be 63 on JSON, by the record before alone 68, and without the third step 89 on the service.
//!
//! Where it is wrong, an *index* finds the record by its start. Where two records have a start in common, a
//! *fork* takes their place in the index. It says at which place the two differ first, leaf first; the hash
//! goes on with the word found there. Up to that place the two walks are the same, so that both read the word: a
//! return address, or a saved frame pointer where nothing else differs. So forks make a tree that leads from a start to the one record that may hold. A hash has a
//! set of [`N_WAYS`] slots, and one of them at which a fork or a record stands if there is room.
//!
//! # Invariants
//!
//! - **I1** A slot of the index is zero, or has the offset in memory of a record, or is a fork; with a part of
//!   the hash.
//! - **I2** A record that makes way is taken out of the index first: what a slot names is always whole.
//! - **I3** All places of a record lie in the thread's own stack, given its stack pointer.
//! - **I4** Guesses and forks are hints only: a record is good if it holds, however it was found.

use crate::bounds::StackBounds;
use crate::native::record::{
    self, Groups, Outcome, SLOT_WORD, Start, Word, first_changed, holds, len_of, named_by,
    starts_at, value_at,
};
use crate::native::world::World;
use core::num::NonZeroU32;

/// Slots of a set.
const N_WAYS: usize = 4;
/// How many notes there are of at which places walks find their first return address. Starts that share one and
/// differ there take the third step each time: of 8, in one in ten layouts of a program with five call sites.
const N_NEAR: usize = 32;
/// Words at the front, which stay zero: a record of no start.
const FRONT_LEN: usize = 8;
/// Forks that a search passes by, at most.
const MAX_DEPTH: usize = 8;
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
    /// Times that the array was filled.
    n_turns: u32,
}

impl Extent {
    /// An array of no records.
    pub(crate) const EMPTY: Self = Self { tail: 0, head: 0, end: 0, n_records: 0, n_turns: 0 };

    /// Returns how often all room was used up.
    pub(crate) const fn n_turns(&self) -> u32 {
        self.n_turns
    }
}

/// Slots of the index for a memory of `n_words`: one word in 16, a power of two. As many words hold guesses
/// of each kind, and half as many the marks.
pub(crate) const fn index_len(n_words: usize) -> usize {
    let len = n_words / 16;
    if len < N_WAYS { 0 } else { 1 << len.ilog2() }
}

/// Returns the site of the record that held the last time after the record that held last, with this start and
/// this return address, if it holds now.
///
/// `memory` is that of [`Records`], of which `index_len` words are the index.
#[inline(always)]
pub(crate) fn recall(
    memory: &[u64],
    index_len: usize,
    hints: &mut Hints,
    start: Start,
    stack: &StackBounds,
    world: &impl World,
) -> Option<NonZeroU32> {
    let hash = hints.hash(start);
    let mut guess = *memory.get(guess_number(hash, index_len))?;
    if is_ambiguous(guess) {
        let hash = hints.hash_with_near(hash, start, stack, world)?;
        guess = *memory.get(near_guess_number(hash, index_len))?;
        if is_ambiguous(guess) {
            let hash = hash_with(hash, word_within(start, place_of(guess), stack, world)?);
            guess = *memory.get(near_guess_number(hash, index_len))?;
        }
    }
    // Nothing guessed leads to the front, where a record of no start is.
    let (number, offset) = ((guess >> 32) as usize, guess as u32);
    // There may be another record by now, or a part of one. Nothing but a branch waits for this.
    if !is_valid(memory, guess) {
        return None;
    }
    let site = holds(memory.get(offset as usize..)?, start, world)?;
    hints.last = number;
    Some(site)
}

/// What guesses are made from, beside the start: what is known before a capture begins.
#[derive(Clone, Copy)]
pub(crate) struct Hints {
    /// Where in memory the slot is that names the record which held last.
    last: usize,
    /// At which place walks find their first return address, by a part of the key that they start with.
    near_places: [u16; N_NEAR],
}

impl Hints {
    pub(crate) const NONE: Self = Self { last: 0, near_places: [0; N_NEAR] };

    /// By what a guess is found first: the start, and the record before.
    #[inline(always)]
    const fn hash(&self, start: Start) -> u64 {
        (start.sp ^ (self.last as u64) << 21).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The place of the first return address.
    #[inline(always)]
    fn near_place(&self, start: Start) -> u64 {
        u64::from(self.near_places.get(near_number(start.key)).copied().unwrap_or(0))
    }

    /// By what it is found where these are not enough: the first return address, too. `None` beyond the stack.
    #[inline(always)]
    fn hash_with_near(
        &self,
        hash: u64,
        start: Start,
        stack: &StackBounds,
        world: &impl World,
    ) -> Option<u64> {
        Some(hash_with(hash, word_within(start, self.near_place(start), stack, world)?))
    }

    /// Notes where a walk found its first return address, if none from a like key has.
    fn note_near(&mut self, start: Start, return_addr_at: u64) {
        if let Some(near) = self.near_places.get_mut(near_number(start.key))
            && *near == 0
        {
            *near = (return_addr_at.wrapping_sub(start.sp) >> 3) as u16;
        }
    }
}

/// What stands for a guess where the facts by which it was found are those of more than one record. Below it is the
/// place of a word that decides, too, if it was found by the first return address already. No slot has a number
/// with this bit.
const AMBIGUOUS: u64 = 1 << 63;

#[inline(always)]
const fn is_ambiguous(guess: u64) -> bool {
    // Compilers take a number below zero for the exception, too.
    (guess as i64) < 0
}

/// The place of an ambiguous guess.
#[inline(always)]
const fn place_of(guess: u64) -> u64 {
    guess & 0xFFFF
}

/// Returns where in memory a guess is noted.
#[inline(always)]
const fn guess_number(hash: u64, index_len: usize) -> usize {
    ((hash >> 40) as usize & index_len.wrapping_sub(1)).wrapping_add(FRONT_LEN)
}

/// Returns where one is noted that was found by a word of the stack, too. Were it among the others, each kind would
/// displace the other.
#[inline(always)]
const fn near_guess_number(hash: u64, index_len: usize) -> usize {
    guess_number(hash, index_len).wrapping_add(index_len)
}

/// By which part of a key a near place is noted.
#[inline(always)]
const fn near_number(key: u64) -> usize {
    key as usize % N_NEAR
}

/// Whether a guess leads to a record.
#[inline(always)]
fn is_valid(memory: &[u64], guess: u64) -> bool {
    let slot = memory.get((guess >> 32) as usize).copied().unwrap_or(u64::MAX);
    slot & !TAG_MASK == u64::from(guess as u32)
}

/// The record that a guess leads to; `None` where nothing is guessed, or it leads nowhere by now.
fn guessed(memory: &[u64], guess: u64) -> Option<&[u64]> {
    let record = memory.get(guess as u32 as usize..)?;
    (guess != 0 && is_valid(memory, guess)).then_some(record)
}

/// Notes what would have been the right guess, and, where a wrong one was made, by what it would have been known.
fn note_guess(
    memory: &mut [u64],
    index_len: usize,
    hints: &Hints,
    start: Start,
    stack: &StackBounds,
    world: &impl World,
    right: u64,
) -> Option<()> {
    let hash = hints.hash(start);
    let first = memory.get_mut(guess_number(hash, index_len))?;
    if !is_ambiguous(*first) {
        let guess = core::mem::replace(first, right);
        // One that leads nowhere by now speaks for nothing.
        if guessed(memory, guess).is_none() {
            return Some(());
        }
        *memory.get_mut(guess_number(hash, index_len))? = AMBIGUOUS;
    }
    let near_place = hints.near_place(start);
    let now = |place: u64| world.read_word(start.sp.wrapping_add(place << 3));
    let Some(hash) = hints.hash_with_near(hash, start, stack, world) else {
        *memory.get_mut(guess_number(hash, index_len))? = right;
        return Some(());
    };
    let near = near_guess_number(hash, index_len);
    let with = |value: u64| near_guess_number(hash_with(hash, value), index_len);
    let guess = *memory.get(near)?;
    // The place at which a wrong guess of the same facts could have been told from the right one: what was of others
    // has only displaced it. A place that was noted for another start may be one of no word.
    let other_place = |memory: &[u64], guess: u64, place: u64| {
        let record = guessed(memory, guess).filter(|record| starts_at(record, start))?;
        let is_same = value_at(record, place).is_none_or(|value| value == now(place));
        if is_same { first_changed(record, |(place, value)| now(place) != value) } else { None }
    };
    let decided = if is_ambiguous(guess) {
        let place = place_of(guess);
        let Some(word) = word_within(start, place, stack, world) else {
            // Of other facts, which share the number.
            *memory.get_mut(near)? = right;
            return Some(());
        };
        let guess = core::mem::replace(memory.get_mut(with(word))?, right);
        other_place(memory, guess, place)
    } else {
        let decided = other_place(memory, guess, near_place);
        match decided {
            Some((_, value)) => *memory.get_mut(with(value))? = guess,
            None => *memory.get_mut(near)? = right,
        }
        decided
    };
    if let Some((place, _)) = decided {
        *memory.get_mut(near)? = AMBIGUOUS | place;
        *memory.get_mut(with(now(place)))? = right;
    }
    Some(())
}

/// Searches the index for a record that holds, and notes it as the right guess.
#[inline(never)]
pub(crate) fn search(
    memory: &mut [u64],
    index_len: usize,
    hints: &mut Hints,
    start: Start,
    stack: &StackBounds,
    world: &impl World,
) -> Option<NonZeroU32> {
    let mut hash = start.hash();
    for _ in 0..=MAX_DEPTH {
        let first = set_start(hash, index_len).wrapping_add(index_start(index_len));
        let set: &[u64; N_WAYS] = memory.get(first..)?.first_chunk()?;
        let mut fork = None;
        for (way, &slot) in set.iter().enumerate().filter(|(_, slot)| has_tag(**slot, hash)) {
            if is_fork(slot) {
                fork = Some(slot);
            } else if let Some(site) = holds(memory.get(slot as u32 as usize..)?, start, world) {
                let number = first.wrapping_add(way);
                let guess = (number as u64) << 32 | u64::from(slot as u32);
                note_guess(memory, index_len, hints, start, stack, world, guess);
                hints.last = number;
                return Some(site);
            }
        }
        hash = hash_with(hash, word_at(start, place_of_fork(fork?), stack, world));
    }
    None
}

/// Where in memory the index begins, behind as many guesses of each kind.
#[inline(always)]
const fn index_start(index_len: usize) -> usize {
    index_len.wrapping_mul(2).wrapping_add(FRONT_LEN)
}

/// The hash with which one goes on from a fork at which this word was found.
#[inline(always)]
const fn hash_with(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Returns the word at a place; `None` beyond the stack, where places noted for another stack pointer may lie.
#[inline(always)]
fn word_within(start: Start, place: u64, stack: &StackBounds, world: &impl World) -> Option<u64> {
    let addr = start.sp.wrapping_add(place << 3);
    stack.contains_word(addr).then(|| world.read_word(addr))
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
    index: &'a mut [u64],
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
        let (guesses, rest) =
            memory.get_mut(FRONT_LEN..)?.split_at_mut_checked(len.wrapping_mul(2))?;
        let (index, rest) = rest.split_at_mut_checked(len)?;
        let (marks, words) = rest.split_at_mut_checked(len / 2)?;
        let base = n_words.wrapping_sub(words.len());
        Some(Self { index, guesses, marks, words, base, extent, hints })
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

    /// Whether I1 and I2 hold: the slots that are not zero name whole records, each of which knows its
    /// slot.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let Extent { tail, head, end, n_records, .. } = *self.extent;
        let mut positions = [false; 1 << 17];
        let mut position = tail;
        for _ in 0..n_records {
            let is_behind = position >= head && tail >= head;
            let limit = if is_behind { end } else { head };
            let len = len_of(&self.words[position..]).unwrap();
            let next = position + len;
            if len == record::HEADER_LEN || next > limit {
                return false;
            }
            positions[position] = true;
            position = if is_behind && next == end { 0 } else { next };
        }
        let is_named = |(number, &slot): (usize, &u64)| {
            let position = (slot as u32 as usize).wrapping_sub(self.base);
            slot == 0
                || is_fork(slot)
                || positions.get(position) == Some(&true)
                    && named_by(&self.words[position..]) == number
        };
        self.index.iter().enumerate().all(is_named)
    }

    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        *self.hints = Hints::NONE;
        self.index.fill(0);
        self.guesses.fill(0);
        self.marks.fill(0);
        *self.extent = Extent { n_turns: self.extent.n_turns, ..Extent::EMPTY };
    }

    /// Adds a record; one that does not fit is left out.
    ///
    /// `words` are those that the walk depended on, leaf first: the first is a return address.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        outcome: Outcome,
        stack: &StackBounds,
        world: &impl World,
        words: impl Iterator<Item = Word> + Clone,
    ) {
        let start = outcome.start;
        let Some(first) = words.clone().next() else { return };
        let Some(groups) = Groups::of(words.clone()) else { return };
        let Some(position) = self.make_room(groups.record_len()) else { return };
        let memory = self.words.get_mut(position..).unwrap_or(&mut []);
        let memory = memory.get_mut(..groups.record_len()).unwrap_or(&mut []);
        if record::write(memory, outcome, groups, words).is_none() {
            // Nothing names it yet.
            self.extent.head = position;
            return;
        }
        self.hints.note_near(start, first.addr);
        self.extent.n_records = self.extent.n_records.wrapping_add(1);
        let hash = self.find_leaf(start, stack, world);
        self.point_to(hash, position);
    }

    /// Returns the hash that a record of the stack as it is, which begins like this, is found by. Where
    /// another record has that place, and the two can be told apart, a fork takes it.
    fn find_leaf(&mut self, start: Start, stack: &StackBounds, world: &impl World) -> u64 {
        let mut hash = start.hash();
        for _ in 0..MAX_DEPTH {
            let Some((number, slot)) = self.slot_of(hash, start) else { break };
            let place = if is_fork(slot) {
                place_of_fork(slot)
            } else {
                let position = (slot as u32 as usize).wrapping_sub(self.base);
                let record = self.words.get(position..).unwrap_or(&[]);
                let now = |place: u64| world.read_word(start.sp.wrapping_add(place << 3));
                // Leaf first: up to there the two walks are the same, and so both read this word.
                let is_other = |(place, value)| place != 0 && now(place) != value;
                let Some((place, value)) = first_changed(record, is_other) else {
                    self.take_out(position);
                    break;
                };
                self.fork(hash, number, place);
                self.point_to(hash_with(hash, value), position);
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
                if let Some(word) = self.words.get_mut(position.wrapping_add(SLOT_WORD)) {
                    *word = number as u64;
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
            if let Some(word) = self.words.get_mut(position.wrapping_add(SLOT_WORD)) {
                *word = number as u64;
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
        if self.extent.tail == self.extent.end && self.extent.tail > self.extent.head {
            self.extent.tail = 0;
        }
    }
}
