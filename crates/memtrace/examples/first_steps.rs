//! The shortest useful program: what grew, and where.
//!
//! ```text
//! cargo run --release --example first_steps
//! ```

use memtrace::KeyType;
use std::collections::BTreeMap;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn std::error::Error>> {
    memtrace::start(25)?;
    let first = memtrace::take_snapshot()?;

    let mut index: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for number in 0..10_000 {
        index.entry(format!("bucket {}", number % 100)).or_default().push(number);
    }

    let last = memtrace::take_snapshot()?;
    println!("What holds memory:");
    for stat in last.statistics(KeyType::Lineno).iter().take(5) {
        println!("{stat}");
    }
    println!("\nWhat grew:");
    for stat in last.compare_to(&first, KeyType::Lineno).iter().take(5) {
        println!("{stat}");
    }
    let traced = memtrace::traced_memory();
    println!("\n{} bytes traced now, {} at most", traced.current, traced.peak);
    println!("{} bytes used by the tracer", memtrace::tracer_memory().total());
    drop(index);
    Ok(())
}
