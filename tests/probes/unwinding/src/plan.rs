//! Which calls lead to a node: paths, new ones and variations of recent ones.
//!
//! A cache of stacks is right or wrong only when something comes again: most plans are a recent one
//! once more, or one that differs from it in a single step, at the leaf, at the root or in between.

use crate::kind::Kind;
use crate::rng::Rng;

/// The longest path, in steps.
const MAX_STEPS: usize = 9;
/// Plans that variations are made of.
const N_RECENT: usize = 24;

/// How often each kind of step is taken.
const WEIGHTS: [(Kind, usize); 21] = [
    (Kind::Recursion, 120),
    (Kind::Closure, 100),
    (Kind::TraitObject, 100),
    (Kind::Generic, 140),
    (Kind::OwnFrame, 30),
    (Kind::TailCall, 40),
    (Kind::Alloca, 40),
    (Kind::LiveFramePointer, 20),
    (Kind::VariableArray, 40),
    (Kind::Realigned, 40),
    (Kind::DecoyFramePointer, 40),
    (Kind::WithoutCfi, 15),
    (Kind::LongJump, 30),
    (Kind::TailCallInC, 40),
    (Kind::Sorting, 40),
    (Kind::CatchUnwind, 30),
    (Kind::Unwinding, 10),
    (Kind::Signal, 15),
    (Kind::AlternateStack, 15),
    (Kind::Coroutine, 50),
    // Each unloads two libraries and forgets all rules.
    (Kind::Late, 3),
];

/// A call, and a number from which it takes its size and what else varies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
}

impl Step {
    /// A part of the number, below `end`.
    pub(crate) fn below(self, end: u64) -> u64 {
        (self.number >> 16) % end
    }
}

/// Where the steps of a plan are taken, which not all of them bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Thread,
    /// A coroutine that runs to the end of the plan.
    Coroutine,
    /// A coroutine that is suspended at the leaf, while others run.
    SuspendedCoroutine,
    /// A thread that is interrupted at any instruction.
    Interrupted,
}

impl Place {
    fn bears(self, kind: Kind) -> bool {
        let is_borne = match self {
            Self::Thread => true,
            Self::Coroutine => kind != Kind::Coroutine,
            // Whoever runs meanwhile has the thread's count of panics and its alternate stack.
            Self::SuspendedCoroutine => {
                !matches!(kind, Kind::Coroutine | Kind::Unwinding | Kind::AlternateStack)
            }
            // In the middle of a switch of stacks, unwind tables say nothing, and the system's
            // unwinder trusts what it then finds.
            Self::Interrupted => {
                !matches!(kind, Kind::Coroutine | Kind::Unwinding | Kind::LongJump | Kind::Late)
            }
        };
        is_borne && kind.is_possible()
    }
}

/// A source of plans for one place.
pub(crate) struct Plans {
    place: Place,
    rng: Rng,
    recent: Vec<Vec<Step>>,
}

impl Plans {
    pub(crate) fn new(place: Place, seed: u64) -> Self {
        Self { place, rng: Rng::new(seed), recent: Vec::new() }
    }

    /// The next plan.
    pub(crate) fn next(&mut self) -> Vec<Step> {
        let variation = self.rng.below(10);
        if variation == 0 || self.recent.len() < N_RECENT / 2 {
            return self.fresh();
        }
        let place = self.rng.below(self.recent.len());
        let mut steps = self.recent[place].clone();
        let len = steps.len();
        match variation {
            // The same again.
            1..=3 => return steps,
            4 => steps[len - 1] = self.step(),
            5 => steps[0] = self.step(),
            6 => {
                let i = self.rng.below(len);
                steps[i].number = self.rng.number();
            }
            7 => {
                steps.pop();
            }
            8 if len < MAX_STEPS => {
                let i = self.rng.below(len + 1);
                steps.insert(i, self.step());
            }
            _ => {
                let i = self.rng.below(len);
                steps[i] = self.step();
            }
        }
        if self.rng.below(4) == 0 && !steps.is_empty() {
            self.recent[place].clone_from(&steps);
        }
        steps
    }

    fn fresh(&mut self) -> Vec<Step> {
        let len = 1 + self.rng.below(MAX_STEPS);
        let steps: Vec<Step> = (0..len).map(|_| self.step()).collect();
        if self.recent.len() < N_RECENT {
            self.recent.push(steps.clone());
        } else {
            let place = self.rng.below(N_RECENT);
            self.recent[place].clone_from(&steps);
        }
        steps
    }

    fn step(&mut self) -> Step {
        let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        loop {
            let mut number = self.rng.below(total);
            let kind = WEIGHTS.iter().find_map(|&(kind, weight)| {
                let is_it = number < weight;
                number = number.wrapping_sub(weight);
                is_it.then_some(kind)
            });
            if let Some(kind) = kind.filter(|&kind| self.place.bears(kind)) {
                return Step { kind, number: self.rng.number() };
            }
        }
    }
}
