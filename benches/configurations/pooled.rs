//! Configuration over the pooled heap, which keeps the traces beside its blocks: traced if the request names a
//! number of frames; else stopped.

#[path = "hooked/run.rs"]
mod run;

use memtrace::heap::{Config, Heap};
use std::error::Error;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: memtrace::Alloc<memtrace::Pooled> = memtrace::Alloc::pooled(&HEAP);

fn main() -> Result<(), Box<dyn Error>> {
    run::run()
}
