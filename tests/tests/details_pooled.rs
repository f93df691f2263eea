//! Threads and generations of blocks of a pooled heap, beside which their traces stand.

#[path = "details/cases.rs"]
mod cases;

use memtrace::heap::{Config, Heap};
use memtrace_alloc::{Alloc, Pooled};
use std::process::ExitCode;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: Alloc<Pooled> = Alloc::pooled(&HEAP);

fn main() -> ExitCode {
    cases::main()
}
