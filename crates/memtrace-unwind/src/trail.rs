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
//! - **I3** `sums[k] = sums[k − 1] + m(k) · B⁻ᵏ`, `sums[0] = 0`.
//! - **I4** A state is marked live if and only if a step from it, or from a state outward of it before
//!   the frame pointer is loaded anew, depends on the frame pointer.

use crate::hash::{self, StackHash};
use crate::rule::End;
use crate::walker::{Place, Step, Visitor};

/// States that a trail holds, plus one.
pub(crate) const CAPACITY: usize = 160;
/// The most frames that a stack may have which is looked for on a trail.
pub(crate) const MAX_LIMIT: usize = 100;
/// Frames that a walk without a trail goes on beyond its limit, so that a trail is good for walks
/// from a little further out, too.
const N_BEYOND: usize = 12;
/// The most frames of the tool's own that a stack may begin with.
const MAX_OWN: usize = 20;
/// States kept, with the new ones, when a trail is full. All those of a stack are among them.
const N_KEPT: usize = 136;

const _: () = assert!(N_KEPT > MAX_LIMIT + 1 + MAX_OWN && N_KEPT < CAPACITY);
const _: () = assert!(MAX_LIMIT + N_BEYOND + 1 + MAX_OWN < CAPACITY);

/// A step from this state depends on the frame pointer.
const USED: u64 = 1;
/// The frame pointer of this state is live.
const LIVE: u64 = 2;
const FLAGS: u64 = 7;

/// One frame on a trail, as four words of memory.
#[derive(Clone, Copy)]
struct State {
    key: u64,
    sp: u64,
    fp: u64,
    /// Where the step to this state loaded the frame pointer from, or zero; with flags.
    slot: u64,
}

impl State {
    #[inline(always)]
    const fn of(words: [u64; STATE_LEN]) -> Self {
        let [key, sp, fp, slot] = words;
        Self { key, sp, fp, slot }
    }

    #[inline(always)]
    const fn words(self) -> [u64; STATE_LEN] {
        [self.key, self.sp, self.fp, self.slot]
    }

    #[inline(always)]
    const fn fp_slot(self) -> u64 {
        self.slot & !FLAGS
    }

    #[inline(always)]
    const fn is_live(self) -> bool {
        self.slot & LIVE != 0
    }
}

/// How the outermost state of a trail is left.
#[derive(Clone, Copy)]
enum Root {
    /// The walk did not go further.
    Open,
    /// The stack ends there; if `zero_slot` is not zero, because the word there is.
    Ends { end: End, zero_slot: u64 },
}

const STATE_LEN: usize = 4;
/// Words that a trail takes in memory.
pub(crate) const N_WORDS: usize = CAPACITY * (2 * STATE_LEN + 1);

/// What is known of a trail beside its memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    top: usize,
    root: Root,
}

impl Extent {
    /// A trail of no states.
    pub(crate) const EMPTY: Self = Self { top: 0, root: Root::Open };
}

/// The frames of the last walk, in borrowed memory.
pub(crate) struct Trail<'a> {
    states: &'a mut [[u64; STATE_LEN]],
    /// States newly walked, newest first.
    fresh: &'a mut [[u64; STATE_LEN]],
    sums: &'a mut [u64],
    extent: &'a mut Extent,
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

/// Why a walk along the trail was over.
#[derive(Clone, Copy)]
enum Stop {
    /// At a state of the trail, from which everything is as it was out to this other one.
    Joined { at: usize, to: usize },
    /// Beyond the limit, without a trail.
    Full,
    /// In a way that must not be remembered.
    Lost,
}

/// A walk along a trail.
pub(crate) struct Along<'a, O, R> {
    trail: Trail<'a>,
    limit: usize,
    is_own: O,
    read_word: R,
    n_fresh: usize,
    /// Fresh frames that belong to the stack.
    n_program: usize,
    is_in_own: bool,
    /// The state of the trail to look at next.
    cursor: usize,
    incoming_slot: u64,
    stop: Stop,
}

