//! Where the memory of a program is that freed half of what it had, and is as large as before.
//!
//! ```text
//! cargo run --release --example ledger
//! ```

use memtrace::heap::{Config, Heap};
use std::time::Instant;

#[global_allocator]
static ALLOC: memtrace::Alloc<Heap> = memtrace::Alloc::new(Heap::new(Config::new()));

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut sessions: Vec<Option<Vec<u8>>> = (0..140_000).map(|_| Some(vec![1; 500])).collect();
    let full = memtrace::ledger_of(ALLOC.inner())?;

    // The sessions that end are every second one: no page becomes free.
    sessions.iter_mut().step_by(2).for_each(|session| *session = None);
    let began = Instant::now();
    let half = memtrace::ledger_of(ALLOC.inner())?;
    let took = began.elapsed();
    println!("{half}\n{}", half.compare_to(&full));
    println!("taken in {took:.1?}");
    Ok(())
}
