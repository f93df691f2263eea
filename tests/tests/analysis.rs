//! What the tool allocates while it analyses is in no snapshot.

use memtrace::report::Report;
use memtrace::{Filter, KeyType, Snapshot, SourceCache};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

/// Traces that were allocated by the analysis, anywhere in their stack.
fn n_own_traces(snapshot: &Snapshot) -> usize {
    let own = Filter::include("*memtrace-core/src/*").all_frames();
    snapshot.filter_traces(&[own]).n_traces()
}

#[test]
fn results_that_are_kept_are_in_no_later_snapshot() {
    memtrace::start(100).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved");
    let first = memtrace::take_snapshot().unwrap();
    let mut kept = Vec::new();
    for key_type in KeyType::ALL {
        let second = memtrace::take_snapshot().unwrap();
        let diffs = second.compare_to(&first, key_type);
        let lines: Vec<_> = diffs
            .iter()
            .map(|diff| diff.traceback.format(None, false, &SourceCache::new()))
            .collect();
        let filtered = second.filter_traces(&[Filter::exclude("*/core/*")]);
        second.dump(&path).unwrap();
        let loaded = Snapshot::load(&path).unwrap();
        let missing = second.missing_source();
        let statistics = loaded.statistics(key_type);
        let sets = second.diff_sets(&loaded, key_type);
        kept.push((second, diffs, lines, filtered, loaded, missing, statistics, sets));
    }
    let _ = Report::growth(&kept[0].0, &first, KeyType::Lineno).to_string();
    let last = memtrace::take_snapshot().unwrap();
    assert_eq!(n_own_traces(&last), 0, "{:#?}", last.top(KeyType::Traceback, 3));
    assert!(last.n_traces() > 0);
    drop(kept);

    // The same work is seen when the program does it as its own: the check above can fail.
    let mut builder = memtrace_core::SnapshotBuilder::new(1);
    builder.frame(memtrace::Frame::new("a.rs", 1));
    assert!(n_own_traces(&memtrace::take_snapshot().unwrap()) > 0);
    drop(builder);
}
