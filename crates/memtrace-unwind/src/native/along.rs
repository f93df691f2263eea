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
    FLAGS, Found, LIVE, MAX_OWN, N_BEYOND, Root, STATE_LEN, State, Trail, USED,
};
use crate::native::world::{Check, is_needed};
use crate::rule::End;
use crate::walker::{Place, Step, Visitor};

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
    /// New states with which the walk is over, trail or no trail.
    n_at_most: usize,
    is_own: O,
    read_word: R,
    n_fresh: usize,
    /// Those of the tool's own frames among them.
    n_own: usize,
    is_in_own: bool,
    /// States up to this number may be met.
    n_usable: usize,
    incoming_slot: u64,
    stop: Stop,
}

impl<'a> Trail<'a> {
    /// Begins a walk for a stack of at most `limit` frames, at most [`MAX_LIMIT`].
    #[inline(always)]
    pub(crate) fn along<O: Fn(u64) -> bool, R: Fn(u64) -> u64>(
        self,
        limit: usize,
        is_own: O,
        read_word: R,
    ) -> Along<'a, O, R> {
        let n_usable = self.extent.top;
        Along {
            trail: self,
            limit,
            n_at_most: MAX_OWN,
            is_own,
            read_word,
            n_fresh: 0,
            n_own: 0,
            is_in_own: true,
            n_usable,
            incoming_slot: 0,
            stop: Stop::Full,
        }
    }
}

impl<O: Fn(u64) -> bool, R: Fn(u64) -> u64> Visitor for Along<'_, O, R> {
    #[inline(always)]
    fn frame(&mut self, place: Place) -> Option<Place> {
        if self.is_in_own {
            self.is_in_own = (self.is_own)(place.call_addr());
            if self.is_in_own {
                self.n_own = self.n_own.wrapping_add(1);
            } else {
                self.n_at_most = self.n_own.wrapping_add(self.limit).wrapping_add(N_BEYOND);
            }
        }
        let number = self.trail.number_at(place.sp);
        let on_trail = self.trail.state(number);
        if on_trail.sp == place.sp
            && on_trail.key == place.key
            && number <= self.n_usable
            && !self.is_in_own
            && (!on_trail.is_live() || on_trail.fp == place.fp || !is_needed(Check::TrailFp))
        {
            return self.meet(number, place);
        }
        let state = State { key: place.key, sp: place.sp, fp: place.fp, slot: self.incoming_slot };
        let Some(slot) = self.trail.fresh.get_mut(self.n_fresh) else {
            self.stop = Stop::Lost;
            return None;
        };
        *slot = state.new_words();
        self.n_fresh = self.n_fresh.wrapping_add(1);
        if self.n_fresh > self.n_at_most {
            self.stop = if self.is_in_own { Stop::Lost } else { Stop::Full };
            return None;
        }
        Some(place)
    }

    #[inline(always)]
    fn leaves(&mut self, step: Step) {
        self.incoming_slot = step.fp_slot;
        if step.used_fp
            && let Some([_, slot, ..]) = self.trail.fresh.get_mut(self.n_fresh.wrapping_sub(1))
        {
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

impl<'a, O: Fn(u64) -> bool, R: Fn(u64) -> u64> Along<'a, O, R> {
    /// New states that belong to the stack.
    #[inline(always)]
    const fn n_program(&self) -> usize {
        self.n_fresh.wrapping_sub(self.n_own)
    }

    /// Meets the trail at state `at`: `None` if the walk is over, because the rest is as it was, else
    /// the place of the trail where it goes on.
    #[inline(always)]
    fn meet(&mut self, at: usize, place: Place) -> Option<Place> {
        let n_wanted = self.limit.saturating_sub(self.n_program());
        let to = at.saturating_sub(n_wanted).max(1);
        let reached = self.trail.compare(at, to, &self.read_word);
        if reached == to {
            let is_at_limit = at.wrapping_sub(to) == n_wanted;
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
        // What lies between would be met and left in the same way again.
        self.n_usable = reached.wrapping_sub(1);
        let State { key, sp, .. } = self.trail.state(reached);
        let met = self.trail.states.get(reached..=at).unwrap_or(&[]);
        let fresh = self.trail.fresh.get_mut(self.n_fresh..).unwrap_or(&mut []);
        let slot = self.incoming_slot;
        let Some(fp) = take_over(met, fresh, place.fp, slot, &self.read_word) else {
            self.stop = Stop::Lost;
            return None;
        };
        // No more than the limit and one, of which the walk may go on.
        self.n_fresh = self.n_fresh.wrapping_add(met.len());
        Some(Place { key, sp, fp })
    }

    /// Ends the walk and puts its states on the trail; `None` if it went a way that must not be
    /// remembered, or if no frame belongs to the stack.
    ///
    /// `ended` is what [`visit`](crate::walker::visit) returned.
    #[inline(always)]
    pub(crate) fn finish(self, ended: Option<(End, u64)>) -> Option<(Trail<'a>, Found)> {
        let n_program = self.n_program();
        let (mut trail, n_fresh, n_own) = (self.trail, self.n_fresh, self.n_own);
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
                let n_states = joined_at.wrapping_add(1).wrapping_sub(to);
                at = joined_at;
                n_joined = n_states.min(n_wanted);
                end = match trail.extent.root {
                    Root::Ends { end, .. } if n_states <= n_wanted => end,
                    _ => End::Limit,
                };
                if let Some([_, slot, ..]) = trail.states.get_mut(at) {
                    // It was met by another step than the one it was found by.
                    *slot = *slot & FLAGS | self.incoming_slot;
                }
            }
            (None, Stop::Lost) => return None,
        }
        let len = n_program.wrapping_add(n_joined).min(self.limit);
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

/// Takes states of the trail for newly walked, from the last to the first, and returns the frame
/// pointer of that one; `None` if there is no room.
#[cold]
#[inline(never)]
fn take_over(
    met: &[[u64; STATE_LEN]],
    fresh: &mut [[u64; STATE_LEN]],
    fp: u64,
    incoming_slot: u64,
    read_word: &impl Fn(u64) -> u64,
) -> Option<u64> {
    let fresh = fresh.get_mut(..met.len())?;
    let mut fp = fp;
    for (i, (&words, taken)) in met.iter().rev().zip(fresh).enumerate() {
        let mut state = State::of(words);
        if i == 0 {
            // It was met by another step than the one it was found by.
            state.slot = state.slot & USED | incoming_slot;
        } else {
            state.slot &= !LIVE;
            if state.fp_slot() != 0 {
                // A live one was compared; another may have changed, and matter now.
                fp = read_word(state.fp_slot());
            }
        }
        if i == met.len().wrapping_sub(1) {
            // How it is left is about to be found out.
            state.slot &= !USED;
        }
        state.fp = fp;
        *taken = state.new_words();
    }
    Some(fp)
}
