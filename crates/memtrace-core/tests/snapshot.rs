//! Snapshots with names, through the public API.

use memtrace_core::{
    Attribution, Filter, Frame, KeyType, MissingSource, Snapshot, SnapshotBuilder, Trace, Traceback,
};

const RAW_VEC: &str = "/rustc/59807616e/library/alloc/src/raw_vec/mod.rs";
const VEC: &str = "/rustc/59807616e/library/alloc/src/vec/mod.rs";

/// Two ways from one user line into the library, and one from another.
fn pushes() -> Snapshot {
    let mut builder = SnapshotBuilder::new(25);
    let mut frame = |filename: &str, lineno, function: &str| {
        builder.frame(Frame::new(filename, lineno).with_function(function))
    };
    let main = frame("src/main.rs", 9, "app::main");
    let insert = frame("src/cache.rs", 42, "app::cache::insert");
    let push = frame(VEC, 1, "alloc::vec::Vec<T,A>::push");
    let extend = frame(VEC, 2, "alloc::vec::Vec<T,A>::extend");
    let grow = frame(RAW_VEC, 3, "alloc::raw_vec::RawVec<T,A>::grow_one");
    for (stack, size) in
        [(vec![grow, push, insert, main], 10), (vec![extend, insert, main], 20), (vec![main], 5)]
    {
        let stack = builder.stack(&stack, Some(4));
        builder.trace(0, size, stack);
    }
    builder.finish()
}

fn rows(snapshot: &Snapshot, key_type: KeyType) -> Vec<String> {
    let places = |traceback: &Traceback| {
        traceback.iter().map(Frame::to_string).collect::<Vec<_>>().join(" ")
    };
    let statistics = snapshot.statistics(key_type);
    statistics.iter().map(|s| format!("{} {}x{}", places(&s.traceback), s.size, s.count)).collect()
}

#[test]
fn the_line_of_the_user_is_blamed_by_every_key() {
    let snapshot = pushes();
    assert_eq!(rows(&snapshot, KeyType::Filename), ["src/cache.rs:0 30x2", "src/main.rs:0 5x1"]);
    assert_eq!(rows(&snapshot, KeyType::Lineno), ["src/cache.rs:42 30x2", "src/main.rs:9 5x1"]);
    assert_eq!(
        rows(&snapshot, KeyType::Traceback),
        ["src/main.rs:9 src/cache.rs:42 30x2", "src/main.rs:9 5x1"]
    );
    assert_eq!(
        rows(&snapshot, KeyType::CumulativeFilename),
        ["src/main.rs:0 35x3", "src/cache.rs:0 30x2"]
    );
    assert_eq!(snapshot.traces().next().unwrap().traceback.len(), 4);
}

#[test]
fn plain_tracemalloc_blames_the_newest_frame() {
    let snapshot = pushes().with_attribution(Attribution::newest_frame());
    assert_eq!(
        rows(&snapshot, KeyType::Lineno),
        [format!("{VEC}:2 20x1"), format!("{RAW_VEC}:3 10x1"), "src/main.rs:9 5x1".to_owned()]
    );
    assert_eq!(rows(&snapshot, KeyType::Traceback).len(), 3);
}

#[test]
fn a_line_keeps_its_function_and_a_file_has_none() {
    let snapshot = pushes();
    let by_line = &snapshot.statistics(KeyType::Lineno)[0].traceback[0];
    assert_eq!(by_line.function.as_deref(), Some("app::cache::insert"));
    let by_file = &snapshot.statistics(KeyType::Filename)[0].traceback[0];
    assert_eq!(by_file.function, None);
}

#[test]
fn functions_on_one_line_are_one_group_shown_by_the_first() {
    let mut builder = SnapshotBuilder::new(1);
    for function in ["app::f::<u8>", "app::f::<u16>"] {
        let frame = builder.frame(Frame::new("src/f.rs", 1).with_function(function));
        let stack = builder.stack(&[frame], Some(1));
        builder.trace(0, 1, stack);
    }
    let snapshot = builder.finish();
    for key_type in [KeyType::Lineno, KeyType::Traceback, KeyType::CumulativeLineno] {
        let statistics = snapshot.statistics(key_type);
        assert_eq!(statistics.len(), 1, "{key_type}");
        assert_eq!(statistics[0].traceback[0].function.as_deref(), Some("app::f::<u8>"));
    }
}

