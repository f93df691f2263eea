//! The memory that is left after many blocks came and went.
//!
//! Blocks are found again through places in the program's zeroed data, which are touched before the
//! measurement begins: the heap is not asked for the benchmark's own records.

use crate::block::{Block, Contents, Place};
use crate::random::Random;
use crate::sizes::Sizes;
use memtrace_benches::heap::Memory;
use memtrace_benches::resident::{peak_resident_bytes, resident_bytes};
use std::hint::black_box;
use std::io;
use std::thread;
use std::time::Duration;

const LIVE_BYTES: u64 = 40 << 20;
const BURST_BYTES: u64 = 400 << 20;

/// Stride of the order in which blocks are freed: a prime that no number of blocks is a multiple of.
const STRIDE: usize = 1_000_003;
/// One in so many blocks is left, if any is.
const PART_LEFT: usize = 10;

static LIVE: [Place; 1 << 18] = [const { Place::new() }; 1 << 18];
static BURST: [Place; 1 << 21] = [const { Place::new() }; 1 << 21];

/// What becomes of the blocks of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All are freed.
    All,
    /// A tenth is left, at random addresses.
    ButATenth,
}

/// Keeps blocks of 40 MiB, makes and frees ten times as many in so many threads, and reads what is
/// resident. Also returns a checksum.
///
/// **Errors**: if the kernel does not tell.
pub(crate) fn run(n_threads: usize, end: End) -> io::Result<(Memory, u64)> {
    let (small, mixed) = (&Sizes::small(), &Sizes::mixed());
    LIVE.iter().chain(&BURST).for_each(Place::touch);
    let base = resident_bytes()?;

    let (_, live) = make(&LIVE, LIVE_BYTES, small, Random(7));
    let share = BURST.len() / n_threads;
    let parts: Vec<(u64, u64, u64)> = thread::scope(|scope| {
        let threads: Vec<_> = BURST
            .chunks(share)
            .enumerate()
            .map(|(i, places)| {
                let work = move || {
                    let random = Random(8 + i as u64);
                    let (n_blocks, made) =
                        make(places, BURST_BYTES / n_threads as u64, mixed, random);
                    let (freed, checksum) = free(&places[..n_blocks], end);
                    (made, freed, checksum)
                };
                if n_threads == 1 { Err(work()) } else { Ok(scope.spawn(work)) }
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<_>| thread.join().expect("blocks are right");
        threads.into_iter().map(|thread| thread.map_or_else(|done| done, join)).collect()
    });
    let resident = resident_bytes()?;
    let peak = peak_resident_bytes()?;
    // Some heaps give memory back by the clock, when they are next called.
    thread::sleep(Duration::from_secs(1));
    for size in 0..10_000 {
        drop(black_box(Vec::<u8>::with_capacity(size)));
    }
    let resident_later = resident_bytes()?;

    let made: u64 = parts.iter().map(|(made, ..)| made).sum();
    let freed: u64 = parts.iter().map(|(_, freed, _)| freed).sum();
    let (_, kept) = free(&LIVE, End::All);
    let memory = Memory {
        live_bytes: live + made - freed,
        peak_live_bytes: live + made,
        resident_bytes: resident.saturating_sub(base),
        resident_later_bytes: resident_later.saturating_sub(base),
        peak_resident_bytes: peak.saturating_sub(base),
    };
    Ok((memory, parts.iter().map(|(.., checksum)| checksum).sum::<u64>() + kept))
}

/// Allocates so many bytes and returns the numbers of blocks and bytes. A block's tag is its size.
fn make(places: &[Place], n_bytes: u64, sizes: &Sizes, mut random: Random) -> (usize, u64) {
    let (mut n_blocks, mut made) = (0, 0);
    while made < n_bytes {
        let size = sizes.pick(&mut random);
        // In whole: what is measured is memory that is in use.
        let is_put = places[n_blocks].put(Block::new(size, size as u32, Contents::Whole));
        assert!(is_put.is_ok(), "the place is in use");
        made += size as u64;
        n_blocks += 1;
    }
    (n_blocks, made)
}

/// Frees blocks in an order that has nothing to do with the one in which they were made, and returns
/// the bytes and a checksum.
fn free(places: &[Place], end: End) -> (u64, u64) {
    let n_blocks = places.len();
    let n_freed = match end {
        End::All => n_blocks,
        End::ButATenth => n_blocks - n_blocks / PART_LEFT,
    };
    let (mut freed, mut checksum) = (0, 0_u64);
    for i in 0..n_freed {
        let at = (i * STRIDE) % n_blocks;
        if let Some(block) = places[at].take() {
            let size = block.free(Contents::Whole);
            freed += size;
            checksum = checksum.wrapping_add(size * at as u64);
        }
    }
    (freed, checksum)
}
