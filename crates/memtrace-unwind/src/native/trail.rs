//! The frames of a thread's last walk, so that the next walk stops where it meets them.
//!
//! Unwinding is a pure function of a state (program counter, stack pointer, and frame pointer where a
//! rule uses it) and of the words that it reads. So when a walk comes to a state through which an
//! earlier walk came, and every word that the earlier one read from there on still has the value it
//! had, the rest of the two walks is the same. The *trail* holds the states of the last walk and those
//! words. A walk goes frame by frame until it comes to a state on the trail; from there on it only
//! compares words at known addresses, which do not wait for each other as the steps of a walk do.
//!
//! Which words are compared:
//!
//! - every return address;
//! - the places where frame pointers were saved, as far as the value decided a later step (*live*).
//!   Others must not be compared: programs keep loop counters in that register.
//!
//! # Layout
//!
//! States are numbered from 1, the outermost that is known, up to `top`, where the last walk began: a
//! walk that joins at state `i` replaces those above it. Sums of hashes run in the same direction, so
//! that the hash of any run of frames comes from two of them. A number is a byte, and what it leads to has 256
//! places: so nothing is looked up beyond an array's end, and the compiler sees that.
//!
//! Return addresses are compared all at once, without a branch, since most of them are what they were; the few saved
//! frame pointers that count are found from one to the next.
//!
//! # Invariants
//!
//! - **I1** For `1 < k ≤ top`: with the words compared that belong to state `k − 1`, a walk from state
//!   `k` comes to state `k − 1` under the rules of one generation, by plain rules and within the
//!   thread's own stack.
//! - **I2** Stack pointers strictly rise from `top` down to 1.
//! - **I3** `sums[k] = sums[k − 1] + a(k) · Bᵏ`, `sums[0] = 0`.
//! - **I4** A state is marked live if and only if a step from it, or from a state outward of it before
//!   the frame pointer is loaded anew, depends on the frame pointer. State 1 may be marked for the sake of one that
//!   has made way.
//! - **I5** `with_live_slot[k]` is the greatest number up to `k` whose state is live and has a slot, or 0.
#![expect(unsafe_code, reason = "gives words of memory a layout")]

use crate::hash::{self, StackHash};
use crate::native::record::Word;
#[cfg(test)]
use crate::native::world::is_complete;
use crate::native::world::{Check, is_needed};
use crate::rule::End;

/// States that a trail holds, plus one: as many as a byte can tell apart.
pub(crate) const CAPACITY: usize = 256;
/// States that may be newly walked. A power of two.
pub(super) const N_FRESH: usize = 128;
/// The most frames that a stack may have which is looked for on a trail.
pub(crate) const MAX_LIMIT: usize = 100;
/// Frames that a walk without a trail goes on beyond its limit, so that a trail is good for walks
/// from a little further out, too.
pub(super) const N_BEYOND: usize = 7;
/// The most frames of the tool's own that a stack may begin with.
pub(crate) const MAX_OWN: usize = 20;
/// States kept, with the new ones, when a trail is full. All those of a stack are among them.
const N_KEPT: usize = 160;

const _: () = assert!(N_KEPT > MAX_LIMIT + 1 + MAX_OWN && N_KEPT < CAPACITY);
const _: () = assert!(MAX_LIMIT + N_BEYOND + 1 + MAX_OWN <= N_FRESH && N_FRESH < N_KEPT);

/// A step from this state depends on the frame pointer.
pub(super) const USED: u64 = 1;
/// The frame pointer of this state is live.
pub(super) const LIVE: u64 = 2;
pub(super) const FLAGS: u64 = 7;

/// One frame on a trail, as four words of memory.
///
/// A new state has its call address in the place of the key, and its flags are not complete: so no two
/// words that lie side by side are copied as they are when it is put on the trail. Two such words would
/// be loaded as one, before the two stores are done that wrote them.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) key: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
    /// Where the step to this state loaded the frame pointer from, or zero; with flags.
    pub(super) slot: u64,
}

