//! Which of two ways is quicker, found out again and again by the clock.
//!
//! Whether a walk along the trail of the last one costs less than a plain walk depends on how deep
//! stacks are, on how much of them stays the same, and on how much of the program's unwind rules is in
//! the processor's first cache. So it is not reckoned but tried: the way in use runs for a while, then
//! the other for a few captures; the last ones of each are timed. A way that wins again and again is
//! put to the test more and more seldom.
//!
//! # Cost
//!
//! Two readings of the processor's clock for 16 in some 500 captures, and 24 captures by the slower way.

/// Captures that are timed of each way.
const N_TIMED: u32 = 16;
/// Captures by the other way before it is timed: it may have to find its feet.
const N_WARMING_UP: u32 = 8;
/// Captures from one trial to the next, at first and at most.
const FIRST_RUN: u32 = 256;
const LONGEST_RUN: u32 = 1 << 13;
/// What a capture may have taken in cycles to be taken for one that was not interrupted.
const MOST_CYCLES: u64 = 4096;

/// Whether captures go along the trail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) is_trail: bool,
    /// Whether what is being timed did something that captures seldom do.
    pub(crate) is_spoilt: bool,
    is_trial: bool,
    n_left: u32,
    run: u32,
    /// Of the way in use.
    in_use: Timing,
    /// Of the one on trial.
    on_trial: Timing,
    /// What the quicker way took in the mean when it was last timed, in cycles; 0 before.
    mean_cycles: u64,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    cycles: u64,
    n: u32,
}

impl Timing {
    const NONE: Self = Self { cycles: 0, n: 0 };

    fn mean(self) -> Option<u64> {
        self.cycles.checked_div(self.n.into())
    }

    /// Whether this one took less in the mean; `None` if one was not timed.
    fn is_less_than(self, other: Self) -> Option<bool> {
        if self.n == 0 || other.n == 0 {
            return None;
        }
        let scaled = |a: Self, b: Self| a.cycles.saturating_mul(b.n.into());
        Some(scaled(self, other) < scaled(other, self))
    }
}

impl Choice {
    pub(crate) const NEW: Self = Self {
        is_trail: true,
        is_spoilt: false,
        is_trial: false,
        n_left: FIRST_RUN,
        run: FIRST_RUN,
        in_use: Timing::NONE,
        on_trial: Timing::NONE,
        mean_cycles: 0,
    };

    /// Returns what a walk takes, in cycles; 0 if it is not known yet.
    pub(crate) const fn mean_cycles(&self) -> u64 {
        self.mean_cycles
    }

    /// Begins a capture; `true` if it is to be timed.
    #[inline(always)]
    pub(crate) fn begin(&mut self) -> bool {
        self.n_left = self.n_left.wrapping_sub(1);
        if self.n_left == 0 {
            self.turn();
        }
        self.is_spoilt = false;
        self.n_left <= N_TIMED
    }

    /// Ends a capture that was timed.
    #[cold]
    #[inline(never)]
    pub(crate) fn end(&mut self, cycles: u64) {
        if self.is_spoilt || cycles > MOST_CYCLES {
            return;
        }
        let timing = if self.is_trial { &mut self.on_trial } else { &mut self.in_use };
        timing.cycles = timing.cycles.wrapping_add(cycles);
        timing.n = timing.n.wrapping_add(1);
    }

    /// Begins a trial, or decides after one.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) {
        self.is_trail ^= true;
        if !self.is_trial {
            self.is_trial = true;
            self.n_left = N_WARMING_UP.saturating_add(N_TIMED);
            return;
        }
        // It is the other way round now: back to the way that was in use, unless that is slower.
        self.is_trial = false;
        self.run = match self.on_trial.is_less_than(self.in_use) {
            Some(true) => {
                self.is_trail ^= true;
                FIRST_RUN
            }
            Some(false) => self.run.saturating_mul(2).min(LONGEST_RUN),
            None => FIRST_RUN,
        };
        let quicker = [self.in_use, self.on_trial].into_iter().filter_map(Timing::mean).min();
        self.mean_cycles = quicker.unwrap_or(self.mean_cycles);
        self.n_left = self.run;
        (self.in_use, self.on_trial) = (Timing::NONE, Timing::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes captures that take so many cycles each, and returns how many went along the trail.
    fn captures(choice: &mut Choice, n: u32, by_trail: u64, plain: u64) -> u32 {
        let mut n_by_trail = 0;
        for i in 0..n {
            let is_timed = choice.begin();
            n_by_trail += u32::from(choice.is_trail);
            if is_timed {
                // One in eight is interrupted.
                let cycles = if choice.is_trail { by_trail } else { plain };
                choice.end(if i % 8 == 0 { 1 << 20 } else { cycles });
            }
        }
        n_by_trail
    }

    #[test]
    fn the_quicker_way_is_taken_and_the_slower_one_seldom_tried() {
        let mut choice = Choice::NEW;
        captures(&mut choice, 2000, 200, 100);
        let n_slow = captures(&mut choice, 20_000, 200, 100);
        assert!(n_slow > 0 && n_slow < 400, "{n_slow}");
    }

    #[test]
    fn a_way_that_becomes_the_quicker_one_is_noticed() {
        let mut choice = Choice::NEW;
        captures(&mut choice, 20_000, 200, 100);
        captures(&mut choice, 20_000, 100, 200);
        let n_fast = captures(&mut choice, 20_000, 100, 200);
        assert!(n_fast > 19_500, "{n_fast}");
    }

    #[test]
    fn spoilt_times_decide_nothing() {
        let mut choice = Choice::NEW;
        for _ in 0..10_000 {
            if choice.begin() {
                choice.is_spoilt = true;
                let cycles = if choice.is_trail { 1000 } else { 10 };
                choice.end(cycles);
            }
        }
        assert_eq!(choice.run, FIRST_RUN);
    }
}
