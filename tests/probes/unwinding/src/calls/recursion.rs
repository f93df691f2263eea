//! Functions that call each other and themselves, by turns that the step's number decides: frames
//! of one size at one depth, but of many stacks.

use super::Next;
use crate::plan::Step;
use std::hint::black_box;

pub(crate) fn call(step: Step, next: Next<'_>) {
    // Now and then deeper than any limit.
    let depth = if step.below(64) == 0 { 140 } else { step.below(8) };
    turn(depth, step.number, next);
}

fn turn(depth: u64, turns: u64, next: Next<'_>) -> u64 {
    match (depth, turns & 1) {
        (0, _) => {
            next();
            0
        }
        (_, 0) => left(depth - 1, turns >> 1, next),
        _ => right(depth - 1, turns >> 1, next),
    }
}

#[inline(never)]
fn left(depth: u64, turns: u64, next: Next<'_>) -> u64 {
    black_box(turn(depth, turns, next)) + 1
}

#[inline(never)]
fn right(depth: u64, turns: u64, next: Next<'_>) -> u64 {
    black_box(turn(depth, turns, next)) + 2
}
