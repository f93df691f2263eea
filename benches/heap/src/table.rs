//! A table of live blocks, any of which may be the next to be replaced.

use crate::block::{Block, Contents};
use crate::random::Random;
use crate::sizes::Sizes;
use crate::workload::{Effort, Outcome};
use memtrace_benches::stopwatch::Stopwatch;

const N_SLOTS: usize = 50_000;
const N_LARGE_SLOTS: usize = 48;

/// Live blocks, in no order.
pub(crate) struct Table {
    slots: Vec<Option<Block>>,
    random: Random,
}

impl Table {
    /// Allocates the blocks.
    pub(crate) fn new(n_slots: usize, seed: u64, sizes: &Sizes, contents: Contents) -> Self {
        let mut random = Random(seed);
        let slots = (0..n_slots).map(|_| Some(block(&mut random, sizes, contents))).collect();
        Self { slots, random }
    }

    /// Frees a random block and allocates another; returns the tag of the former.
    #[inline]
    pub(crate) fn replace(&mut self, sizes: &Sizes, contents: Contents) -> u64 {
        let i = self.random.below(self.slots.len());
        let slot = &mut self.slots[i];
        let tag = slot.take().map_or(0, |block| block.free(contents));
        *slot = Some(block(&mut self.random, sizes, contents));
        tag
    }

    /// Frees all and returns the sum of the tags.
    pub(crate) fn free(self, contents: Contents) -> u64 {
        self.slots.into_iter().flatten().map(|block| block.free(contents)).sum()
    }
}

#[inline]
fn block(random: &mut Random, sizes: &Sizes, contents: Contents) -> Block {
    let size = sizes.pick(random);
    Block::new(size, random.0 as u32, contents)
}

/// Blocks of which most are small.
pub(crate) fn mixed(effort: Effort) -> Outcome {
    run(N_SLOTS, &Sizes::mixed(), effort)
}

/// Blocks of 64 KiB to 4 MiB.
pub(crate) fn large(effort: Effort) -> Outcome {
    // Of blocks that are written in whole, fewer: each takes as long as some thousand small ones.
    let n_operations = match effort.contents {
        Contents::Whole => effort.n_operations / 16,
        Contents::Ends => effort.n_operations,
    };
    run(N_LARGE_SLOTS, &Sizes::large(), Effort { n_operations, ..effort })
}

fn run(n_slots: usize, sizes: &Sizes, effort: Effort) -> Outcome {
    let mut table = Table::new(n_slots, 2, sizes, effort.contents);
    let stopwatch = Stopwatch::start();
    let mut checksum = 0;
    for _ in 0..effort.n_operations {
        checksum += table.replace(sizes, effort.contents);
    }
    let elapsed = stopwatch.lap().elapsed;
    let checksum = checksum + table.free(effort.contents);
    Outcome { elapsed, checksum, n_operations: effort.n_operations }
}
