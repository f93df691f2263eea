//! What is the same around any allocator.

use memtrace_alloc::{
    Options, TracerMemory, for_each_block, start_with, traced_memory, tracer_memory,
};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// One at a time: each starts and stops tracing.
static TURN: Mutex<()> = Mutex::new(());

/// Stops tracing also where a test fails, for those after it.
struct StopAtTheEnd;

impl Drop for StopAtTheEnd {
    fn drop(&mut self) {
        memtrace_alloc::stop();
    }
}

const N_BLOCKS: usize = if cfg!(debug_assertions) { 1_000_000 } else { 2_000_000 };
/// Of so many blocks in a row the first hundred stay.
const N_IN_A_ROW: usize = 20_000;

const fn size_of_block(i: usize) -> usize {
    16 + i * 7 % 150
}

fn stays(i: usize) -> bool {
    i % N_IN_A_ROW < 100
}

fn is_of_kept(kept: &BTreeMap<u64, u64>, addr: u64) -> bool {
    let last = kept.range(..=addr).next_back();
    last.is_some_and(|(begin, size)| addr < begin + size)
}

/// A service that goes on: requests of all sizes, of which nothing stays.
pub(crate) fn go_on(for_at_least: Duration) {
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < for_at_least {
        for _ in 0..100 {
            let buffers: Vec<Vec<u8>> =
                (0..10).map(|i| Vec::with_capacity(10 << (i + n % 3))).collect();
            black_box(buffers);
            n += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Grows to [`N_BLOCKS`] and shrinks; returns those that stay.
fn grow_and_shrink(n_threads: usize) -> Vec<Box<[u8]>> {
    let mut shares: Vec<Vec<Box<[u8]>>> = thread::scope(|scope| {
        let grow = |t: usize| {
            let n_blocks = N_BLOCKS / n_threads;
            let mut blocks = memtrace_alloc::untraced(|| Vec::with_capacity(n_blocks));
            blocks.extend((0..n_blocks).map(|i| vec![t as u8; size_of_block(i)].into()));
            blocks
        };
        let threads: Vec<_> = (0..n_threads).map(|t| scope.spawn(move || grow(t))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    // Each by another thread than the one that allocated.
    shares.rotate_left(1);
    let kept = thread::scope(|scope| {
        let shrink = |share: Vec<Box<[u8]>>| {
            let mut kept = memtrace_alloc::untraced(|| Vec::with_capacity(share.len() / 100));
            let blocks = share.into_iter().enumerate();
            kept.extend(blocks.filter(|(i, _)| stays(*i)).map(|(_, block)| block));
            kept
        };
        let threads: Vec<_> =
            shares.drain(..).map(|share| scope.spawn(move || shrink(share))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    drop(shares);
    kept
}

/// Every block that stayed has its trace, once, and its thread if that is recorded.
fn check(kept: &[Box<[u8]>], has_threads: bool) {
    memtrace_alloc::untraced(|| {
        let mut expected: BTreeMap<u64, u64> =
            kept.iter().map(|block| (block.as_ptr().addr() as u64, block.len() as u64)).collect();
        let all = expected.clone();
        assert_eq!(all.len(), kept.len());
        for_each_block(|block| {
            if let Some(size) = expected.remove(&block.block_addr) {
                assert_eq!(block.size, size);
                assert_eq!(block.thread != 0, has_threads, "{block:?}");
            } else {
                assert!(
                    !is_of_kept(&all, block.block_addr),
                    "twice, or of a block that is gone: {block:?}"
                );
            }
        });
        assert!(expected.is_empty(), "{} are lost", expected.len());
        for block in kept {
            let trace = memtrace_alloc::trace_at(block.as_ptr().addr() as u64).unwrap();
            assert_eq!(trace.size, block.len() as u64);
        }
    });
}

pub(crate) fn shrinks_to_a_quarter(
    options: Options,
    has_threads: bool,
    n_threads: usize,
    go_on: fn(Duration),
    figure: fn(&TracerMemory) -> u64,
) {
    let _turn = TURN.lock();
    start_with(options).unwrap();
    let _stop = StopAtTheEnd;
    let peak = Mutex::new(0);
    let watch = |is_done: &Mutex<bool>| {
        while !*is_done.lock().unwrap() {
            let now = figure(&tracer_memory());
            let mut peak = peak.lock().unwrap();
            *peak = now.max(*peak);
            drop(peak);
            thread::sleep(Duration::from_millis(3));
        }
    };
    let is_done = Mutex::new(false);
    let kept = thread::scope(|scope| {
        scope.spawn(|| watch(&is_done));
        let kept = grow_and_shrink(n_threads);
        *is_done.lock().unwrap() = true;
        kept
    });
    let peak = *peak.lock().unwrap();
    assert!(peak > N_BLOCKS as u64 * 8, "{peak}");
    let begun = Instant::now();
    go_on(Duration::from_secs(3));
    let memory = tracer_memory();
    let now = figure(&memory);
    println!("{n_threads} threads: {peak} bytes at most, {now} after {:?}", begun.elapsed());
    check(&kept, has_threads);
    assert!(now < peak / 4, "{memory:?}, {peak} at most");
    assert_eq!(memory.losses.n_blocks_without_record, 0);

    // A child sees the same, and goes on giving back and growing.
    // SAFETY: the child allocates, as every thread may in a child of a program with this allocator, and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let is_right = std::panic::catch_unwind(|| {
            check(&kept, has_threads);
            let more: Vec<Box<[u8]>> =
                (0..50_000).map(|i| vec![1; size_of_block(i)].into()).collect();
            check(&more, has_threads);
            drop(more);
            go_on(Duration::from_millis(500));
            check(&kept, has_threads);
        });
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(i32::from(is_right.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);

    // What has gone back serves again.
    drop(grow_and_shrink(n_threads));
    check(&kept, has_threads);
    drop(kept);
    let left = traced_memory().current;
    assert!(left < 100_000, "{left}");
    memtrace_alloc::stop();
    let memory = tracer_memory();
    assert!(figure(&memory) < peak / 4, "{memory:?}, {peak} at most");
}
