//! The recording rules of CPython's tracemalloc, where traces stand beside the blocks of a pooled heap.

#[path = "events/cases.rs"]
mod cases;

use cases::WithEmptyBlocks;
use memtrace::Pooled;
use memtrace::heap::{Config, Heap};
use std::process::ExitCode;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: memtrace::Alloc<WithEmptyBlocks<Pooled>> =
    memtrace::Alloc::new(WithEmptyBlocks(Pooled::new(&HEAP)));

fn main() -> ExitCode {
    cases::main()
}
