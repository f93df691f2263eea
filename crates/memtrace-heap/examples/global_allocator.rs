//! The heap as the global allocator of a small program, which prints where its memory is.
//!
//! ```text
//! cargo run -p memtrace-heap --example global_allocator
//! ```

use std::collections::BTreeMap;

#[global_allocator]
static HEAP: memtrace_heap::Heap = memtrace_heap::Heap::new(memtrace_heap::Config::new());

fn main() {
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
    println!(
        "  {:.1} % of the arenas' bytes are in blocks in use",
        100.0 * stats.classes.iter().map(|class| class.rounded_bytes()).sum::<usize>() as f64
            / stats.arenas.mapped_bytes() as f64,
    );
    HEAP.verify().expect("the counters agree with a recount");
}
