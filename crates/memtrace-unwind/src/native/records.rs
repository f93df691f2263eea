//! Earlier walks of a thread, by the state in which they began: *validated records*.
//!
//! A record holds the state at the start of a walk, every word that the walk depended on, and the site
//! that it led to. If a capture begins in the same state, and all those words hold the same values, a
//! walk would end at the same site. The comparisons are independent loads at known addresses: a walk's
//! steps wait for each other, these do not.
//!
//! # Layout
//!
//! Records lie one after the other in an array of words that is filled over and over again, so that
//! the oldest makes way for the newest. A record takes
//!
//! | word | holds |
//! | --- | --- |
//! | 0 | one more than the call address at the start |
//! | 1 | stack pointer at the start |
//! | 2 | frame pointer at the start, if the walk depended on it |
//! | 3 | site (bits 0..32), groups (32..40), whether word 2 counts (40), whether the stack is at its limit (41), the place of the word that must then not be zero (48..64) |
//! | 4 | the slot of the index that names the record (0..32), and that of the one expected after it (32..64) |
//! | 5 a group | four values and, in the fifth word, their four places |
//!
//! where a *place* is a distance from the stack pointer in words. The last group is filled up by saying
//! its last word again.
//!
//! An index of sets of [`N_WAYS`] slots finds a record by its start. Several stacks often begin in the
//! same state and differ further out: they are compared one after the other. Where they fill a set, a
//! *telling place* is noted for their start, at which they differ, and the word found there is from then
//! on part of what the index is searched by. Before the index is searched, the record that held after
//! the last one the last time is tried.
//!
//! # Invariants
//!
//! - **I1** A slot of the index is zero, or `tag << 32 | position + 1` of a record.
//! - **I2** A record that makes way is taken out of the index first: what a slot names is always whole.
//! - **I3** All places of a record lie in the thread's own stack, given its stack pointer.
//! - **I4** Which word is told by, and which record is expected next, are hints only: a record is good if
//!   it holds, however it was found.

use crate::bounds::StackBounds;
use crate::native::world::{Check, is_needed};

/// Slots of a set.
const N_WAYS: usize = 4;
const HEADER_LEN: usize = 5;
/// The word of a record that says which slot names it.
const SLOT_WORD: usize = 4;
const GROUP_LEN: usize = 5;
const WORDS_A_GROUP: usize = 4;
/// Groups that a record may have: two words for each frame of the longest stack, and some for the
/// tool's own.
const MAX_GROUPS: usize = 64;

const FP_COUNTS: u64 = 1 << 40;
const IS_AT_LIMIT: u64 = 1 << 41;

/// The state in which a capture begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) key: u64,
    pub(crate) sp: u64,
    pub(crate) fp: u64,
}

