//! Small blocks that live at once: the tracer's cost with a heap that no cache holds.

use super::Sequence;

/// Requested bytes, 52 on average.
const SIZES: [usize; 8] = [16, 24, 32, 40, 56, 64, 80, 104];

pub(super) fn run_batch(n_blocks: usize) -> u64 {
    let mut sizes = Sequence::new();
    let mut blocks: Vec<Box<[u8]>> = Vec::with_capacity(n_blocks);
    for i in 0..n_blocks {
        let size = SIZES[sizes.below(SIZES.len())];
        blocks.push(vec![i as u8 | 1; size].into_boxed_slice());
    }
    blocks.iter().map(|block| block.len() as u64 + u64::from(block[0])).sum()
}
