//! Allocations in other threads.

use crate::kept::Kept;
use std::hint::black_box;

#[inline(never)]
pub fn run() -> Kept {
    let block = std::thread::spawn(work).join();
    Kept::vec(black_box(block).expect("the thread does not panic"))
}

#[inline(never)]
fn work() -> Vec<u8> {
    let mut block = nested(); // calls: thread/1
    block.push(black_box(16));
    block
}

#[inline(never)]
fn nested() -> Vec<u8> {
    let block = Vec::with_capacity(black_box(4001)); // site: thread
    black_box(block)
}
