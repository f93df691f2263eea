//! Configuration without memtrace: the system's allocator.
//!
//! It is named as the global allocator as the traced ones are, so that nothing but the hook differs.

use memtrace_benches::Request;
use std::alloc::System;
use std::error::Error;

#[global_allocator]
static ALLOC: System = System;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", Request::from_args()?.run(|| None)?);
    Ok(())
}