impl Start {
    #[inline(always)]
    fn hash(self) -> u64 {
        (self.key ^ self.sp.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[inline(always)]
    fn hash_with(self, word: u64) -> u64 {
        self.hash() ^ word.wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }
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

/// Slots of the index for a memory of `n_words`: one word in sixteen, a power of two. Half as many words
/// hold the telling places, and half as many the marks.
pub(crate) const fn index_len(n_words: usize) -> usize {
    let len = n_words / 16;
    if len < N_WAYS { 0 } else { 1 << len.ilog2() }
}

/// Returns the site of a record that begins like this and holds now.
///
/// `memory` is that of [`Records`], of which `index_len` words are the index.
#[inline(always)]
pub(crate) fn find(
    memory: &mut [u64],
    index_len: usize,
    order: &mut Order,
    start: Start,
    stack: &StackBounds,
    read_word: impl Fn(u64) -> u64,
    prefetch: impl Fn(&u64),
) -> Option<u32> {
    let (index, rest) = memory.split_at_checked(index_len)?;
    let words = rest.get(index_len..)?;
    // The one that came after the last one the last time.
    let guessed = index.get(order.next as usize).copied().unwrap_or(0);
    if let Some(record) = words.get((guessed as u32).wrapping_sub(1) as usize..)
        && let Some(site) = holds(record, start, &read_word)
    {
        order.last = order.next;
        order.expect_after(record, index, words, &prefetch);
        return Some(site);
    }
    search(memory, index_len, order, start, stack, read_word, prefetch)
}

/// Searches the index for a record that holds.
///
/// A function of its own, so that what is done for a good guess has all registers to itself.
#[inline(never)]
fn search(
    memory: &mut [u64],
    index_len: usize,
    order: &mut Order,
    start: Start,
    stack: &StackBounds,
    read_word: impl Fn(u64) -> u64,
    prefetch: impl Fn(&u64),
) -> Option<u32> {
    let (index, rest) = memory.split_at_mut_checked(index_len)?;
    let (tables, words) = rest.split_at_mut_checked(index_len)?;
    let tells = tables.get(..index_len / 2)?;
    let hash = search_hash(start, place_that_tells(tells, start.hash()), stack, &read_word);
    let first = set_start(hash, index_len)?;
    let set: &[u64; N_WAYS] = index.get(first..)?.first_chunk()?;
    for (way, &slot) in set.iter().enumerate() {
        // By a branch a slot: predicted, the record is on its way before the slot is.
        if slot >> 32 == hash & 0xFFFF_FFFF
            && let Some(record) = words.get((slot as u32).wrapping_sub(1) as usize..)
            && let Some(site) = holds(record, start, &read_word)
        {
            let number = first.wrapping_add(way) as u32;
            if let Some(last) = record_at(index, words.len(), order.last)
                && let Some(word) = words.get_mut(last.wrapping_add(SLOT_WORD))
            {
                *word = *word & 0xFFFF_FFFF | u64::from(number) << 32;
            }
            order.last = number;
            let record = words.get((slot as u32).wrapping_sub(1) as usize..)?;
            order.expect_after(record, index, words, &prefetch);
            return Some(site);
        }
    }
    None
}

/// Returns the position of the record that a slot names.
#[inline(always)]
fn record_at(index: &[u64], n_words: usize, number: u32) -> Option<usize> {
    let slot = *index.get(number as usize)?;
    let position = (slot as u32 as usize).wrapping_sub(1);
    (position < n_words).then_some(position)
}

/// Which records hold one after the other: numbers of slots.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    last: u32,
    next: u32,
}

impl Order {
    pub(crate) const NONE: Self = Self { last: u32::MAX, next: u32::MAX };

    #[inline(always)]
    fn expect_after(
        &mut self,
        record: &[u64],
        index: &[u64],
        words: &[u64],
        prefetch: &impl Fn(&u64),
    ) {
        self.next = (record.get(SLOT_WORD).copied().unwrap_or(0) >> 32) as u32;
        let slot = index.get(self.next as usize).copied().unwrap_or(0);
        if let Some(record) = words.get((slot as u32).wrapping_sub(1) as usize..) {
            for i in [0, 8, 16, 24, 32] {
                if let Some(word) = record.get(i) {
                    prefetch(word);
                }
            }
        }
    }
}

/// What the index is searched by: the start, and the word at the place that tells, if there is one.
#[inline(always)]
fn search_hash(
    start: Start,
    place: u64,
    stack: &StackBounds,
    read_word: &impl Fn(u64) -> u64,
) -> u64 {
    let addr = start.sp.wrapping_add(place << 3);
    // A place that was noted for another stack pointer may lie beyond the stack.
    let word = if place != 0 && stack.contains_word(addr) { read_word(addr) } else { 0 };
    start.hash_with(word)
}

/// Returns the place that tells the stacks of a start from each other; 0 if there is none.
#[inline(always)]
fn place_that_tells(tells: &[u64], start_hash: u64) -> u64 {
    let at = entry_of(tells, start_hash);
    let entry = tells.get(at / 2).copied().unwrap_or(0) >> half_of(at) & 0xFFFF_FFFF;
    if entry >> 16 == start_hash & 0xFFFF { entry & 0xFFFF } else { 0 }
}

/// Two entries a word, each of a tag and a place of 16 bits.
#[inline(always)]
fn entry_of(tells: &[u64], start_hash: u64) -> usize {
    (start_hash >> 40) as usize & tells.len().wrapping_mul(2).wrapping_sub(1)
}

/// By how much the word of an entry is shifted for it.
#[inline(always)]
const fn half_of(entry: usize) -> u32 {
    (entry as u32 % 2).wrapping_mul(32)
}

/// The records of one thread, in borrowed memory.
pub(crate) struct Records<'a> {
    index: &'a mut [u64],
    tells: &'a mut [u64],
    marks: &'a mut [u64],
    words: &'a mut [u64],
    extent: &'a mut Extent,
}

impl<'a> Records<'a> {
    /// Returns the records that lie in `memory`, which was zero at first.
    pub(crate) fn in_memory(memory: &'a mut [u64], extent: &'a mut Extent) -> Option<Self> {
        let len = index_len(memory.len());
        let (index, rest) = memory.split_at_mut_checked(len)?;
        let (tells, rest) = rest.split_at_mut_checked(len / 2)?;
        let (marks, words) = rest.split_at_mut_checked(len / 2)?;
        Some(Self { index, tells, marks, words, extent })
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
            let facts = self.words[position + 3];
            let next = position + n_groups(facts) * GROUP_LEN + HEADER_LEN;
            if n_groups(facts) == 0 || next > limit {
                return false;
            }
            positions[position] = true;
            position = if is_behind && next == end { 0 } else { next };
        }
        let is_named = |(number, &slot): (usize, &u64)| {
            let position = (slot as u32 as usize).wrapping_sub(1);
            slot == 0
                || positions.get(position) == Some(&true)
                    && self.words[position + SLOT_WORD] & 0xFFFF_FFFF == number as u64
        };
        self.index.iter().enumerate().all(is_named)
    }

    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        self.index.fill(0);
        self.tells.fill(0);
        self.marks.fill(0);
        *self.extent = Extent { n_turns: self.extent.n_turns, ..Extent::EMPTY };
    }

    /// Adds a record; one that does not fit is left out.
    ///
    /// `write` tells of the `n_words` words that the walk depended on: where each is, and its value.
    #[inline(always)]
    pub(crate) fn insert(
        &mut self,
        outcome: Outcome,
        stack: &StackBounds,
        read_word: impl Fn(u64) -> u64,
        n_words: usize,
        write: impl FnOnce(&mut Writer<'_>) -> Option<()>,
    ) {
        let Outcome { start, site, fp_counts, limit_slot } = outcome;
        let n_groups = n_words.div_ceil(WORDS_A_GROUP);
        let len = n_groups.wrapping_mul(GROUP_LEN).wrapping_add(HEADER_LEN);
        if n_words == 0 || n_groups > MAX_GROUPS {
            return;
        }
        let Some(position) = self.make_room(len) else { return };
        let Some(record) = self.words.get_mut(position..).and_then(|words| words.get_mut(..len))
        else {
            return;
        };
        let Some((header, body)) = record.split_first_chunk_mut() else { return };
        let limit_place = limit_slot.map_or(Some(0), |addr| place_of(addr, start.sp));
        let mut writer =
            Writer { body, sp: start.sp, next: 0, n_words: 0, last: (0, 0), places: 0 };
        let written = write(&mut writer).and_then(|()| writer.fill_up());
        let (Some(limit_place), Some(())) = (limit_place, written) else {
            // Nothing names it yet.
            self.extent.head = position;
            return;
        };
        let facts = u64::from(site)
            | (n_groups as u64) << 32
            | if fp_counts { FP_COUNTS } else { 0 }
            | if limit_slot.is_some() { IS_AT_LIMIT | limit_place << 48 } else { 0 };
        let header: &mut [u64; HEADER_LEN] = header;
        *header = [start.key, start.sp, start.fp, facts, u64::MAX];
        self.extent.n_records = self.extent.n_records.wrapping_add(1);
        self.find_what_tells(start, &read_word);
        let place = place_that_tells(self.tells, start.hash());
        self.point_to(search_hash(start, place, stack, &read_word), position);
    }

    /// If other records have this start, and nothing that tells them apart, notes where one of them
    /// differs from the stack as it is, and moves them to where they are found by that.
    fn find_what_tells(&mut self, start: Start, read_word: &impl Fn(u64) -> u64) {
        if place_that_tells(self.tells, start.hash()) != 0 {
            return;
        }
        let Some(first) = set_start(start.hash_with(0), self.index.len()) else { return };
        let others: [Option<usize>; N_WAYS] = core::array::from_fn(|way| {
            let slot = self.index.get(first.wrapping_add(way)).copied().unwrap_or(0);
            let position = (slot as u32 as usize).checked_sub(1)?;
            let record = self.words.get(position..)?;
            record.starts_with(&[start.key, start.sp]).then_some(position)
        });
        let differing = |&position: &usize| {
            let record = self.words.get(position..).unwrap_or(&[]);
            words_of(record).find_map(|(place, value)| {
                let addr = start.sp.wrapping_add(place << 3);
                (place != 0 && read_word(addr) != value).then_some(place)
            })
        };
        if others.iter().flatten().count() < N_WAYS {
            return;
        }
        let Some(place) = others.iter().flatten().find_map(differing) else { return };
        let at = entry_of(self.tells, start.hash());
        if let Some(word) = self.tells.get_mut(at / 2) {
            let shift = half_of(at);
            let entry = (start.hash() & 0xFFFF) << 16 | place;
            *word = *word & !(0xFFFF_FFFF << shift) | entry << shift;
        }
        for position in others.into_iter().flatten() {
            let record = self.words.get(position..).unwrap_or(&[]);
            let value = words_of(record).find(|word| word.0 == place).map(|word| word.1);
            self.take_out(position);
            if let Some(value) = value {
                self.point_to(start.hash_with(value), position);
            }
        }
    }

    /// Lets a slot of the index name a record: a free one, or that of the oldest record.
    fn point_to(&mut self, hash: u64, position: usize) {
        let tail = self.extent.tail;
        let Some(first) = set_start(hash, self.index.len()) else { return };
        // Records behind the tail are older than those before it.
        let age = |slot: u64| match (slot as u32 as usize).checked_sub(1) {
            None => (0, 0),
            Some(position) if position >= tail => (1, position),
            Some(position) => (2, position),
        };
        let set = self.index.iter_mut().enumerate().skip(first).take(N_WAYS);
        if let Some((number, slot)) = set.min_by_key(|(_, slot)| age(**slot)) {
            *slot = hash << 32 | (position as u64).wrapping_add(1);
            if let Some(word) = self.words.get_mut(position.wrapping_add(SLOT_WORD)) {
                *word = number as u64 | u64::MAX << 32;
            }
        }
    }

    /// Empties the slot that names a record, if it still does.
    fn take_out(&mut self, position: usize) {
        let named = (position as u64).wrapping_add(1);
        let number = self.words.get(position.wrapping_add(SLOT_WORD)).copied().unwrap_or(0);
        if let Some(slot) = self.index.get_mut(number as u32 as usize)
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

    fn drop_oldest(&mut self) {
        let record = self.words.get(self.extent.tail..).unwrap_or(&[]);
        let Some(&[.., facts, _]) = record.first_chunk::<HEADER_LEN>() else {
            return self.clear();
        };
        let len = n_groups(facts).wrapping_mul(GROUP_LEN).wrapping_add(HEADER_LEN);
        self.take_out(self.extent.tail);
        self.extent.n_records = self.extent.n_records.wrapping_sub(1);
        self.extent.tail = self.extent.tail.wrapping_add(len);
        if self.extent.tail == self.extent.end && self.extent.tail > self.extent.head {
            self.extent.tail = 0;
        }
    }
}

/// Returns where the set of a hash begins in an index of a power of two slots.
#[inline(always)]
fn set_start(hash: u64, n_slots: usize) -> Option<usize> {
    // The tag is the lower half, the set comes from the upper one.
    let n_sets = n_slots / N_WAYS;
    Some((hash >> 32) as usize & n_sets.checked_sub(1)?).map(|set| set.wrapping_mul(N_WAYS))
}

#[inline(always)]
const fn n_groups(facts: u64) -> usize {
    (facts >> 32 & 0xFF) as usize
}

/// The distance of an address from the stack pointer in words, if it fits a place.
#[inline(always)]
fn place_of(addr: u64, sp: u64) -> Option<u64> {
    let distance = addr.wrapping_sub(sp);
    (distance >> 3 <= 0xFFFF).then_some(distance >> 3)
}

/// Writes the words of a record, group by group.
pub(crate) struct Writer<'a> {
    body: &'a mut [u64],
    sp: u64,
    /// Where the next value goes.
    next: usize,
    n_words: usize,
    last: (u64, u64),
    /// The places of the group that is being written.
    places: u64,
}

