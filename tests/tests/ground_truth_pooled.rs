//! The same counts where the traces stand beside the blocks of a pooled heap.

#[path = "ground_truth/cases.rs"]
mod cases;

use libtest_mimic::Trial;
use memtrace::Pooled;
use memtrace::heap::{Config, Heap, MAX_RUN_SIZE};
use memtrace_tests::truth::Truth;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

static HEAP: Heap = Heap::new(Config::new().block_words(true));

#[global_allocator]
static ALLOC: memtrace::Alloc<Truth<Pooled>> =
    memtrace::Alloc::new(Truth::around(Pooled::new(&HEAP)));

fn truth() -> &'static Truth<Pooled> {
    ALLOC.inner()
}

/// Such a block has no place in the heap after its release, which may be while `stop` waits, and its trace is to be found.
fn blocks_mapped_by_themselves_leave_nothing_when_they_are_released_while_tracing_stops() {
    memtrace::stop();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done.load(Relaxed) {
                    drop(black_box(Box::<[u8]>::new_uninit_slice(MAX_RUN_SIZE + 4096)));
                }
            });
        }
        for _ in 0..2000 {
            memtrace::start(5).unwrap();
            thread::yield_now();
            memtrace::stop();
        }
        is_done.store(true, Relaxed);
    });
    memtrace::start(5).unwrap();
    assert_eq!(memtrace_alloc::n_traces(), 0);
    // A sum below zero would be told as zero.
    memtrace::track(7, 1, 1 << 40).unwrap();
    assert_eq!(memtrace::traced_memory().current, 1 << 40);
}

fn traces_stand_beside_their_blocks() {
    memtrace::stop();
    HEAP.for_each_block(|block| panic!("{block:?} has a trace after a stop"));
    memtrace::start(25).unwrap();
    let before = memtrace::traced_memory().current;
    let sizes = [10, 1000, 60_000, 100_000, 5 << 20, MAX_RUN_SIZE + 1];
    let blocks = black_box(sizes.map(Box::<[u8]>::new_uninit_slice));
    for block in &blocks {
        let addr = block.as_ptr().addr();
        assert_ne!(HEAP.block_word(addr), Some(0), "{}", block.len());
        assert_eq!(memtrace_alloc::trace_at(addr as u64).unwrap().size, block.len() as u64);
    }
    let bytes: usize = sizes.iter().sum();
    assert_eq!(memtrace::traced_memory().current, before + bytes as u64);
    // The words are the live table: beside them there are the directories for blocks of others.
    let n_bytes = memtrace::tracer_memory().live_table;
    let words = HEAP.block_word_bytes() as u64;
    assert!((words..=words + 10 * 4096).contains(&n_bytes), "{n_bytes} bytes, words {words}");
    drop(blocks);
    assert_eq!(memtrace::traced_memory().current, before);
    memtrace::stop();
    assert_eq!(HEAP.verify(), Ok(()));
}

fn main() -> ExitCode {
    macro_rules! trials {
        ($($case:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($case), || { $case(); Ok(()) })),*]
        };
    }
    cases::main(trials![
        traces_stand_beside_their_blocks,
        blocks_mapped_by_themselves_leave_nothing_when_they_are_released_while_tracing_stops,
    ])
}
