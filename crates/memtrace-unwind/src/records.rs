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
//! | 5 a group | four values and, in the fifth word, their four places |
//!
//! where a *place* is a distance from the stack pointer in words. The last group is filled up by saying
//! its last word again. An index of sets of [`N_WAYS`] slots finds a record by its start: several
//! stacks often begin in the same state, and differ further out.
//!
//! # Invariants
//!
//! - **I1** A slot of the index is zero, or `tag << 32 | position + 1` of a record.
//! - **I2** A record that makes way is taken out of the index first: what a slot names is always whole.
//! - **I3** All places of a record lie in the thread's own stack, given its stack pointer.

/// Slots of a set.
const N_WAYS: usize = 4;
const HEADER_LEN: usize = 4;
const GROUP_LEN: usize = 5;
const WORDS_A_GROUP: usize = 4;
/// Groups that a record may have: two words a frame, for all frames that a trail has room for.
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

/// Slots of the index for a memory of `n_words`: one word in sixteen, a power of two.
pub(crate) const fn index_len(n_words: usize) -> usize {
    let len = n_words / 16;
    if len < N_WAYS { 0 } else { 1 << len.ilog2() }
}

/// Returns the site of a record that begins like this and holds now.
///
/// `memory` is that of [`Records`], of which `index_len` words are the index.
#[inline(always)]
pub(crate) fn find(
    memory: &[u64],
    index_len: usize,
    start: Start,
    read_word: impl Fn(u64) -> u64,
) -> Option<u32> {
    let (index, words) = memory.split_at_checked(index_len)?;
    let hash = start.hash();
    let set: &[u64; N_WAYS] = index.get(set_start(hash, index_len)?..)?.first_chunk()?;
    for &slot in set {
        if slot >> 32 == hash & 0xFFFF_FFFF
            && let Some(record) = words.get((slot as u32).wrapping_sub(1) as usize..)
            && let Some(site) = holds(record, start, &read_word)
        {
            return Some(site);
        }
    }
    None
}

/// The records of one thread, in borrowed memory.
pub(crate) struct Records<'a> {
    index: &'a mut [u64],
    words: &'a mut [u64],
    extent: &'a mut Extent,
}

impl<'a> Records<'a> {
    /// Returns the records that lie in `memory`, which was zero at first.
    pub(crate) fn in_memory(memory: &'a mut [u64], extent: &'a mut Extent) -> Option<Self> {
        let (index, words) = memory.split_at_mut_checked(index_len(memory.len()))?;
        Some(Self { index, words, extent })
    }

    /// Forgets all records.
    pub(crate) fn clear(&mut self) {
        self.index.fill(0);
        *self.extent = Extent { n_turns: self.extent.n_turns, ..Extent::EMPTY };
    }

    /// Adds a record; what does not fit is left out.
    ///
    /// `words` tells of every word that the walk depended on.
    pub(crate) fn insert(
        &mut self,
        start: Start,
        site: u32,
        fp_counts: bool,
        limit_slot: Option<u64>,
        words: impl FnOnce(&mut dyn FnMut(u64, u64) -> bool) -> bool,
    ) {
        let mut groups = [[0u64; GROUP_LEN]; MAX_GROUPS];
        let mut n_words = 0usize;
        let place_of = |addr: u64| {
            let distance = addr.wrapping_sub(start.sp);
            (distance.is_multiple_of(8) && distance >> 3 <= 0xFFFF).then_some(distance >> 3)
        };
        let limit_place = match limit_slot.map(place_of) {
            Some(Some(place)) => Some(place),
            Some(None) => return,
            None => None,
        };
        let mut add = |addr: u64, value: u64| {
            let (Some(place), Some(group)) =
                (place_of(addr), groups.get_mut(n_words / WORDS_A_GROUP))
            else {
                return false;
            };
            let i = n_words % WORDS_A_GROUP;
            // What is not yet told of repeats this one.
            group.iter_mut().take(WORDS_A_GROUP).skip(i).for_each(|slot| *slot = value);
            if let Some(places) = group.last_mut() {
                let shift = 16 * i as u32;
                let rest = u64::MAX.wrapping_shl(shift);
                *places = *places & !rest | place.wrapping_mul(0x0001_0001_0001_0001) & rest;
            }
            n_words = n_words.wrapping_add(1);
            true
        };
        if !words(&mut add) || n_words == 0 {
            return;
        }
        let n_groups = n_words.div_ceil(WORDS_A_GROUP);
        let len = n_groups.wrapping_mul(GROUP_LEN).wrapping_add(HEADER_LEN);
        let Some(position) = self.make_room(len) else { return };
        let facts = u64::from(site)
            | (n_groups as u64) << 32
            | if fp_counts { FP_COUNTS } else { 0 }
            | limit_place.map_or(0, |place| IS_AT_LIMIT | place << 48);
        let Some(record) = self.words.get_mut(position..).and_then(|words| words.get_mut(..len))
        else {
            return;
        };
        let header = [start.key, start.sp, start.fp, facts];
        let body = groups.iter().take(n_groups).flatten();
        record.iter_mut().zip(header.iter().chain(body)).for_each(|(word, &value)| *word = value);
        self.extent.n_records = self.extent.n_records.wrapping_add(1);
        self.point_to(start.hash(), position);
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
        let set = self.index.iter_mut().skip(first).take(N_WAYS);
        if let Some(slot) = set.min_by_key(|slot| age(**slot)) {
            *slot = hash << 32 | (position as u64).wrapping_add(1);
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
        while self.extent.n_records != 0 && self.extent.tail >= self.extent.head && self.extent.tail < end {
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
        let Some(&[key, sp, fp, facts]) = record.first_chunk() else { return self.clear() };
        let len = n_groups(facts).wrapping_mul(GROUP_LEN).wrapping_add(HEADER_LEN);
        let named = (self.extent.tail as u64).wrapping_add(1);
        if let Some(first) = set_start(Start { key, sp, fp }.hash(), self.index.len()) {
            let set = self.index.iter_mut().skip(first).take(N_WAYS);
            for slot in set.filter(|slot| u64::from(**slot as u32) == named) {
                *slot = 0;
            }
        }
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

/// Returns the site of a record if a walk from `start` would now be the one it was made from.
#[inline(always)]
fn holds(record: &[u64], start: Start, read_word: &impl Fn(u64) -> u64) -> Option<u32> {
    let (&[key, sp, fp, facts], body) = record.split_first_chunk()?;
    if key != start.key || sp != start.sp || facts & FP_COUNTS != 0 && fp != start.fp {
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
        if differs != 0 {
            return None;
        }
    }
    if facts & IS_AT_LIMIT != 0 && at(facts >> 48) == 0 {
        return None;
    }
    Some(facts as u32)
}
