//! Functions that are inlined in every build.

use crate::kept::Kept;
use std::hint::black_box;

#[inline(never)]
pub fn run() -> Kept {
    let block = outer(black_box(1013)); // calls: inlined/2
    Kept::vec(black_box(block))
}

#[inline(always)]
fn outer(size: usize) -> Vec<u8> {
    let block = inner(size); // calls: inlined/1
    black_box(block)
}

#[inline(always)]
fn inner(size: usize) -> Vec<u8> {
    let block = Vec::with_capacity(size); // site: inlined
    black_box(block)
}

#[inline(never)]
pub fn run_closure() -> Kept {
    let size = black_box(1015);
    let block = apply(|| allocate(size)); // calls: inlined closure/2
    Kept::vec(black_box(block))
}

/// The closure may be inlined or not; what it calls is not, and what calls it is.
#[inline(always)]
fn apply(make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let block = make(); // calls: inlined closure/1
    black_box(block)
}

#[inline(never)]
fn allocate(size: usize) -> Vec<u8> {
    let block = vec![7; size]; // site: inlined closure
    black_box(block)
}
