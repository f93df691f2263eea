//! A walk that stops where it meets the trail of the last one.
//!
//! New states are written down newest first, as they come, until one of them is on the
//! [trail](super::trail), and put on it in the other order when the walk is over. Where the trail leads
//! elsewhere than the stack does now, the walk takes over its states up to there and goes on by steps.
//!
//! # Invariants
//!
//! - **I1** No state of the tool's own is met: how many of these a stack begins with is counted anew in
//!   each walk.
//! - **I2** A walk that was not by plain rules, or that left the thread's own stack, is [`Stop::Lost`]:
//!   nothing of it is put on the trail.

use crate::native::trail::{
    Found, LIVE, MAX_OWN, N_BEYOND, N_FRESH, Root, STATE_LEN, State, Trail, USED,
};
use crate::native::world::{Check, is_needed};
use crate::rule::End;
use crate::walker::{Place, Step, Visitor};

/// Why a walk along the trail was over.
#[derive(Clone, Copy)]
enum Stop {
    /// At a state of the trail, from which everything is as it was out to this other one.
    Joined { at: u8, to: u8 },
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
    /// New states lie from here to the end of their memory, the newest last.
    first_fresh: usize,
    /// There the walk is over, trail or no trail.
    last_place: usize,
    /// Those of the tool's own frames among the new states.
    n_own: usize,
    is_in_own: bool,
    /// States up to this number may be met: none from the tool's own frames.
    n_usable: u8,
    incoming_slot: u64,
    stop: Stop,
}

impl<'a> Trail<'a> {
    /// Begins a walk for a stack of at most `limit` frames, at most [`MAX_LIMIT`].
    #[inline(always)]
    pub(crate) fn along<O: Fn(u64) -> bool, R: Fn(u64) -> u64 + Copy>(
        self,
        limit: usize,
        is_own: O,
        read_word: R,
    ) -> Along<'a, O, R> {
        Along {
            trail: self,
            limit,
            is_own,
            read_word,
            first_fresh: N_FRESH,
            last_place: place_after(MAX_OWN),
            n_own: 0,
            is_in_own: true,
            n_usable: 0,
            incoming_slot: 0,
            stop: Stop::Full,
        }
    }
}

/// The place of the new state that comes after `n` others.
#[inline(always)]
const fn place_after(n: usize) -> usize {
    N_FRESH.wrapping_sub(1).wrapping_sub(n)
}

impl<O: Fn(u64) -> bool, R: Fn(u64) -> u64 + Copy> Visitor for Along<'_, O, R> {
    #[inline(always)]
    fn frame(&mut self, place: Place) -> Option<Place> {
        if self.is_in_own {
            self.is_in_own = (self.is_own)(place.call_addr());
            if self.is_in_own {
                self.n_own = self.n_own.wrapping_add(1);
            } else {
                self.n_usable = self.trail.extent.top;
                self.last_place =
                    place_after(self.n_own.wrapping_add(self.limit).wrapping_add(N_BEYOND));
            }
        }
        let number = self.trail.number_at(place.sp);
        let on_trail = self.trail.state(number);
        if on_trail.sp == place.sp
            && on_trail.key == place.key
            && number <= self.n_usable
            && (!on_trail.is_live() || on_trail.fp == place.fp || !is_needed(Check::TrailFp))
        {
            return self.meet(number, place);
        }
        let state = State { key: place.key, sp: place.sp, fp: place.fp, slot: self.incoming_slot };
        self.first_fresh = self.first_fresh.wrapping_sub(1);
        *self.last_fresh() = state.new_words();
        if self.first_fresh <= self.last_place {
            self.stop = if self.is_in_own { Stop::Lost } else { Stop::Full };
            return None;
        }
        Some(place)
    }

    #[inline(always)]
    fn leaves(&mut self, step: Step) {
        self.incoming_slot = step.fp_slot;
        if step.used_fp {
            let [_, slot, ..] = self.last_fresh();
            *slot |= USED;
        }
    }

    #[inline(always)]
    fn leaves_otherwise(&mut self) -> bool {
        if !is_needed(Check::PlainRules) {
            return true;
        }
        // Beyond the limit nothing is lost by not going on.
        let is_enough = !self.is_in_own && self.n_program() > self.limit;
        self.stop = if is_enough { Stop::Full } else { Stop::Lost };
        false
    }
}

impl<'a, O: Fn(u64) -> bool, R: Fn(u64) -> u64 + Copy> Along<'a, O, R> {
    /// The last new state.
    #[inline(always)]
    fn last_fresh(&mut self) -> &mut [u64; STATE_LEN] {
        #[expect(clippy::indexing_slicing, reason = "masked to the length, a power of two")]
        &mut self.trail.memory.fresh[self.first_fresh & (N_FRESH - 1)]
    }

    #[inline(always)]
    const fn n_fresh(&self) -> usize {
        N_FRESH.wrapping_sub(self.first_fresh)
    }

    /// New states that belong to the stack.
    #[inline(always)]
    const fn n_program(&self) -> usize {
        self.n_fresh().wrapping_sub(self.n_own)
    }

