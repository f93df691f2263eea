//! Which sizes fragment a heap, and how: the heap without memory, fed with made-up programs.
//!
//! ```text
//! cargo run -p memtrace-heap --example model [PATH]
//! ```
//!
//! Each program takes blocks of its distribution of sizes, then gives nearly all of them back at
//! random, and goes on with half as many. A table is printed; with a path, a picture of the last
//! program's heap is written there.

use std::alloc::Layout;
use std::error::Error;
use std::fs;

use memtrace_heap::{Config, Model};

/// A made-up program: its name, and the size of its next block from a random number.
type Program = (&'static str, fn(u64) -> usize);

const PROGRAMS: [Program; 5] = [
    ("all of 48 bytes", |_| 48),
    ("1 to 128 bytes", |random| 1 + random as usize % 128),
    ("1 to 2,048 bytes", |random| 1 + random as usize % 2048),
    ("halving: few are large", |random| {
        let doublings = random.trailing_ones().min(13);
        (16 << doublings) + (random >> 32) as usize % (16 << doublings)
    }),
    ("small, and buffers of 80 KB", |random| {
        if random.is_multiple_of(400) { 80_000 } else { 24 + random as usize % 200 }
    }),
];

const N_BLOCKS: usize = 60_000;

/// Numbers that look random and are the same in every run (the generator SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The heap after the program has run.
fn run(size_of: fn(u64) -> usize) -> Result<Model, Box<dyn Error>> {
    let (model, mut random) = (Model::new(Config::new()), Random(7));
    let mut live = Vec::new();
    for (n_taken, n_kept) in [(N_BLOCKS, N_BLOCKS / 10), (N_BLOCKS / 2, N_BLOCKS / 4)] {
        for _ in 0..n_taken {
            let layout = Layout::from_size_align(size_of(random.next()), 8)?;
            live.push((model.allocate(layout).ok_or("no address is left")?, layout));
        }
        while live.len() > n_kept {
            let (block, layout) = live.swap_remove(random.next() as usize % live.len());
            model.release(block, layout);
        }
    }
    Ok(model)
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("sizes                         requested  rounding  free in pools  unused  arenas");
    println!("                                    KiB         %              %       %        ");
    let mut picture = String::new();
    for (name, size_of) in PROGRAMS {
        let model = run(size_of)?;
        model.verify()?;
        let stats = model.stats();
        let arena_bytes = stats.arenas.mapped_bytes() + stats.big_arenas.mapped_bytes();
        let unused_bytes = stats.arenas.unused_bytes() + stats.big_arenas.unused_bytes();
        let share = |bytes: usize, of: usize| 100.0 * bytes as f64 / of as f64;
        println!(
            "{name:<27} {:>11} {:>9.1} {:>14.1} {:>7.1} {:>7}",
            stats.requested_bytes() / 1024,
            share(stats.rounding_bytes(), stats.rounded_bytes()),
            share(stats.free_bytes(), arena_bytes),
            share(unused_bytes, arena_bytes),
            stats.arenas.n_current + stats.big_arenas.n_current,
        );
        picture = model.svg().to_string();
    }
    if let Some(path) = std::env::args_os().nth(1) {
        fs::write(&path, picture)?;
        println!("\nthe last one's heap is drawn in {}", path.display());
    }
    Ok(())
}