#[test]
fn the_attribution_of_the_newer_snapshot_counts_for_both() {
    let old = pushes().with_attribution(Attribution::newest_frame());
    let diffs = pushes().compare_to(&old, KeyType::Lineno);
    assert_eq!(diffs.len(), 2);
    assert!(diffs.iter().all(|diff| diff.size_diff == 0));
}

#[test]
fn filters_look_at_the_line_that_is_blamed() {
    let sizes = |filter| {
        pushes()
            .filter_traces(&[filter])
            .traces()
            .map(|trace: Trace| trace.size)
            .collect::<Vec<_>>()
    };
    assert_eq!(sizes(Filter::include("src/cache.rs")), [10, 20]);
    assert_eq!(sizes(Filter::exclude("src/cache.rs").lineno(42)), [5]);
    assert_eq!(sizes(Filter::exclude("/rustc/*")), [10, 20, 5]);
    assert_eq!(sizes(Filter::include("/rustc/*").all_frames()), [10, 20]);
    assert_eq!(pushes().filter_traces::<Filter>(&[]).n_traces(), 3);
}

#[test]
fn a_trace_without_frames_is_a_group_of_its_own() {
    let trace = Trace { domain: 0, size: 8, traceback: Traceback::new([]) };
    let snapshot = Snapshot::from_traces([trace], 1);
    for key_type in [KeyType::Filename, KeyType::Lineno, KeyType::Traceback] {
        let statistics = snapshot.statistics(key_type);
        assert_eq!((statistics.len(), statistics[0].size), (1, 8), "{key_type}");
        assert!(statistics[0].traceback.is_empty());
    }
    assert_eq!(snapshot.filter_traces(&[Filter::include("*")]).n_traces(), 0);
    assert_eq!(snapshot.missing_source(), None);
}

#[test]
fn sums_saturate() {
    let traceback = Traceback::new([Frame::new("a.rs", 1)]);
    let trace = Trace { domain: 0, size: u64::MAX, traceback };
    let snapshot = Snapshot::from_traces([trace.clone(), trace], 1);
    assert_eq!(snapshot.total_size(), u64::MAX);
    let statistics = snapshot.statistics(KeyType::Lineno);
    assert_eq!((statistics[0].size, statistics[0].count), (u64::MAX, 2));
    let empty = SnapshotBuilder::new(1).finish();
    assert_eq!(snapshot.compare_to(&empty, KeyType::Lineno)[0].size_diff, i64::MAX);
    assert_eq!(empty.compare_to(&snapshot, KeyType::Lineno)[0].size_diff, -i64::MAX);
}

/// A snapshot whose blamed frames lack their source for these reasons.
fn lacking(reasons: &[(Option<MissingSource>, usize)]) -> Snapshot {
    let mut builder = SnapshotBuilder::new(2);
    let hidden = Frame::new("<libstd.so+0x1>", 0).with_missing(MissingSource::FileReplaced);
    let hidden = builder.frame(hidden.with_function("alloc::vec::from_elem"));
    for &(reason, n_traces) in reasons {
        let frame = match reason {
            Some(reason) => Frame::new("<app::f>", 0).with_missing(reason),
            None => Frame::new("src/f.rs", 1),
        };
        let frame = builder.frame(frame);
        let stack = builder.stack(&[hidden, frame], None);
        (0..n_traces).for_each(|_| builder.trace(0, 1, stack));
    }
    builder.finish()
}

#[test]
fn the_commonest_reason_of_one_trace_in_ten_is_told() {
    use MissingSource::{FileUnavailable, NoDebugInfo};
    let told = |reasons: &[_]| lacking(reasons).missing_source();
    assert_eq!(told(&[]), None);
    assert_eq!(told(&[(None, 5)]), None);
    assert_eq!(told(&[(None, 9), (Some(NoDebugInfo), 1)]), Some(NoDebugInfo));
    assert_eq!(told(&[(None, 10), (Some(NoDebugInfo), 1)]), None);
    assert_eq!(
        told(&[(Some(NoDebugInfo), 1), (None, 3), (Some(FileUnavailable), 2)]),
        Some(FileUnavailable)
    );
}
