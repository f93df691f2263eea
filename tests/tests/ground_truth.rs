//! memtrace's counts against a plain allocator's, around the system's allocator.

#[path = "ground_truth/cases.rs"]
mod cases;

use memtrace_tests::truth::Truth;
use std::process::ExitCode;

#[global_allocator]
static ALLOC: memtrace::Alloc<Truth> = memtrace::Alloc::new(Truth::new());

fn truth() -> &'static Truth {
    ALLOC.inner()
}

fn main() -> ExitCode {
    cases::main(Vec::new())
}