impl Writer<'_> {
    /// Adds a word; `None` if it is too far away, or there are more words than was said.
    #[inline(always)]
    pub(crate) fn push(&mut self, addr: u64, value: u64) -> Option<()> {
        let place = place_of(addr, self.sp)?;
        self.last = (addr, value);
        *self.body.get_mut(self.next)? = value;
        let i = self.n_words % WORDS_A_GROUP;
        self.n_words = self.n_words.wrapping_add(1);
        self.next = self.next.wrapping_add(1);
        self.places |= place << 16u32.wrapping_mul(i as u32);
        if i == WORDS_A_GROUP - 1 {
            *self.body.get_mut(self.next)? = self.places;
            self.next = self.next.wrapping_add(1);
            self.places = 0;
        }
        Some(())
    }

    /// Fills the last group up with its last word.
    fn fill_up(&mut self) -> Option<()> {
        let (addr, value) = self.last;
        while self.next < self.body.len() {
            self.push(addr, value)?;
        }
        Some(())
    }
}

/// The places and values of a record's words, some of them twice.
fn words_of(record: &[u64]) -> impl Iterator<Item = (u64, u64)> {
    let (header, body) = record.split_at_checked(HEADER_LEN).unwrap_or((&[], &[]));
    let n_groups = header.get(3).map_or(0, |&facts| n_groups(facts));
    let groups = body.as_chunks::<GROUP_LEN>().0.iter().take(n_groups);
    groups.flat_map(|&[a, b, c, d, places]| {
        let place = move |i: u32| places >> 16u32.wrapping_mul(i) & 0xFFFF;
        [(place(0), a), (place(1), b), (place(2), c), (place(3), d)]
    })
}