impl<'a> Trail<'a> {
    /// Returns the trail that lies in `memory` of [`N_WORDS`] words, which were zero at first.
    #[inline(always)]
    pub(crate) fn in_memory(memory: &'a mut [u64], extent: &'a mut Extent) -> Option<Self> {
        let (states, rest) = memory.split_at_mut_checked(CAPACITY * STATE_LEN)?;
        let (fresh, sums) = rest.split_at_mut_checked(CAPACITY * STATE_LEN)?;
        let (states, fresh) = (states.as_chunks_mut().0, fresh.as_chunks_mut().0);
        Some(Self { states, fresh, sums, extent })
    }

    /// Begins a walk for a stack of at most `limit` frames, at most [`MAX_LIMIT`].
    #[inline(always)]
    pub(crate) fn along<O: Fn(u64) -> bool, R: Fn(u64) -> u64>(
        self,
        limit: usize,
        is_own: O,
        read_word: R,
    ) -> Along<'a, O, R> {
        let cursor = self.extent.top;
        Along {
            trail: self,
            limit,
            is_own,
            read_word,
            n_fresh: 0,
            n_program: 0,
            is_in_own: true,
            cursor,
            incoming_slot: 0,
            stop: Stop::Full,
        }
    }

    #[inline(always)]
    fn state(&self, k: usize) -> State {
        State::of(self.states.get(k).copied().unwrap_or([0; STATE_LEN]))
    }

    /// Compares the words between state `from` and state `to`, outward; returns the state from which
    /// the next step is not as remembered, or `to`.
    #[inline(always)]
    fn compare(&self, from: usize, to: usize, read_word: &impl Fn(u64) -> u64) -> usize {
        let states = self.states.get(to..from).unwrap_or(&[]);
        let mut k = from;
        for state in states.iter().rev().map(|&words| State::of(words)) {
            // The step to a state reads its return address just below its stack pointer.
            if read_word(state.sp.wrapping_sub(8)) != state.key {
                return k;
            }
            let slot = state.slot;
            if slot & LIVE != 0 && slot & !FLAGS != 0 && read_word(slot & !FLAGS) != state.fp {
                return k;
            }
            k = k.wrapping_sub(1);
        }
        k
    }

    /// Puts the newly walked states on top of state `at`.
    #[inline(always)]
    fn push_fresh(&mut self, at: usize, n_fresh: usize) {
        let mut at = at;
        if at.wrapping_add(n_fresh) >= CAPACITY {
            at = self.make_room(at, n_fresh);
        }
        let mut outer = self.state(at);
        let mut sum = self.sums.get(at).copied().unwrap_or(0);
        let mut is_live = at != 0 && outer.is_live();
        let fresh = self.fresh.get(..n_fresh).unwrap_or(&[]);
        let places = self.states.iter_mut().zip(&mut *self.sums).skip(at.wrapping_add(1));
        let powers = hash::INVERSE_POWERS.iter().skip(at.wrapping_add(1));
        for ((&words, (place, place_sum)), &power) in fresh.iter().rev().zip(places).zip(powers) {
            let state = State::of(words);
            // Live until it is loaded anew on the way outward.
            is_live = state.slot & USED != 0 || is_live && outer.fp_slot() == 0;
            outer = State { slot: state.slot | if is_live { LIVE } else { 0 }, ..state };
            *place = outer.words();
            sum = sum.wrapping_add(hash::mix(state.key.wrapping_sub(1)).wrapping_mul(power));
            *place_sum = sum;
        }
        self.extent.top = at.wrapping_add(n_fresh);
    }

    /// Drops the outermost states, so that there is room for more on top of state `at`, whose new
    /// number is returned.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, at: usize, n_fresh: usize) -> usize {
        let n_kept = N_KEPT.saturating_sub(n_fresh).min(at);
        let first = at.wrapping_add(1).wrapping_sub(n_kept);
        self.states.copy_within(first..at.wrapping_add(1), 1);
        self.extent.root = Root::Open;
        let mut sum = 0u64;
        let states = self.states.iter().zip(&mut *self.sums).zip(&hash::INVERSE_POWERS);
        for ((&words, place), &power) in states.skip(1).take(n_kept) {
            let state = State::of(words);
            sum = sum.wrapping_add(hash::mix(state.key.wrapping_sub(1)).wrapping_mul(power));
            *place = sum;
        }
        n_kept
    }

    /// The stack of `len` frames whose newest is that of state `newest`.
    #[inline(always)]
    fn found(&self, newest: usize, len: usize, end: End, n_fresh: usize) -> Found {
        let below = newest.wrapping_sub(len);
        let sum = |k: usize| self.sums.get(k).copied().unwrap_or(0);
        let sum = sum(newest).wrapping_sub(sum(below));
        let power = hash::POWERS.get(newest).copied().unwrap_or(0);
        let hash = hash::finish(sum.wrapping_mul(power), len as u64, end);
        Found { newest, outermost: below.wrapping_add(1), end, hash, n_fresh }
    }

    /// Writes the call addresses of a stack that the last walk found, newest first.
    pub(crate) fn copy_to(&self, found: &Found, out: &mut [u64]) {
        let states = self.states.get(found.outermost..=found.newest).unwrap_or(&[]);
        for (&words, place) in states.iter().rev().zip(out) {
            *place = State::of(words).key.wrapping_sub(1);
        }
    }

    /// Tells `word` of every word that the walk to this stack depended on, leaf first: where it is,
    /// and its value. `false` if `word` ever returned it.
    ///
    /// Beyond them the walk depended on its start, and at [`End::Limit`] on that the word at
    /// [`Self::limit_slot`] was not zero.
    pub(crate) fn for_each_word(
        &self,
        found: &Found,
        mut word: impl FnMut(u64, u64) -> bool,
    ) -> bool {
        // All states from where the walk began; each tells of the step that led to it.
        let states = self.states.get(found.outermost..self.extent.top).unwrap_or(&[]);
        for state in states.iter().rev().map(|&words| State::of(words)) {
            if !word(state.sp.wrapping_sub(8), state.key) {
                return false;
            }
            if state.is_live() && state.fp_slot() != 0 && !word(state.fp_slot(), state.fp) {
                return false;
            }
        }
        match (found.end, self.extent.root) {
            (End::Limit, _) | (_, Root::Open | Root::Ends { zero_slot: 0, .. }) => true,
            (_, Root::Ends { zero_slot, .. }) => word(zero_slot, 0),
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

impl<O: Fn(u64) -> bool, R: Fn(u64) -> u64> Visitor for Along<'_, O, R> {
    #[inline(always)]
    fn frame(&mut self, place: &mut Place) -> bool {
        if self.is_in_own {
            self.is_in_own = (self.is_own)(place.call_addr());
        }
        let mut on_trail = self.trail.state(self.cursor);
        while on_trail.sp < place.sp {
            // State 0 is never written.
            if self.cursor == 0 {
                break;
            }
            self.cursor = self.cursor.wrapping_sub(1);
            on_trail = self.trail.state(self.cursor);
        }
        if on_trail.sp == place.sp
            && on_trail.key == place.key
            && self.cursor != 0
            && !self.is_in_own
            && (!on_trail.is_live() || on_trail.fp == place.fp)
        {
            return self.meet(place);
        }
        let state =
            State { key: place.key, sp: place.sp, fp: place.fp, slot: self.incoming_slot };
        let Some(slot) = self.trail.fresh.get_mut(self.n_fresh) else {
            self.stop = Stop::Lost;
            return false;
        };
        *slot = state.words();
        self.n_fresh = self.n_fresh.wrapping_add(1);
        self.n_program = self.n_program.wrapping_add(usize::from(!self.is_in_own));
        if self.n_program > self.limit.wrapping_add(N_BEYOND) {
            self.stop = Stop::Full;
            return false;
        }
        if self.is_in_own && self.n_fresh > MAX_OWN {
            self.stop = Stop::Lost;
            return false;
        }
        true
    }

    #[inline(always)]
    fn leaves(&mut self, step: Step) {
        self.incoming_slot = step.fp_slot;
        if step.used_fp
            && let Some([.., slot]) = self.trail.fresh.get_mut(self.n_fresh.wrapping_sub(1))
        {
            *slot |= USED;
        }
    }

    #[inline(always)]
    fn leaves_otherwise(&mut self) -> bool {
        self.stop = Stop::Lost;
        false
    }
}

impl<'a, O: Fn(u64) -> bool, R: Fn(u64) -> u64> Along<'a, O, R> {
    /// Meets the trail at the state under the cursor: `false` if the walk is over, because the rest is
    /// as it was; `true` if it goes on from a state of the trail.
    #[inline(always)]
    fn meet(&mut self, place: &mut Place) -> bool {
        let at = self.cursor;
        let n_wanted = self.limit.saturating_sub(self.n_program);
        let to = at.saturating_sub(n_wanted).max(1);
        let reached = self.trail.compare(at, to, &self.read_word);
        if reached == to {
            let is_at_limit = at.wrapping_sub(to) == n_wanted;
            let is_at_end = match self.trail.extent.root {
                Root::Open => false,
                Root::Ends { zero_slot: 0, .. } => true,
                Root::Ends { zero_slot, .. } => (self.read_word)(zero_slot) == 0,
            };
            if is_at_limit || is_at_end {
                self.stop = Stop::Joined { at, to };
                return false;
            }
        }
        self.go_on_from(at, reached, place)
    }

    /// Takes the states of the trail from `at` out to `reached` for newly walked, and puts the walk
    /// there.
    #[cold]
    #[inline(never)]
    fn go_on_from(&mut self, at: usize, reached: usize, place: &mut Place) -> bool {
        self.cursor = reached.wrapping_sub(1);
        let mut fp = place.fp;
        for k in (reached..=at).rev() {
            let mut state = self.trail.state(k);
            if k == at {
                state.slot = self.incoming_slot | state.slot & USED;
            } else {
                state.slot &= !LIVE;
                match state.fp_slot() {
                    0 => {}
                    // A live one was compared; another may have changed, and matter now.
                    slot => fp = (self.read_word)(slot),
                }
            }
            if k == reached {
                // How it is left is about to be found out.
                state.slot &= !USED;
            }
            state.fp = fp;
            let Some(slot) = self.trail.fresh.get_mut(self.n_fresh) else {
                self.stop = Stop::Lost;
                return false;
            };
            *slot = state.words();
            self.n_fresh = self.n_fresh.wrapping_add(1);
            self.n_program = self.n_program.wrapping_add(1);
            *place = Place { key: state.key, sp: state.sp, fp };
        }
        if self.n_program > self.limit.wrapping_add(N_BEYOND) {
            self.stop = Stop::Full;
            return false;
        }
        true
    }

    /// Ends the walk and puts its states on the trail; `None` if it went a way that must not be
    /// remembered, or if no frame belongs to the stack.
    ///
    /// `ended` is what [`visit`](crate::walker::visit) returned.
    #[inline(always)]
    pub(crate) fn finish(self, ended: Option<(End, u64)>) -> Option<(Trail<'a>, Found)> {
        let (mut trail, n_fresh) = (self.trail, self.n_fresh);
        let n_own = n_fresh.wrapping_sub(self.n_program);
        let (at, n_joined, end);
        match (ended, self.stop) {
            (Some((how, zero_slot)), _) => {
                trail.extent.root = Root::Ends { end: how, zero_slot };
                (at, n_joined) = (0, 0);
                end = if self.n_program > self.limit { End::Limit } else { how };
            }
            (None, Stop::Full) => {
                trail.extent.root = Root::Open;
                (at, n_joined, end) = (0, 0, End::Limit);
            }
            (None, Stop::Joined { at: joined_at, to }) => {
                let n_wanted = self.limit.saturating_sub(self.n_program);
                let n_states = joined_at.wrapping_add(1).wrapping_sub(to);
                at = joined_at;
                n_joined = n_states.min(n_wanted);
                end = match trail.extent.root {
                    Root::Ends { end, .. } if n_states <= n_wanted => end,
                    _ => End::Limit,
                };
                if let Some([.., slot]) = trail.states.get_mut(at) {
                    // It was met by another step than the one it was found by.
                    *slot = *slot & FLAGS | self.incoming_slot;
                }
            }
            (None, Stop::Lost) => return None,
        }
        let len = self.n_program.wrapping_add(n_joined).min(self.limit);
        if at == 0 {
            // The states of the last walk are void, and so are their sums.
            trail.extent.top = 0;
        }
        trail.push_fresh(at, n_fresh);
        if len == 0 {
            return None;
        }
        let found = trail.found(trail.extent.top.wrapping_sub(n_own), len, end, n_fresh);
        Some((trail, found))
    }
}