impl State {
    #[inline(always)]
    pub(super) const fn of(words: [u64; STATE_LEN]) -> Self {
        let [sp, slot, fp, key] = words;
        Self { key, sp, fp, slot }
    }

    #[inline(always)]
    pub(super) const fn words(self) -> [u64; STATE_LEN] {
        [self.sp, self.slot, self.fp, self.key]
    }

    /// Makes a state of the words of a new one.
    #[inline(always)]
    pub(super) const fn of_new(words: [u64; STATE_LEN]) -> Self {
        let state = Self::of(words);
        Self { key: state.key.wrapping_add(1), ..state }
    }

    /// The words of a new state.
    #[inline(always)]
    pub(super) const fn new_words(self) -> [u64; STATE_LEN] {
        Self { key: self.key.wrapping_sub(1), ..self }.words()
    }

    #[inline(always)]
    pub(super) const fn fp_slot(self) -> u64 {
        self.slot & !FLAGS
    }

    #[inline(always)]
    pub(super) const fn is_live(self) -> bool {
        self.slot & LIVE != 0
    }

    /// Whether the value that the step to this state loaded into the frame pointer counts.
    #[inline(always)]
    const fn has_live_slot(self) -> bool {
        self.is_live() && self.fp_slot() != 0
    }

    /// Where the step to this state read its return address: just below its stack pointer.
    #[inline(always)]
    const fn return_slot(self) -> u64 {
        self.sp.wrapping_sub(8)
    }
}

/// How the outermost state of a trail is left.
#[derive(Clone, Copy)]
pub(super) enum Root {
    /// The walk did not go further.
    Open,
    /// The stack ends there; if `zero_slot` is not zero, because the word there is.
    Ends { end: End, zero_slot: u64 },
}

pub(super) const STATE_LEN: usize = 4;
/// Places of the table that finds a state by its stack pointer.
const N_BY_SP: usize = 256;
/// Words that a trail takes in memory.
pub(crate) const N_WORDS: usize = size_of::<Memory>() / 8;

type States<const N: usize> = [[u64; STATE_LEN]; N];

/// The memory of a trail. Any words are one.
#[repr(C)]
pub(super) struct Memory {
    pub(super) states: States<CAPACITY>,
    /// States newly walked: at the end of this, the newest last. Then [words](Trail::words) of all states.
    pub(super) fresh: States<N_FRESH>,
    sums: [u64; CAPACITY],
    /// Numbers of states, each where its stack pointer says; the last one pushed, if several.
    by_sp: [u8; N_BY_SP],
    with_live_slot: [u8; CAPACITY],
}

// Functions of the memory rather than of the trail: one that is called, and not inlined, is given an address, and what it
// points to is no longer kept in registers.
#[expect(clippy::indexing_slicing, reason = "a byte, of arrays of 256")]
impl Memory {
    #[inline(always)]
    fn state(&self, k: u8) -> State {
        State::of(self.states[usize::from(k)])
    }

    /// Returns the states from number `from` up to but for number `to`.
    #[inline(always)]
    fn states(&self, from: u8, to: u8) -> &[[u64; STATE_LEN]] {
        self.states.get(from.into()..to.into()).unwrap_or(&[])
    }

    /// What [`Trail::compare`] returns, word by word.
    #[cold]
    #[inline(never)]
    fn search_other(&self, from: u8, to: u8, read_word: impl Fn(u64) -> u64) -> u8 {
        let mut k = from;
        for state in self.states(to, from).iter().rev().map(|&words| State::of(words)) {
            if read_word(state.return_slot()) != state.key && is_needed(Check::TrailReturnAddrs) {
                return k;
            }
            if state.has_live_slot()
                && read_word(state.fp_slot()) != state.fp
                && is_needed(Check::TrailSavedFps)
            {
                return k;
            }
            k = k.wrapping_sub(1);
        }
        k
    }

