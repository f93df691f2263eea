//! Instances of generic functions: code of its own for each, frames of one size for some.

use super::Next;
use crate::plan::Step;
use std::hint::black_box;

#[inline(never)]
fn of_number<const N: u64>(next: Next<'_>) -> u64 {
    let words = black_box([N; 5]);
    next();
    black_box(words)[1] ^ N
}

/// Many values in use across the call: they take all registers that a callee keeps.
#[inline(never)]
fn of_type<T: Copy + Into<u64>>(value: T, next: Next<'_>) -> u64 {
    let [a, b, c, d, e, f] = [1, 3, 5, 7, 9, 11].map(|n| black_box(value.into()).wrapping_mul(n));
    next();
    a ^ b.rotate_left(1) ^ c.rotate_left(2) ^ d.rotate_left(3) ^ e.rotate_left(4) ^ f
}

#[inline(never)]
pub(crate) fn call(step: Step, next: Next<'_>) {
    black_box(match step.below(8) {
        0 => of_number::<0>(next),
        1 => of_number::<1>(next),
        2 => of_number::<2>(next),
        3 => of_number::<3>(next),
        4 => of_number::<4>(next),
        5 => of_type(step.number as u8, next),
        6 => of_type(step.number as u32, next),
        _ => of_type(step.number, next),
    });
}
