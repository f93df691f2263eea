//! Threads and generations of blocks: recorded when asked for, and told by snapshots.

use memtrace::{Config, Filter, KeyType, SinceError, Snapshot};
use std::sync::mpsc;
use std::thread;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

const SIZE: usize = 10_007;

/// An entry of a cache that is refilled.
#[inline(never)]
fn entry() -> Vec<u8> {
    vec![1; SIZE]
}

/// A block that nobody releases.
#[inline(never)]
fn leaked() -> Vec<u8> {
    vec![2; SIZE]
}

/// How many blocks of these functions there are.
fn n_blocks(snapshot: &Snapshot, function: &str) -> u64 {
    let statistics = snapshot.statistics(KeyType::Function);
    let name = format!("<generations::{function}>");
    let found = statistics.iter().find(|group| *group.traceback[0].filename == name);
    found.map_or(0, |group| group.count)
}

/// One test, since tracing is one for the whole process.
#[test]
fn blocks_know_their_generation_and_their_thread_if_that_was_asked_for() {
    what_was_not_recorded_is_not_told();
    a_refilled_cache_does_not_hide_a_leak();
    blocks_are_of_the_thread_that_allocated_them();
}

fn what_was_not_recorded_is_not_told() {
    memtrace::start(25).unwrap();
    let kept = entry();
    let first = memtrace::take_snapshot().unwrap();
    let last = memtrace::take_snapshot().unwrap();
    assert_eq!((first.generation(), first.birth_of(0)), (None, None));
    assert!(first.threads().is_empty() && first.thread_of(0).is_none());
    assert_eq!(last.since(&first).err(), Some(SinceError::NoGenerations));
    let threads = first.statistics(KeyType::Thread);
    assert_eq!((threads.len(), &*threads[0].traceback[0].filename), (1, "<unknown thread>"));
    drop(kept);
    memtrace::stop();
}

fn a_refilled_cache_does_not_hide_a_leak() {
    memtrace::start_with(Config::new().frames(25).generations(true)).unwrap();
    let mut cache: Vec<_> = (0..10).map(|_| entry()).collect();
    let mut leak = vec![leaked()];
    let first = memtrace::take_snapshot().unwrap();
    // Three entries are replaced; the leak grows while something else shrinks.
    for place in &mut cache[..3] {
        *place = entry();
    }
    leak.push(leaked());
    cache.truncate(9);
    let second = memtrace::take_snapshot().unwrap();
    leak.push(leaked());
    // Whoever resizes a block makes it anew.
    cache[8].reserve_exact(SIZE);
    let third = memtrace::take_snapshot().unwrap();

    let counts = |snapshot: &Snapshot| (n_blocks(snapshot, "entry"), n_blocks(snapshot, "leaked"));
    assert_eq!(counts(&first), (10, 1));
    assert_eq!(counts(&second), (9, 2));
    assert_eq!(counts(&second.since(&first).unwrap()), (3, 1));
    assert_eq!(counts(&third.since(&second).unwrap()), (0, 1));
    assert_eq!(counts(&third.since(&first).unwrap()), (3, 2));
    let resized = third.since(&second).unwrap();
    let resizer = "<generations::a_refilled_cache_does_not_hide_a_leak>";
    let resized = resized.statistics(KeyType::Function);
    let resized = resized.iter().find(|group| *group.traceback[0].filename == *resizer).unwrap();
    assert!(resized.size >= 2 * SIZE as u64, "{resized}");

    // Files keep generations.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("third");
    third.dump(&path).unwrap();
    let loaded = Snapshot::load(&path).unwrap();
    assert_eq!(counts(&loaded.since(&first).unwrap()), (3, 2));

    memtrace::stop();
    memtrace::start_with(Config::new().frames(25).generations(true)).unwrap();
    let restarted = memtrace::take_snapshot().unwrap();
    assert_eq!(restarted.since(&first).err(), Some(SinceError::OtherRun));
    memtrace::stop();
    drop((cache, leak));
}

fn blocks_are_of_the_thread_that_allocated_them() {
    memtrace::start_with(Config::new().frames(25).threads(true)).unwrap();
    let own = entry();
    let (to_main, from_worker) = mpsc::channel();
    let (to_worker, from_main) = mpsc::channel::<()>();
    let worker = thread::Builder::new().name("the-worker".into()).spawn(move || {
        to_main.send((0..5).map(|_| entry()).collect::<Vec<_>>()).unwrap();
        // Until main drops its end.
        let _ = from_main.recv();
    });
    let worker = worker.unwrap();
    let handed_over = from_worker.recv().unwrap();
    let alive = memtrace::take_snapshot().unwrap();
    drop(to_worker);
    worker.join().unwrap();
    let dead = memtrace::take_snapshot().unwrap();
    for snapshot in [&alive, &dead] {
        let entries = snapshot.filter_traces(&[Filter::include("*/tests/generations.rs")]);
        let mut n_entries = [0, 0];
        for (index, _) in entries.traces().enumerate().filter(|(_, t)| t.size == SIZE as u64) {
            let thread = entries.thread_of(index).expect("threads were recorded");
            n_entries[usize::from(&*thread.name == "the-worker")] += 1;
        }
        assert_eq!(n_entries, [1, 5]);
        let groups = snapshot.statistics(KeyType::Thread);
        let of_worker = groups.iter().find(|g| g.traceback[0].filename.contains("the-worker"));
        let of_worker = of_worker.expect("the worker has a group");
        assert!(of_worker.size >= 5 * SIZE as u64, "{of_worker}");
    }
    // The same thread is the same group in both.
    let diffs = dead.compare_to(&alive, KeyType::Thread);
    let of_worker = diffs.iter().filter(|d| d.traceback[0].filename.contains("the-worker"));
    assert_eq!(of_worker.count(), 1);
    memtrace::stop();
    drop((own, handed_over));
}
