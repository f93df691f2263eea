//! What held memory when there was most of it.

use memtrace::{Config, KeyType, Snapshot, SnapshotError};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

const SIZE: usize = 30_000_000;

/// Memory that is gone when anybody looks.
#[inline(never)]
fn render() -> usize {
    let pages: Vec<Vec<u8>> = (0..30).map(|_| vec![1; SIZE / 30]).collect();
    pages.iter().map(Vec::len).sum()
}

fn bytes_of_render(snapshot: &Snapshot) -> u64 {
    let groups = snapshot.statistics(KeyType::InclusiveFunction);
    let found =
        groups.iter().find(|group| *group.traceback[0].filename == *"<peak_snapshot::render>");
    found.map_or(0, |group| group.size)
}

#[test]
fn the_peak_is_kept_if_that_was_asked_for() {
    assert_eq!(memtrace::peak_snapshot().err(), Some(SnapshotError::NotTracing));
    memtrace::start(25).unwrap();
    assert_eq!(memtrace::peak_snapshot().err(), Some(SnapshotError::PeakNotKept));
    memtrace::stop();

    memtrace::start_with(Config::new().frames(25).peak_percent(1)).unwrap();
    let kept = vec![0u8; 1_000_000];
    assert_eq!(render(), SIZE);
    let now = memtrace::take_snapshot().unwrap();
    assert_eq!(bytes_of_render(&now), 0);
    let peak = memtrace::peak_snapshot().unwrap();
    let at_least = (SIZE as u64 * 100).div_ceil(101);
    assert!(bytes_of_render(&peak) >= at_least, "{:?}", peak.top(KeyType::InclusiveFunction, 5));
    assert!(peak.total_size() >= (memtrace::traced_memory().peak * 100).div_ceil(101));
    assert_eq!(peak.generation(), None);

    // From here on, what there is now is the most there has been.
    memtrace::reset_peak();
    let peak = memtrace::peak_snapshot().unwrap();
    assert_eq!(bytes_of_render(&peak), 0);
    assert!(peak.total_size() >= kept.len() as u64);
    memtrace::stop();
}