    /// Drops the outermost states, so that there is room for more on top of state `at`, whose new number is
    /// returned.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, at: u8, n_fresh: usize) -> u8 {
        let n_kept = N_KEPT.saturating_sub(n_fresh).min(at.into());
        let first = usize::from(at).wrapping_add(1).wrapping_sub(n_kept);
        self.states.copy_within(first..first.wrapping_add(n_kept), 1);
        let (mut sum, mut with_live_slot) = (0u64, 0);
        for number in (1..=u8::MAX).take(n_kept) {
            let place = usize::from(number);
            let state = State::of(self.states[place]);
            sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(POWERS[place]));
            self.sums[place] = sum;
            self.by_sp[place_of(state.sp)] = number;
            with_live_slot = if state.has_live_slot() { number } else { with_live_slot };
            self.with_live_slot[place] = with_live_slot;
        }
        n_kept as u8
    }
}

/// What is known of a trail beside its memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(super) top: u8,
    pub(super) root: Root,
}

impl Extent {
    /// A trail of no states.
    pub(crate) const EMPTY: Self = Self { top: 0, root: Root::Open };
}

/// `Bᵏ` at `k`.
static POWERS: [u64; CAPACITY] = powers(hash::BASE);
/// `B⁻ᵏ` at `k`.
static INVERSE_POWERS: [u64; CAPACITY] = powers(hash::INVERSE);

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler"
)]
const fn powers(base: u64) -> [u64; CAPACITY] {
    let mut powers = [1u64; CAPACITY];
    let mut k = 1;
    while k < CAPACITY {
        powers[k] = powers[k - 1].wrapping_mul(base);
        k += 1;
    }
    powers
}

/// The frames of the last walk, in borrowed memory.
pub(crate) struct Trail<'a> {
    pub(super) memory: &'a mut Memory,
    pub(super) extent: &'a mut Extent,
}

#[inline(always)]
const fn place_of(sp: u64) -> usize {
    (sp >> 4) as usize & (N_BY_SP - 1)
}

/// A stack found by a walk: a run of states of the trail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The state of the newest frame that belongs to the stack.
    newest: u8,
    /// The one outward of the outermost.
    beyond: u8,
    pub(crate) end: End,
    pub(crate) hash: StackHash,
    /// How many states were newly walked.
    pub(crate) n_fresh: usize,
}

impl Found {
    pub(crate) const fn len(&self) -> usize {
        self.newest.wrapping_sub(self.beyond) as usize
    }
}

/// The call addresses of a run of states.
#[derive(Clone, Copy)]
pub(crate) struct CallAddrs<'a>(&'a [[u64; STATE_LEN]]);

impl CallAddrs<'_> {
    pub(crate) const fn len(self) -> usize {
        self.0.len()
    }

    /// Newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().rev().map(|&words| State::of(words).key.wrapping_sub(1))
    }
}

#[expect(clippy::indexing_slicing, reason = "a byte, of arrays of 256")]
impl<'a> Trail<'a> {
    /// Returns the trail that lies in `memory` of [`N_WORDS`] words, which were zero at first.
    #[inline(always)]
    pub(crate) fn in_memory(memory: &'a mut [u64], extent: &'a mut Extent) -> Option<Self> {
        let words: &mut [u64; N_WORDS] = memory.first_chunk_mut()?;
        const { assert!(size_of::<Memory>() == size_of::<[u64; N_WORDS]>()) };
        // SAFETY: as large, of no greater alignment, and any bits are a value of either.
        let memory = unsafe { &mut *core::ptr::from_mut(words).cast::<Memory>() };
        Some(Self { memory, extent })
    }

    /// Returns the number of the state that may have this stack pointer.
    #[inline(always)]
    pub(super) fn number_at(&self, sp: u64) -> u8 {
        self.memory.by_sp[place_of(sp)]
    }

