//! A workload of several threads that accounts for every block it holds.
//!
//! Each thread allocates blocks of all kinds, checks their contents as it goes, hands some to the
//! next thread, which releases them, and keeps others. At the end what is traced must be exactly
//! what was there before plus what was kept; when that is dropped, exactly what was there before.

mod block;
mod churn;

use block::Block;
use memtrace::Losses;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

const N_THREADS: u64 = 4;

/// Runs the workload around whatever the global allocator is.
///
/// **Panics** if anything is not as it should be.
pub fn run() {
    memtrace::start(25).expect("tracing starts");
    // What std and the loader allocate once, they allocate here.
    drop(work());
    let before = Figures::take();

    let kept = work();
    let with_kept = Figures::take();
    kept.iter().for_each(Block::check);
    let mut expected = memtrace::untraced(|| before.clone());
    for block in &kept {
        expected.add(block.size() as u64);
    }
    let list = (kept.capacity() * size_of::<Block>()) as u64;
    expected.add(list);
    expected.assert_same(&with_kept, "with the kept blocks");

    drop(kept);
    before.assert_same(&Figures::take(), "after all was dropped");
    let losses = memtrace::tracer_memory().losses;
    assert_eq!(losses, Losses::default(), "nothing was lost");
    println!("{} bytes in {} blocks accounted for", with_kept.n_bytes, with_kept.n_blocks());
}

/// What is traced at one moment: how many blocks of each size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figures {
    n_bytes: u64,
    n_blocks_by_size: BTreeMap<u64, u64>,
}

impl Figures {
    fn take() -> Self {
        memtrace::untraced(|| {
            let n_bytes = memtrace::traced_memory().current;
            let snapshot = memtrace::take_snapshot().expect("tracing is on");
            assert_eq!(snapshot.total_size(), n_bytes, "the snapshot has what was traced");
            let mut n_blocks_by_size = BTreeMap::new();
            for trace in snapshot.traces() {
                *n_blocks_by_size.entry(trace.size).or_default() += 1;
            }
            Self { n_bytes, n_blocks_by_size }
        })
    }

    fn add(&mut self, size: u64) {
        memtrace::untraced(|| {
            self.n_bytes += size;
            *self.n_blocks_by_size.entry(size).or_default() += 1;
        });
    }

    fn n_blocks(&self) -> u64 {
        self.n_blocks_by_size.values().sum()
    }

    fn assert_same(&self, found: &Self, when: &str) {
        memtrace::untraced(|| {
            let sizes = self.n_blocks_by_size.keys().chain(found.n_blocks_by_size.keys());
            for size in sizes {
                let n_expected = self.n_blocks_by_size.get(size).copied().unwrap_or(0);
                let n_found = found.n_blocks_by_size.get(size).copied().unwrap_or(0);
                assert_eq!(n_found, n_expected, "blocks of {size} bytes {when}");
            }
            assert_eq!(found.n_bytes, self.n_bytes, "bytes {when}");
        });
    }
}

/// Lets all threads work to their end and returns the blocks that they kept.
fn work() -> Vec<Block> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..N_THREADS).map(|_| channel()).unzip();
    let mut receivers = receivers.into_iter();
    let threads: Vec<_> = (0..N_THREADS)
        .map(|number| {
            let neighbour = senders[((number + 1) % N_THREADS) as usize].clone();
            let own = receivers.next().expect("a receiver for each thread");
            thread::spawn(move || work_of_thread(number, neighbour, own))
        })
        .collect();
    drop(senders);
    let mut kept = Vec::new();
    for thread in threads {
        kept.append(&mut thread.join().expect("no thread panics"));
    }
    kept.shrink_to_fit();
    kept
}

fn work_of_thread(number: u64, neighbour: Sender<Block>, own: Receiver<Block>) -> Vec<Block> {
    let mut kept = Vec::new();
    for round in 0..20 {
        churn::std_collections(number * 1000 + round);
        for (size, align) in block::layouts(number, round) {
            let resized = Block::new(size, align).resized(size * 3).resized(size.div_ceil(2));
            kept.push(resized.resized(size));
            kept.push(Block::zeroed(size, align));
            neighbour.send(Block::new(size, align)).expect("the neighbour listens");
            while let Ok(foreign) = own.try_recv() {
                foreign.check();
            }
        }
    }
    // Whoever sends to this thread may be slower.
    drop(neighbour);
    own.iter().for_each(|foreign| foreign.check());
    kept
}
