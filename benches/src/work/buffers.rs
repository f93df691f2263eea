//! Buffers as those who read and write files and sockets have them: of 4 to 64 KiB, some hundred at a time, each
//! replaced by another now and then.
//!
//! Most are alone in the page that they begin in, where a tracer that keeps small blocks together gains nothing.

use super::Sequence;
use std::hint::black_box;

const N_BUFFERS: usize = 256;
const N_REPLACED: usize = 20_000;
const PAGE_SIZE: usize = 4096;
const MAX_PAGES: usize = 16;

pub(super) fn run_batch() -> u64 {
    let mut sequence = Sequence::new();
    let mut buffers: Vec<Vec<u8>> = (0..N_BUFFERS).map(|_| Vec::new()).collect();
    let mut checksum = 0;
    for i in 0..N_REPLACED {
        let mut buffer = Vec::with_capacity((1 + sequence.below(MAX_PAGES)) * PAGE_SIZE);
        buffer.push(i as u8);
        let place = &mut buffers[sequence.below(N_BUFFERS)];
        let replaced = std::mem::replace(place, black_box(buffer));
        checksum +=
            replaced.capacity() as u64 + replaced.first().map_or(0, |&byte| u64::from(byte));
    }
    checksum
}