/// Returns the site of a record if a walk from `start` would now be the one it was made from.
#[inline(always)]
fn holds(record: &[u64], start: Start, read_word: &impl Fn(u64) -> u64) -> Option<u32> {
    let (&[key, sp, fp, facts, _], body) = record.split_first_chunk()?;
    if (key != start.key || sp != start.sp) && is_needed(Check::Start) {
        return None;
    }
    if facts & FP_COUNTS != 0 && fp != start.fp && is_needed(Check::StartFp) {
        return None;
    }
    let at = |place: u64| read_word(sp.wrapping_add(place << 3));
    let body = body.get(..n_groups(facts).wrapping_mul(GROUP_LEN))?;
    let (groups, _) = body.as_chunks::<GROUP_LEN>();
    for &[a, b, c, d, places] in groups {
        let differs = (at(places & 0xFFFF) ^ a)
            | (at(places >> 16 & 0xFFFF) ^ b)
            | (at(places >> 32 & 0xFFFF) ^ c)
            | (at(places >> 48) ^ d);
        if differs != 0 && is_needed(Check::ReturnAddrs) {
            return None;
        }
    }
    if facts & IS_AT_LIMIT != 0 && at(facts >> 48) == 0 && is_needed(Check::LimitWord) {
        return None;
    }
    Some(facts as u32)
}
