//! A heap that was large and is small again: so is the table of its blocks, and every trace that is left is
//! right.
#![cfg(target_os = "linux")]

#[path = "shrunken_heap/cases.rs"]
mod cases;

use cases::{go_on, shrinks_to_a_quarter};
use memtrace_alloc::Options;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

/// One that has small blocks alone, which are where the recorder looks first, or not far away.
fn go_on_with_small_blocks(for_at_least: Duration) {
    let begun = Instant::now();
    let mut request: Vec<Box<[u8; 48]>> = memtrace_alloc::untraced(|| Vec::with_capacity(4000));
    while begun.elapsed() < for_at_least {
        request.extend((0..4000).map(|i| Box::new([i as u8; 48])));
        black_box(&mut request).clear();
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_table_of_a_heap_that_one_thread_grew_and_shrank_shrinks_with_it() {
    shrinks_to_a_quarter(Options::new().frames(1), false, 1, go_on, |memory| memory.live_table);
}

#[test]
fn the_table_of_a_heap_that_four_threads_grew_and_shrank_shrinks_with_it() {
    shrinks_to_a_quarter(Options::new().frames(1), false, 4, go_on, |memory| memory.live_table);
}

#[test]
fn details_of_a_heap_that_shrank_go_back_too() {
    shrinks_to_a_quarter(Options::new().frames(1).threads(true), true, 2, go_on, |memory| {
        memory.live_table
    });
}

#[test]
fn what_is_noted_of_births_goes_back_too() {
    shrinks_to_a_quarter(Options::new().frames(1).lifetimes(true), false, 2, go_on, |memory| {
        memory.live_table
    });
}

#[test]
fn a_program_of_small_blocks_gives_back_as_well() {
    shrinks_to_a_quarter(Options::new().frames(1), false, 1, go_on_with_small_blocks, |memory| {
        memory.live_table
    });
}
