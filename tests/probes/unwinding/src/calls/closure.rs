//! Closures: in an iterator's adapter, and behind a reference.

use super::Next;
use crate::plan::Step;
use std::hint::black_box;

#[inline(never)]
pub(crate) fn call(step: Step, next: Next<'_>) {
    if step.below(2) == 0 {
        let only_second = |i| {
            if i == 1 {
                next()
            }
        };
        black_box((0..2).map(only_second).count());
    } else {
        let mut sum = step.number;
        let mut add: Box<dyn FnMut(u64) + '_> = Box::new(|number| {
            next();
            sum = sum.wrapping_add(number);
        });
        black_box(&mut add)(3);
        drop(add);
        black_box(sum);
    }
}