    /// Meets the trail at state `at`: `None` if the walk is over, because the rest is as it was, else
    /// the place of the trail where it goes on.
    #[inline(always)]
    fn meet(&mut self, at: u8, place: Place) -> Option<Place> {
        let n_wanted = self.limit.saturating_sub(self.n_program());
        let to = usize::from(at).saturating_sub(n_wanted).max(1) as u8;
        let reached = self.trail.compare(at, to, self.read_word);
        if reached == to {
            let is_at_limit = usize::from(at.wrapping_sub(to)) == n_wanted;
            let is_at_end = match self.trail.extent.root {
                Root::Open => false,
                Root::Ends { zero_slot: 0, .. } => true,
                Root::Ends { zero_slot, .. } => {
                    (self.read_word)(zero_slot) == 0 || !is_needed(Check::TrailZero)
                }
            };
            if is_at_limit || is_at_end {
                self.stop = Stop::Joined { at, to };
                return None;
            }
        }
        self.take_over(at, reached, place.fp)
    }

    /// Takes states of the trail for newly walked, from number `from` out to number `to`, from which the walk goes on by
    /// steps; `None` if there is no room.
    #[inline(always)]
    fn take_over(&mut self, from: u8, to: u8, fp: u64) -> Option<Place> {
        // What lies between would be met and left in the same way again.
        self.n_usable = to.wrapping_sub(1);
        let State { key, sp, .. } = self.trail.state(to);
        let n_taken = usize::from(from.wrapping_sub(to)).wrapping_add(1);
        // There is room: these are no more than the limit and one, of which the walk may go on.
        let first_fresh = self.first_fresh.wrapping_sub(n_taken);
        let memory = &mut *self.trail.memory;
        let met = memory.states.get(to.into()..=from.into());
        let fresh = memory.fresh.get_mut(first_fresh..self.first_fresh);
        let taken = met
            .zip(fresh)
            .map(|(met, fresh)| take_over(met, fresh, fp, self.incoming_slot, self.read_word));
        let Some(fp) = taken else {
            self.stop = Stop::Lost;
            return None;
        };
        self.first_fresh = first_fresh;
        Some(Place { key, sp, fp })
    }

    /// Ends the walk and puts its states on the trail; `None` if it went a way that must not be
    /// remembered, or if no frame belongs to the stack.
    ///
    /// `ended` is what [`visit`](crate::walker::visit) returned.
    #[inline(always)]
    pub(crate) fn finish(self, ended: Option<(End, u64)>) -> Option<(Trail<'a>, Found)> {
        let (n_fresh, n_program) = (self.n_fresh(), self.n_program());
        let (mut trail, n_own) = (self.trail, self.n_own);
        let (at, n_joined, end);
        match (ended, self.stop) {
            (Some((how, zero_slot)), _) => {
                trail.extent.root = Root::Ends { end: how, zero_slot };
                (at, n_joined) = (0, 0);
                end = if n_program > self.limit { End::Limit } else { how };
            }
            (None, Stop::Full) => {
                trail.extent.root = Root::Open;
                (at, n_joined, end) = (0, 0, End::Limit);
            }
            (None, Stop::Joined { at: joined_at, to }) => {
                let n_wanted = self.limit.saturating_sub(n_program);
                let n_states = usize::from(joined_at.wrapping_sub(to)).wrapping_add(1);
                at = joined_at;
                n_joined = n_states.min(n_wanted);
                end = match trail.extent.root {
                    Root::Ends { end, .. } if n_states <= n_wanted => end,
                    _ => End::Limit,
                };
                trail.set_incoming_slot(at, self.incoming_slot);
            }
            (None, Stop::Lost) => return None,
        }
        let len = n_program.wrapping_add(n_joined).min(self.limit);
        // On nothing, the states of the last walk are void, and so are their sums.
        trail.push_fresh(at, n_fresh);
        if len == 0 {
            return None;
        }
        let newest = trail.extent.top.wrapping_sub(n_own as u8);
        let found = trail.found(newest, len as u8, end, n_fresh);
        Some((trail, found))
    }
}

/// Copies the outermost states of a trail over those that are newly walked, and returns the frame pointer of the first
/// of them. Both are newest last, and as long as each other.
#[cold]
#[inline(never)]
fn take_over(
    met: &[[u64; STATE_LEN]],
    fresh: &mut [[u64; STATE_LEN]],
    fp: u64,
    incoming_slot: u64,
    read_word: impl Fn(u64) -> u64,
) -> u64 {
    let mut fp = fp;
    let n_taken = fresh.len();
    for (i, (&words, taken)) in met.iter().zip(fresh).enumerate().rev() {
        let mut state = State::of(words);
        if i == n_taken.wrapping_sub(1) {
            // It was met by another step than the one it was found by.
            state.slot = state.slot & USED | incoming_slot;
        } else {
            state.slot &= !LIVE;
            if state.fp_slot() != 0 {
                // A live one was compared; another may have changed, and matter now.
                fp = read_word(state.fp_slot());
            }
        }
        if i == 0 {
            // How it is left is about to be found out.
            state.slot &= !USED;
        }
        state.fp = fp;
        *taken = state.new_words();
    }
    fp
}
