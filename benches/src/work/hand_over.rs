//! Two threads that give back each other's blocks, as the stages of a pipeline do.
//!
//! They hand over whole chunks and each takes as many as it gives, so that they run side by side and
//! the time is that of allocating and not of waiting.

use super::Sequence;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Few: at each hand-over a thread may wait for the other, on a busy machine for milliseconds.
const N_CHUNKS: usize = 8;
const N_BLOCKS: usize = 5_000;

/// Blocks of one chunk, on their way to the other thread.
type Chunk = Vec<Box<[u8]>>;

pub(super) fn run_batch() -> u64 {
    // Room for one chunk more than the receiver is behind: neither thread waits to send.
    let (to_second, from_first) = sync_channel(2);
    let (to_first, from_second) = sync_channel(2);
    thread::scope(|scope| {
        let first = scope.spawn(|| exchange(to_second, from_second, 1));
        let second = scope.spawn(|| exchange(to_first, from_first, 2));
        [first, second].into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    })
}

/// **Panics**: if the other thread has panicked.
fn exchange(sender: SyncSender<Chunk>, receiver: Receiver<Chunk>, fill: u8) -> u64 {
    let mut sizes = Sequence::new();
    let mut checksum = 0;
    for _ in 0..N_CHUNKS {
        let mut chunk = Chunk::with_capacity(N_BLOCKS / 2);
        for i in 0..N_BLOCKS {
            let block = vec![fill; 16 + sizes.below(240)].into_boxed_slice();
            if i % 2 == 0 {
                chunk.push(block);
            } else {
                checksum += block.len() as u64;
            }
        }
        sender.send(chunk).expect("the other thread receives as many chunks as it sends");
        let chunk = receiver.recv().expect("the other thread sends as many chunks as it receives");
        checksum += chunk.iter().map(|block| block.len() as u64 * u64::from(block[0])).sum::<u64>();
    }
    checksum
}