    #[inline(always)]
    pub(super) fn state(&self, k: u8) -> State {
        self.memory.state(k)
    }

    /// Compares the words between state `from` and state `to`, outward; returns the state from which
    /// the next step is not as remembered, or `to`.
    #[inline(always)]
    pub(super) fn compare(&self, from: u8, to: u8, read_word: impl Fn(u64) -> u64) -> u8 {
        let differs = |&words: &[u64; STATE_LEN]| {
            let state = State::of(words);
            read_word(state.return_slot()) ^ state.key
        };
        let mut differ =
            self.memory.states(to, from).iter().map(differs).fold(0, |all, one| all | one);
        let mut k = self.memory.with_live_slot[usize::from(from.wrapping_sub(1))];
        while k >= to {
            let state = self.state(k);
            differ |= read_word(state.fp_slot()) ^ state.fp;
            k = self.memory.with_live_slot[usize::from(k.wrapping_sub(1))];
        }
        if differ != 0 {
            return self.memory.search_other(from, to, read_word);
        }
        #[cfg(test)]
        assert!(!is_complete() || self.memory.search_other(from, to, read_word) == to);
        to
    }

    /// Notes that the state at which a walk has met the trail was come to by another step than the one it was found by.
    #[inline(always)]
    pub(super) fn set_incoming_slot(&mut self, at: u8, incoming_slot: u64) {
        let state = self.state(at);
        let state = State { slot: state.slot & FLAGS | incoming_slot, ..state };
        let [_, slot, ..] = &mut self.memory.states[usize::from(at)];
        *slot = state.slot;
        let outer = self.memory.with_live_slot[usize::from(at.wrapping_sub(1))];
        self.memory.with_live_slot[usize::from(at)] =
            if state.has_live_slot() { at } else { outer };
    }

