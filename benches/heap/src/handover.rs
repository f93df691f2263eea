//! Blocks that are freed by another thread than the one that allocated them.

use crate::block::{Block, Place};
use crate::random::Random;
use crate::sizes::Sizes;
use crate::workload::{Effort, Outcome};
use std::hint;
use std::thread;
use std::time::Instant;

/// Blocks that a thread allocates before it frees as many of the other's.
const BATCH: u64 = 128;

/// A queue with room for a fixed number of blocks, from one thread to one other.
///
/// It allocates nothing, and the ends share no counters: what is waited for is the place itself.
struct Ring<const N: usize> {
    places: [Place; N],
}

/// Where a thread is in a ring.
struct End<'a, const N: usize> {
    ring: &'a Ring<N>,
    at: usize,
}

impl<const N: usize> Ring<N> {
    const fn new() -> Self {
        Self { places: [const { Place::new() }; N] }
    }

    fn end(&self) -> End<'_, N> {
        End { ring: self, at: 0 }
    }
}

impl<const N: usize> End<'_, N> {
    /// Waits for room and puts a block.
    fn put(&mut self, mut block: Block) {
        let place = self.advance();
        let mut patience = Patience::default();
        while let Err(back) = place.put(block) {
            block = back;
            patience.wait();
        }
    }

    /// Waits for a block and takes it.
    fn take(&mut self) -> Block {
        let place = self.advance();
        let mut patience = Patience::default();
        loop {
            match place.take() {
                Some(block) => return block,
                None => patience.wait(),
            }
        }
    }

    fn advance(&mut self) -> &Place {
        let place = &self.ring.places[self.at % N];
        self.at += 1;
        place
    }
}

/// Waiting for the other thread: on the CPU for a while, then leaving the CPU to it.
#[derive(Default)]
struct Patience {
    n_waits: u32,
}

impl Patience {
    fn wait(&mut self) {
        self.n_waits += 1;
        if self.n_waits < 200 { hint::spin_loop() } else { thread::yield_now() }
    }
}

/// One thread allocates, the other frees.
pub(crate) fn one_way<const DEPTH: usize>(effort: Effort) -> Outcome {
    let sizes = Sizes::small();
    let ring = Ring::<DEPTH>::new();
    let start = Instant::now();
    let checksum = thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(3);
            let mut end = ring.end();
            for i in 0..effort.n_operations {
                end.put(Block::new(sizes.pick(&mut random), i as u32, effort.contents));
            }
        });
        let mut end = ring.end();
        (0..effort.n_operations).map(|_| end.take().free(effort.contents)).sum()
    });
    Outcome { elapsed: start.elapsed(), checksum, n_operations: effort.n_operations }
}

/// Two threads allocate batches and free each other's.
///
/// After the test of mimalloc's benchmarks by the name of xmalloc-test.
pub(crate) fn both_ways(effort: Effort) -> Outcome {
    let sizes = Sizes::small();
    // None waits for room: a thread is at most one batch ahead of the other.
    let rings = [const { Ring::<{ 2 * BATCH as usize }>::new() }; 2];
    let n_batches = effort.n_operations.div_ceil(2 * BATCH);
    let start = Instant::now();
    let worker = |own: usize| {
        let mut random = Random(own as u64);
        let (mut to, mut from) = (rings[own].end(), rings[1 - own].end());
        let mut checksum = 0;
        for _ in 0..n_batches {
            for _ in 0..BATCH {
                to.put(Block::new(sizes.pick(&mut random), random.0 as u32, effort.contents));
            }
            checksum += (0..BATCH).map(|_| from.take().free(effort.contents)).sum::<u64>();
        }
        checksum
    };
    let checksum = thread::scope(|scope| {
        let other = scope.spawn(|| worker(1));
        worker(0) + other.join().expect("the other thread found its blocks right")
    });
    Outcome { elapsed: start.elapsed(), checksum, n_operations: 2 * n_batches * BATCH }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Contents;

    #[test]
    fn blocks_come_out_of_a_ring_in_the_order_in_which_they_went_in() {
        let ring = Ring::<4>::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut end = ring.end();
                (0..1000).for_each(|i| end.put(Block::new(16, i, Contents::Whole)));
            });
            let mut end = ring.end();
            for i in 0..1000 {
                assert_eq!(end.take().free(Contents::Whole), i);
            }
        });
    }
}
