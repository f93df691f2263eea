//! The recording rules of CPython's tracemalloc, around the system's allocator.

#[path = "events/cases.rs"]
mod cases;

use cases::WithEmptyBlocks;
use std::alloc::System;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: memtrace::Alloc<WithEmptyBlocks<System>> =
    memtrace::Alloc::new(WithEmptyBlocks(System));

fn main() -> ExitCode {
    cases::main()
}
