//! Methods of trait objects, with frames small and large.

use super::Next;
use crate::plan::Step;
use std::hint::black_box;

trait Shape {
    fn call(&self, next: Next<'_>) -> u64;
}

struct Small(u64);
struct Large(Box<[u64; 700]>);
struct Aligned([u8; 40]);

impl Shape for Small {
    #[inline(never)]
    fn call(&self, next: Next<'_>) -> u64 {
        next();
        black_box(self.0)
    }
}

impl Shape for Large {
    #[inline(never)]
    fn call(&self, next: Next<'_>) -> u64 {
        let copy = black_box(*self.0);
        next();
        black_box(&copy)[1]
    }
}

impl Shape for Aligned {
    /// Realigns the stack.
    #[inline(never)]
    fn call(&self, next: Next<'_>) -> u64 {
        #[repr(align(64))]
        struct Wide([u8; 40]);
        let copy = black_box(Wide(self.0));
        next();
        u64::from(black_box(&copy).0[1])
    }
}

#[inline(never)]
pub(crate) fn call(step: Step, next: Next<'_>) {
    let shape: Box<dyn Shape> = match step.below(3) {
        0 => Box::new(Small(1)),
        1 => Box::new(Large(Box::new([2; 700]))),
        _ => Box::new(Aligned([3; 40])),
    };
    black_box(black_box(shape).call(next));
}
