//! The heap as the global allocator of a small program, which prints where its memory is.
//!
//! ```text
//! cargo run -p memtrace-heap --example global_allocator [PATH]
//! ```
//!
//! With a path, a picture of the heap is written there, after most was freed and before the pages in no
//! use are given back.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

use memtrace_heap::{Config, Heap, HeapStats};

#[global_allocator]
static HEAP: Heap = Heap::new(Config::new());

/// What the pages of units in no use may take, in bytes.
fn unused_dirty_bytes(stats: &HeapStats) -> usize {
    stats.arenas.unused_dirty_bytes() + stats.big_arenas.unused_dirty_bytes()
}

fn main() -> Result<(), Box<dyn Error>> {
    let before = HEAP.stats();

    let mut index = BTreeMap::new();
    for number in 0..20_000u32 {
        index.insert(format!("key {number:>8}"), vec![number; number as usize % 40]);
    }
    index.retain(|_, numbers| numbers.len() % 3 == 0);
    let picture = vec![0u8; 3 << 20];

    let stats = HEAP.stats();
    println!("{stats}");
    println!("{} entries and a picture of {} bytes:", index.len(), picture.len());
    println!(
        "  {} blocks and {} requested bytes since the start of main",
        stats.n_blocks_used() - before.n_blocks_used(),
        stats.requested_bytes() - before.requested_bytes(),
    );
    let in_pools: usize = stats.classes.iter().map(|class| class.rounded_bytes()).sum();
    let n_bytes = stats.classes.iter().map(|class| class.free_bytes()).sum::<usize>() + in_pools;
    println!(
        "  {:.1} % of the pools' blocks, by size, are in use",
        100.0 * in_pools as f64 / n_bytes as f64,
    );

    // A few entries keep nearly every pool alive; the rest of the pools goes back.
    index.retain(|key, _| key.ends_with("000"));
    drop(picture);
    if let Some(path) = std::env::args_os().nth(1) {
        // The text is made in the very heap that it is about.
        fs::write(&path, HEAP.svg().to_string())?;
        println!("  the heap is drawn in {}", path.display());
    }
    println!("{} entries are left:", index.len());
    println!("  {} bytes of unused units have pages", unused_dirty_bytes(&HEAP.stats()));
    println!("  {} bytes were given back by a purge", HEAP.purge());
    println!("  {} bytes of unused units have pages", unused_dirty_bytes(&HEAP.stats()));
    HEAP.verify()?;
    Ok(())
}
