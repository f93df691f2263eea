//! What the tracer takes for each live block where traces stand beside the blocks of a pooled heap.
#![cfg(target_os = "linux")]

use memtrace::heap::{Config, Heap};
use memtrace_alloc::{Alloc, Options, Pooled, start_with, stop, tracer_memory};
use std::process::Command;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: Alloc<Pooled> = Alloc::pooled(&HEAP);

const N_BLOCKS: usize = 1_000_000;

/// Blocks of half the mean size to half more than that, in the order that a small generator says.
fn blocks(mean_bytes: usize) -> Vec<Box<[u8]>> {
    let mut state = 1u64;
    let mut size = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        mean_bytes / 2 + (state >> 33) as usize % (mean_bytes + 1)
    };
    let mut blocks = memtrace_alloc::untraced(|| Vec::with_capacity(N_BLOCKS));
    blocks.extend((0..N_BLOCKS).map(|_| vec![0; size()].into_boxed_slice()));
    blocks
}

const MEAN_BYTES: &str = "MEMTRACE_TEST_MEAN_BYTES";
const NAME: &str = "a_block_of_a_pooled_heap_takes_eight_bytes_and_what_rounding_to_pages_adds";

/// Bytes of the mean block, and those of the tracer for each, at most.
const BUDGETS: [(usize, f64); 5] = [(32, 10.0), (64, 10.0), (128, 10.0), (256, 10.0), (4096, 10.0)];

#[test]
fn a_block_of_a_pooled_heap_takes_eight_bytes_and_what_rounding_to_pages_adds() {
    if let Ok(mean_bytes) = std::env::var(MEAN_BYTES) {
        let mean_bytes = mean_bytes.parse().unwrap();
        let budget = BUDGETS.into_iter().find(|&(bytes, _)| bytes == mean_bytes).unwrap();
        return measure(budget);
    }
    // Each in a process of its own, for a heap keeps words where there were blocks.
    for (mean_bytes, _) in BUDGETS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(MEAN_BYTES, mean_bytes.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        assert!(output.status.success() && text.contains("of the tracer's"), "{output:?}");
    }
}

fn measure((mean_bytes, most): (usize, f64)) {
    start_with(Options::new().frames(25)).unwrap();
    let kept = blocks(mean_bytes);
    let memory = tracer_memory();
    let per_block = memory.total() as f64 / kept.len() as f64;
    println!("{mean_bytes} bytes: {per_block:.2} of the tracer's");
    assert!((8.0..=most).contains(&per_block), "{mean_bytes} bytes: {per_block}, {memory:?}");
    assert_eq!(memory.losses.n_blocks_without_record, 0);
    stop();
}
