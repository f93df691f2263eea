//! Configuration with the hook: traced if the request names a number of frames, a sample if it names a
//! number of bytes, too; else stopped.

#[path = "hooked/run.rs"]
mod run;

use std::error::Error;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    run::run()
}
