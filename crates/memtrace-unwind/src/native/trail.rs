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
//! that the hash of any run of frames comes from two of them.
//!
//! # Invariants
//!
//! - **I1** For `1 < k ≤ top`: with the words compared that belong to state `k − 1`, a walk from state
//!   `k` comes to state `k − 1` under the rules of one generation, by plain rules and within the
//!   thread's own stack.
//! - **I2** Stack pointers strictly rise from `top` down to 1.
//! - **I3** `sums[k] = sums[k − 1] + a(k) · Bᵏ`, `sums[0] = 0`.
//! - **I4** A state is marked live if and only if a step from it, or from a state outward of it before
//!   the frame pointer is loaded anew, depends on the frame pointer.

use crate::hash::{self, StackHash};
use crate::native::record::Word;
use crate::native::world::{Check, is_needed};
use crate::rule::End;

/// States that a trail holds, plus one.
pub(crate) const CAPACITY: usize = 160;
/// The most frames that a stack may have which is looked for on a trail.
pub(crate) const MAX_LIMIT: usize = 100;
/// Frames that a walk without a trail goes on beyond its limit, so that a trail is good for walks
/// from a little further out, too.
pub(super) const N_BEYOND: usize = 12;
/// The most frames of the tool's own that a stack may begin with.
pub(crate) const MAX_OWN: usize = 20;
/// States kept, with the new ones, when a trail is full. All those of a stack are among them.
const N_KEPT: usize = 136;

const _: () = assert!(N_KEPT > MAX_LIMIT + 1 + MAX_OWN && N_KEPT < CAPACITY);
const _: () = assert!(MAX_LIMIT + N_BEYOND + 1 + MAX_OWN < CAPACITY);

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
pub(crate) const N_WORDS: usize = CAPACITY * (2 * STATE_LEN + 1) + N_BY_SP;

/// What is known of a trail beside its memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(super) top: usize,
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

type States = [[u64; STATE_LEN]; CAPACITY];

/// The frames of the last walk, in borrowed memory.
pub(crate) struct Trail<'a> {
    pub(super) states: &'a mut States,
    /// States newly walked, newest first.
    pub(super) fresh: &'a mut States,
    sums: &'a mut [u64; CAPACITY],
    /// Numbers of states, each where its stack pointer says; the last one pushed, if several.
    by_sp: &'a mut [u64; N_BY_SP],
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
    newest: usize,
    /// That of the outermost one.
    outermost: usize,
    pub(crate) end: End,
    pub(crate) hash: StackHash,
    /// How many states were newly walked.
    pub(crate) n_fresh: usize,
}

