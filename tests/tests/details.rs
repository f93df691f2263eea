//! Threads and generations of blocks of the system's allocator.

#[path = "details/cases.rs"]
mod cases;

use std::process::ExitCode;

#[global_allocator]
static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();

fn main() -> ExitCode {
    cases::main()
}
