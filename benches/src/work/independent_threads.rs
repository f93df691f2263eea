//! Threads that replace blocks in tables of their own: nothing is shared but the allocator and the
//! tracer, so what two of them take longer than one is theirs.

use super::Sequence;
use std::thread;

/// Blocks that a thread holds.
const N_HELD: usize = 1_000;
const N_REPLACED: usize = 40_000;

pub(super) fn run_batch(n_threads: usize) -> u64 {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(replace)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    })
}

fn replace() -> u64 {
    let mut random = Sequence::new();
    let mut held: Vec<Box<[u8]>> = vec![Box::default(); N_HELD];
    let mut checksum = 0;
    for i in 0..N_REPLACED {
        let block = vec![i as u8; 16 + random.below(240)].into_boxed_slice();
        checksum += block.len() as u64 + u64::from(block[0]);
        held[random.below(N_HELD)] = block;
    }
    checksum + held.iter().map(|block| block.len() as u64).sum::<u64>()
}
