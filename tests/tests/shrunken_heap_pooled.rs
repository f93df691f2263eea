//! Details of blocks of a pooled heap, beside which their traces stand, go back when the heap shrinks.
#![cfg(target_os = "linux")]

#[path = "shrunken_heap/cases.rs"]
mod cases;

use cases::{go_on, shrinks_to_a_quarter};
use memtrace::heap::{Config, Heap};
use memtrace_alloc::{Alloc, Options, Pooled};

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: Alloc<Pooled> = Alloc::pooled(&HEAP);

#[test]
fn details_of_a_pooled_heap_that_shrank_go_back() {
    // The heap's words are its own.
    let options = Options::new().frames(1).threads(true);
    shrinks_to_a_quarter(options, true, 2, go_on, |memory| memory.charged);
}