impl Found {
    pub(crate) const fn len(&self) -> usize {
        self.newest.wrapping_add(1).wrapping_sub(self.outermost)
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

impl<'a> Trail<'a> {
    /// Returns the trail that lies in `memory` of [`N_WORDS`] words, which were zero at first.
    #[inline(always)]
    pub(crate) fn in_memory(memory: &'a mut [u64], extent: &'a mut Extent) -> Option<Self> {
        let (states, rest) = memory.split_at_mut_checked(CAPACITY * STATE_LEN)?;
        let (fresh, rest) = rest.split_at_mut_checked(CAPACITY * STATE_LEN)?;
        let (by_sp, sums) = rest.split_first_chunk_mut()?;
        let states = states.as_chunks_mut().0.first_chunk_mut()?;
        let fresh = fresh.as_chunks_mut().0.first_chunk_mut()?;
        let sums = sums.first_chunk_mut()?;
        Some(Self { states, fresh, sums, by_sp, extent })
    }

    /// Returns the number of the state that may have this stack pointer.
    #[inline(always)]
    pub(super) fn number_at(&self, sp: u64) -> usize {
        #[expect(clippy::indexing_slicing, reason = "masked to the length, a power of two")]
        let number = self.by_sp[place_of(sp)];
        number as usize
    }

    #[inline(always)]
    pub(super) fn state(&self, k: usize) -> State {
        State::of(self.states.get(k).copied().unwrap_or([0; STATE_LEN]))
    }

    /// Compares the words between state `from` and state `to`, outward; returns the state from which
    /// the next step is not as remembered, or `to`.
    #[inline(always)]
    pub(super) fn compare(&self, from: usize, to: usize, read_word: &impl Fn(u64) -> u64) -> usize {
        let states = self.states.get(to..from).unwrap_or(&[]);
        let mut k = from;
        for state in states.iter().rev().map(|&words| State::of(words)) {
            // The step to a state reads its return address just below its stack pointer.
            if read_word(state.sp.wrapping_sub(8)) != state.key
                && is_needed(Check::TrailReturnAddrs)
            {
                return k;
            }
            if state.is_live()
                && state.fp_slot() != 0
                && read_word(state.fp_slot()) != state.fp
                && is_needed(Check::TrailSavedFps)
            {
                return k;
            }
            k = k.wrapping_sub(1);
        }
        k
    }

    /// Puts the newly walked states on top of state `at`.
    #[inline(always)]
    pub(super) fn push_fresh(&mut self, at: usize, n_fresh: usize) {
        let mut at = at;
        if at.wrapping_add(n_fresh) >= CAPACITY {
            at = make_room(self.states, self.sums, self.by_sp, at, n_fresh);
            self.extent.root = Root::Open;
        }
        let mut outer = self.state(at);
        let mut sum = self.sums.get(at).copied().unwrap_or(0);
        let mut is_live = at != 0 && outer.is_live();
        let fresh = self.fresh.get(..n_fresh).unwrap_or(&[]);
        let mut number = at as u64;
        let by_sp = &mut *self.by_sp;
        let range = at.wrapping_add(1)..at.wrapping_add(n_fresh).wrapping_add(1);
        let states = self.states.get_mut(range.clone()).unwrap_or(&mut []);
        let places = states.iter_mut().zip(self.sums.get_mut(range.clone()).unwrap_or(&mut []));
        let powers = POWERS.get(range).unwrap_or(&[]);
        for ((&words, (place, place_sum)), &power) in fresh.iter().rev().zip(places).zip(powers) {
            let state = State::of_new(words);
            // Live until it is loaded anew on the way outward.
            is_live = state.slot & USED != 0 || is_live && outer.fp_slot() == 0;
            outer = State { slot: state.slot | if is_live { LIVE } else { 0 }, ..state };
            *place = outer.words();
            sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(power));
            *place_sum = sum;
            number = number.wrapping_add(1);
            #[expect(clippy::indexing_slicing, reason = "masked to the length, a power of two")]
            let numbered = &mut by_sp[place_of(outer.sp)];
            *numbered = number;
        }
        self.extent.top = at.wrapping_add(n_fresh);
    }

    /// Whether I2, I3 and I4 hold.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let top = self.extent.top;
        let mut sum = 0u64;
        (1..=top).all(|k| {
            let (state, outer) = (self.state(k), self.state(k - 1));
            sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(POWERS[k]));
            let goes_on = k > 1 && outer.is_live() && outer.fp_slot() == 0;
            (k == 1 || state.sp < outer.sp)
                && self.sums[k] == sum
                && state.is_live() == (state.slot & USED != 0 || goes_on)
        }) && self.sums[0] == 0
            && self.state(0).sp == 0
    }

    /// The stack of `len` frames whose newest is that of state `newest`.
    #[inline(always)]
    pub(super) fn found(&self, newest: usize, len: usize, end: End, n_fresh: usize) -> Found {
        let below = newest.wrapping_sub(len);
        let sum = |k: usize| self.sums.get(k).copied().unwrap_or(0);
        let sum = sum(newest).wrapping_sub(sum(below));
        let power = INVERSE_POWERS.get(below.wrapping_add(1)).copied().unwrap_or(0);
        let hash = hash::finish(sum.wrapping_mul(power), len as u64, end);
        Found { newest, outermost: below.wrapping_add(1), end, hash, n_fresh }
    }

    /// Returns the call addresses of a stack that the last walk found, newest first.
    #[inline(always)]
    pub(crate) fn call_addrs(&self, found: &Found) -> CallAddrs<'_> {
        CallAddrs(self.states.get(found.outermost..=found.newest).unwrap_or(&[]))
    }

    /// Returns every word that the walk to this stack depended on, leaf first.
    ///
    /// Beyond them the walk depended on its start, and at [`End::Limit`] on that the word at
    /// [`Self::limit_slot`] was not zero.
    #[inline(always)]
    pub(crate) fn words(&self, found: &Found) -> impl Iterator<Item = Word> + Clone {
        let of_state = |state: State| {
            let is_saved = state.is_live() && state.fp_slot() != 0 && is_needed(Check::SavedFps);
            let saved = Word { addr: state.fp_slot(), value: state.fp };
            let return_addr = Word { addr: state.sp.wrapping_sub(8), value: state.key };
            [Some(return_addr), is_saved.then_some(saved)].into_iter().flatten()
        };
        let zero = match self.zero_slot(found) {
            0 => None,
            addr => Some(Word { addr, value: 0 }),
        };
        self.steps(found).flat_map(of_state).chain(zero)
    }

    /// All states from where the walk began; each tells of the step that led to it.
    #[inline(always)]
    fn steps(&self, found: &Found) -> impl Iterator<Item = State> + Clone {
        let states = self.states.get(found.outermost..self.extent.top).unwrap_or(&[]);
        states.iter().rev().map(|&words| State::of(words))
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
        self.state(found.outermost.wrapping_sub(1)).sp.wrapping_sub(8)
    }

    /// Whether the walk depended on the frame pointer with which it began.
    pub(crate) fn depends_on_fp(&self) -> bool {
        self.state(self.extent.top).is_live()
    }
}

/// Drops the outermost states, so that there is room for more on top of state `at`, whose new number is
/// returned.
#[cold]
#[inline(never)]
fn make_room(
    states: &mut States,
    sums: &mut [u64; CAPACITY],
    by_sp: &mut [u64; N_BY_SP],
    at: usize,
    n_fresh: usize,
) -> usize {
    let n_kept = N_KEPT.saturating_sub(n_fresh).min(at);
    let first = at.wrapping_add(1).wrapping_sub(n_kept);
    states.copy_within(first..at.wrapping_add(1), 1);
    let mut sum = 0u64;
    let kept = states.iter().zip(sums).zip(&POWERS).enumerate();
    for (k, ((&words, place), &power)) in kept.skip(1).take(n_kept) {
        let state = State::of(words);
        sum = sum.wrapping_add(state.key.wrapping_sub(1).wrapping_mul(power));
        *place = sum;
        #[expect(clippy::indexing_slicing, reason = "masked to the length, a power of two")]
        let numbered = &mut by_sp[place_of(state.sp)];
        *numbered = k as u64;
    }
    n_kept
}
