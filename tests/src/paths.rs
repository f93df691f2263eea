//! Allocations on as many different stacks as are asked for.

use std::hint::black_box;

/// Allocates below as many frames as `depth` says, of two functions, as the bits of `path` say: a stack for
/// each path.
pub fn allocate(path: u32, depth: u32) -> Box<u64> {
    if depth == 0 {
        return black_box(Box::new(path.into()));
    }
    if path & 1 == 0 { zero(path >> 1, depth - 1) } else { one(path >> 1, depth - 1) }
}

#[inline(never)]
fn zero(path: u32, depth: u32) -> Box<u64> {
    black_box(allocate(path, depth))
}

#[inline(never)]
fn one(path: u32, depth: u32) -> Box<u64> {
    black_box(black_box(allocate(path, depth)))
}