    /// Puts the newly walked states on top of state `at`.
    #[inline(always)]
    pub(super) fn push_fresh(&mut self, at: u8, n_fresh: usize) {
        let mut at = at;
        if usize::from(at).wrapping_add(n_fresh) >= CAPACITY {
            at = self.memory.make_room(at, n_fresh);
            self.extent.root = Root::Open;
        }
        let outer = self.state(at);
        let memory = &mut *self.memory;
        let mut sum = memory.sums[usize::from(at)];
        let mut with_live_slot = memory.with_live_slot[usize::from(at)];
        // Whether a step from the last state, or from one outward of it, depends on the frame pointer that it came with.
        let mut is_live = at != 0 && outer.is_live() && outer.fp_slot() == 0;
        let mut number = at;
        let fresh = memory.fresh.get(N_FRESH.wrapping_sub(n_fresh)..).unwrap_or(&[]);
        for &words in fresh {
            number = number.wrapping_add(1);
            let place = usize::from(number);
            let state = State::of_new(words);
            // Live until it is loaded anew on the way outward.
            is_live |= state.slot & USED != 0;
            let state = State { slot: state.slot | if is_live { LIVE } else { 0 }, ..state };
            let has_slot = state.fp_slot() != 0;
            with_live_slot = if is_live & has_slot { number } else { with_live_slot };
            is_live &= !has_slot;
            memory.with_live_slot[place] = with_live_slot;
            memory.states[place] = state.words();
            sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(POWERS[place]));
            memory.sums[place] = sum;
            memory.by_sp[place_of(state.sp)] = number;
        }
        self.extent.top = number;
    }

    /// Whether I2 to I5 hold.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let top = self.extent.top;
        let (mut sum, mut with_live_slot) = (0u64, 0);
        (1..=top).all(|k| {
            let (state, outer) = (self.state(k), self.state(k - 1));
            sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(POWERS[usize::from(k)]));
            with_live_slot = if state.has_live_slot() { k } else { with_live_slot };
            let goes_on = k > 1 && outer.is_live() && outer.fp_slot() == 0;
            (k == 1 || state.sp < outer.sp)
                && self.memory.sums[usize::from(k)] == sum
                && self.memory.with_live_slot[usize::from(k)] == with_live_slot
                && (state.is_live() == (state.slot & USED != 0 || goes_on)
                    || k == 1 && state.is_live())
        }) && self.memory.sums[0] == 0
            && self.memory.with_live_slot[0] == 0
            && self.state(0).sp == 0
    }

    /// The stack of `len` frames whose newest is that of state `newest`.
    #[inline(always)]
    pub(super) fn found(&self, newest: u8, len: u8, end: End, n_fresh: usize) -> Found {
        let beyond = newest.wrapping_sub(len);
        let sum = |k: u8| self.memory.sums[usize::from(k)];
        let sum = sum(newest).wrapping_sub(sum(beyond));
        let power = INVERSE_POWERS[usize::from(beyond.wrapping_add(1))];
        let hash = hash::finish(sum.wrapping_mul(power), len.into(), end);
        Found { newest, beyond, end, hash, n_fresh }
    }

    /// Returns the call addresses of a stack that the last walk found, newest first.
    #[inline(always)]
    pub(crate) fn call_addrs(&self, found: &Found) -> CallAddrs<'_> {
        let range = usize::from(found.beyond).wrapping_add(1)..=usize::from(found.newest);
        CallAddrs(self.memory.states.get(range).unwrap_or(&[]))
    }

    /// Returns every word that the walk to this stack depended on, leaf first; `None` if they are more than there is room
    /// for.
    ///
    /// Beyond them the walk depended on its start, and at [`End::Limit`] on that the word at
    /// [`Self::limit_slot`] was not zero.
    #[inline(always)]
    pub(crate) fn words(&mut self, found: &Found) -> Option<&mut [Word]> {
        let zero_slot = self.zero_slot(found);
        let top = self.extent.top;
        let Memory { states, fresh, with_live_slot, .. } = &mut *self.memory;
        let has_live_slot = with_live_slot[usize::from(top.wrapping_sub(1))] > found.beyond;
        let first = usize::from(found.beyond).wrapping_add(1);
        // All from where the walk began; each tells of the step that led to it.
        let states = states.get(first..top.into())?.iter().rev().map(|&words| State::of(words));
        // New states lie on the trail by now, and their memory is free.
        let room = fresh.as_flattened_mut().as_chunks_mut().0;
        let room = room.get_mut(..states.len().wrapping_mul(2).wrapping_add(1))?;
        let mut n = 0usize;
        if has_live_slot && is_needed(Check::SavedFps) {
            for state in states {
                *room.get_mut(n)? = [state.return_slot(), state.key];
                *room.get_mut(n.wrapping_add(1))? = [state.fp_slot(), state.fp];
                n = n.wrapping_add(if state.has_live_slot() { 2 } else { 1 });
            }
        } else {
            n = states.len();
            room.iter_mut()
                .zip(states)
                .for_each(|(word, state)| *word = [state.return_slot(), state.key]);
        }
        if zero_slot != 0 {
            *room.get_mut(n)? = [zero_slot, 0];
            n = n.wrapping_add(1);
        }
        let words = room.get_mut(..n)?;
        // SAFETY: a word is an address and its value, as they are here.
        Some(unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) })
    }

    /// Where the zero is at which a stack ends, if it does.
    #[inline(always)]
    fn zero_slot(&self, found: &Found) -> u64 {
        match self.extent.root {
            Root::Ends { zero_slot, .. } if found.end != End::Limit && is_needed(Check::Zero) => {
                zero_slot
            }
            _ => 0,
        }
    }

    /// Where the return address of the outermost frame of a stack at its limit is.
    pub(crate) fn limit_slot(&self, found: &Found) -> u64 {
        self.state(found.beyond).return_slot()
    }

    /// Whether the walk depended on the frame pointer with which it began.
    pub(crate) fn depends_on_fp(&self) -> bool {
        self.state(self.extent.top).is_live()
    }
}
