//! Snapshots with names, through the public API.

use std::sync::Arc;
use std::time::Instant;

use memtrace_core::{
    Attribution, Filter, Frame, Generation, KeyType, LeakSearch, MissingSource, Module, SinceError,
    Snapshot, SnapshotBuilder, Thread, Trace, Traceback,
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

/// One trace for each (filename, size).
fn traces(traces: &[(&str, u64)]) -> Snapshot {
    let trace = |&(filename, size): &(&str, u64)| Trace {
        domain: 0,
        size,
        traceback: Traceback::new([Frame::new(filename, 1)]),
    };
    Snapshot::from_traces(traces.iter().map(trace), 1)
}

#[test]
fn a_full_tie_lists_the_larger_traceback_first() {
    let snapshot = traces(&[("a", 8), ("z", 8), ("m", 4), ("m", 4)]);
    assert_eq!(rows(&snapshot, KeyType::Lineno), ["m:1 8x2", "z:1 8x1", "a:1 8x1"]);
}

#[test]
fn a_large_loss_comes_before_a_small_gain() {
    let diffs = traces(&[("z", 8)]).compare_to(&traces(&[("a", 9)]), KeyType::Lineno);
    let rows: Vec<_> = diffs.iter().map(|d| (d.traceback.to_string(), d.size_diff)).collect();
    assert_eq!(rows, [("a:1".to_owned(), -9), ("z:1".to_owned(), 8)]);
}

#[test]
fn the_first_groups_are_those_of_the_whole_list() {
    let new = traces(&[("a", 1), ("b", 5), ("c", 5), ("d", 9)]);
    let old = traces(&[("a", 1), ("b", 9), ("e", 2)]);
    for n in 0..7 {
        for key_type in KeyType::ALL {
            let all = new.statistics(key_type);
            assert_eq!(new.top(key_type, n), all[..n.min(all.len())]);
            let all = new.compare_to(&old, key_type);
            assert_eq!(new.top_diff(&old, key_type, n), all[..n.min(all.len())]);
        }
    }
}

#[test]
fn groups_are_new_or_gone_or_grown_or_shrunk_or_unchanged() {
    let new = traces(&[("grown", 2), ("shrunk", 1), ("same", 1), ("new", 0)]);
    let old = traces(&[("grown", 1), ("shrunk", 2), ("same", 1), ("gone", 0)]);
    let sets = new.diff_sets(&old, KeyType::Filename);
    let names = |diffs: &[memtrace_core::StatisticDiff]| {
        diffs.iter().map(|diff| diff.traceback[0].filename.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&sets.grown), ["grown"]);
    assert_eq!(names(&sets.shrunk), ["shrunk"]);
    assert_eq!(names(&sets.unchanged), ["same"]);
    assert_eq!(names(&sets.new), ["new"]);
    assert_eq!(names(&sets.gone), ["gone"]);
}

#[test]
fn functions_modules_threads_and_domains_are_groups_with_names_of_their_own() {
    let mut builder = SnapshotBuilder::new(2);
    let app = Arc::new(Module::new("/bin/app"));
    let main = builder.frame(Frame::new("a.rs", 1).with_function("app::main").with_module(app));
    let lib = builder.frame(Frame::new("<lib.so+0x8>", 0));
    let stack = builder.stack(&[main, main], Some(2));
    let foreign = builder.stack(&[lib, main], Some(2));
    let worker = builder.thread(Thread::new(2, 700, "worker"));
    builder.trace_of(0, 8, stack, Some(worker), Some(1));
    builder.trace_of(7, 1, foreign, None, None);
    let snapshot = builder.finish();
    assert_eq!(rows(&snapshot, KeyType::Function), ["<app::main>:0 8x1", "<lib.so+0x8>:0 1x1"]);
    assert_eq!(
        rows(&snapshot, KeyType::InclusiveFunction),
        ["<app::main>:0 9x2", "<lib.so+0x8>:0 1x1"]
    );
    assert_eq!(rows(&snapshot, KeyType::Module), ["<app>:0 8x1", "<unknown module>:0 1x1"]);
    assert_eq!(
        rows(&snapshot, KeyType::Thread),
        ["<thread 2 \"worker\">:0 8x1", "<unknown thread>:0 1x1"]
    );
    assert_eq!(rows(&snapshot, KeyType::Domain), ["<domain 0>:0 8x1", "<domain 7>:0 1x1"]);
    assert_eq!(rows(&snapshot, KeyType::CumulativeLineno)[0], "a.rs:1 17x3");
    assert_eq!(rows(&snapshot, KeyType::InclusiveLineno)[0], "a.rs:1 9x2");
    assert_eq!(snapshot.thread_of(0).map(|thread| thread.os_id), Some(700));
    assert_eq!((snapshot.thread_of(1), snapshot.thread_of(2)), (None, None));
    assert_eq!((snapshot.birth_of(0), snapshot.birth_of(1)), (Some(1), None));
}

#[test]
fn builders_that_were_one_and_grew_apart_are_compared_by_name() {
    let mut builder = SnapshotBuilder::new(1);
    let mut other = builder.clone();
    let add = |builder: &mut SnapshotBuilder, filename: &str, size| {
        let frame = builder.frame(Frame::new(filename, 1).with_function(filename));
        let stack = builder.stack(&[frame], Some(1));
        builder.trace(0, size, stack);
    };
    // The same ids stand for different frames.
    add(&mut builder, "a.rs", 1);
    add(&mut builder, "b.rs", 2);
    add(&mut other, "b.rs", 8);
    let (new, old) = (builder.finish(), other.finish());
    for key_type in [KeyType::Lineno, KeyType::Filename, KeyType::Traceback, KeyType::Function] {
        let diffs = new.compare_to(&old, key_type);
        let texts: Vec<String> = diffs
            .iter()
            .map(|diff| format!("{} {:+}", diff.traceback[0].filename, diff.size_diff))
            .map(|text| text.replace(['<', '>'], ""))
            .collect();
        assert_eq!(texts, ["b.rs -6", "a.rs +1"], "{key_type}");
    }
}

#[test]
fn an_attribution_counts_whichever_was_asked_about_before() {
    let by_default = pushes();
    let expected = rows(&by_default, KeyType::Lineno);
    let newest = by_default.clone().with_attribution(Attribution::newest_frame());
    assert_ne!(rows(&newest, KeyType::Lineno), expected);
    assert_eq!(rows(&by_default, KeyType::Lineno), expected);
    let rows_of_newest = rows(&newest, KeyType::Lineno);
    assert_eq!(
        rows_of_newest,
        rows(&pushes().with_attribution(Attribution::newest_frame()), KeyType::Lineno)
    );
}

#[test]
fn a_generation_is_that_of_one_snapshot() {
    let mut builder = SnapshotBuilder::new(1);
    let generation = Some(Generation { run: 1, number: 2 });
    builder.set_generation(generation);
    assert_eq!(builder.snapshot().generation(), generation);
    assert_eq!(builder.snapshot().generation(), None);
}

#[test]
fn inlined_frames_that_get_names_count_for_the_depth() {
    let depth_when_named = |n_recorded, total_nframe| {
        let mut builder = SnapshotBuilder::new(n_recorded);
        let frame = builder.frame(Frame::unnamed(Module::new("/bin/app"), 8));
        let stack = builder.stack(&vec![frame; n_recorded.into()], total_nframe);
        builder.trace(0, 1, stack);
        let named = builder.finish().name_frames(|_, _| {
            vec![Frame::new("inner.rs", 1).with_inlined(true), Frame::new("outer.rs", 2)]
        });
        let traceback = named.traces().next().unwrap().traceback;
        assert_eq!(traceback.len(), 2 * usize::from(n_recorded));
        assert_eq!(traceback.newest().map(ToString::to_string).as_deref(), Some("inner.rs:1"));
        assert!(!named.has_unnamed_frames());
        (traceback.total_nframe(), traceback.is_truncated())
    };
    assert_eq!(depth_when_named(3, Some(3)), (Some(6), false));
    assert_eq!(depth_when_named(3, Some(5)), (Some(8), true));
    assert_eq!(depth_when_named(3, Some(u16::MAX)), (Some(u16::MAX), true));
    assert_eq!(depth_when_named(3, None), (None, true));
}

#[test]
fn frames_without_a_name_stay_as_they_are_and_can_be_named_later() {
    let mut builder = SnapshotBuilder::new(2);
    let known = builder.frame(Frame::unnamed(Module::new("/bin/app"), 1));
    let unknown = builder.frame(Frame::unnamed(Module::new("/bin/gone"), 2));
    let stack = builder.stack(&[known, unknown], Some(2));
    builder.trace(0, 1, stack);
    let named = builder.finish().name_frames(|module, _| match module.name() {
        "app" => vec![Frame::new("a.rs", 1)],
        _ => Vec::new(),
    });
    assert!(named.has_unnamed_frames());
    let traceback = named.traces().next().unwrap().traceback;
    assert_eq!(traceback.to_string(), "<gone+0x2>:0");
    assert_eq!(traceback[1].to_string(), "a.rs:1");
    let named = named.name_frames(|_, _| vec![Frame::new("b.rs", 2)]);
    assert!(!named.has_unnamed_frames());
    assert_eq!(named.traces().next().unwrap().traceback.to_string(), "b.rs:2");
}

fn of_thread(thread: Thread, size: u64) -> Snapshot {
    let mut builder = SnapshotBuilder::new(1);
    let frame = builder.frame(Frame::new("a.rs", 1));
    let stack = builder.stack(&[frame], Some(1));
    let thread = builder.thread(thread);
    builder.trace_of(0, size, stack, Some(thread), None);
    builder.finish()
}

#[test]
fn a_thread_that_was_renamed_is_one_group_with_its_newer_name() {
    let old = of_thread(Thread::new(2, 700, "main"), 8);
    let new = of_thread(Thread::new(2, 700, "worker"), 9);
    let texts = |new: &Snapshot, old: &Snapshot| -> Vec<String> {
        let diffs = new.compare_to(old, KeyType::Thread);
        diffs.iter().map(|diff| format!("{} {:+}", diff.traceback, diff.size_diff)).collect()
    };
    assert_eq!(texts(&new, &old), ["<thread 2 \"worker\">:0 +1"]);
    assert_eq!(texts(&old, &new), ["<thread 2 \"main\">:0 -1"]);
    let other = of_thread(Thread::new(2, 701, "worker"), 9);
    assert_eq!(texts(&other, &old).len(), 2);

    let sizes = [(1, "main"), (2, "main"), (3, "worker"), (4, "worker"), (5, "worker")];
    let snapshots = sizes.map(|(size, name)| of_thread(Thread::new(2, 700, name), 1000 * size));
    let findings = LeakSearch::new(KeyType::Thread).run(&snapshots).unwrap();
    assert_eq!(findings.verdicts.len(), 1);
    assert_eq!(findings.verdicts[0].sizes, [1000, 2000, 3000, 4000, 5000]);
    assert_eq!(findings.verdicts[0].traceback.to_string(), "<thread 2 \"worker\">:0");
}

#[test]
fn as_many_threads_as_blocks_are_grouped_as_quickly_as_domains() {
    let mut builder = SnapshotBuilder::new(1);
    let frame = builder.frame(Frame::new("a.rs", 1));
    let stack = builder.stack(&[frame], Some(1));
    for number in 1..=20_000 {
        let thread = builder.thread(Thread::new(number, number, ""));
        builder.trace_of(number, number.into(), stack, Some(thread), None);
    }
    let snapshot = builder.finish();
    let timed = |key_type| {
        let start = Instant::now();
        let groups = snapshot.statistics(key_type);
        (groups.len(), groups[0].traceback.to_string(), start.elapsed())
    };
    let (n_domains, first_domain, of_domains) = timed(KeyType::Domain);
    let (n_threads, first_thread, of_threads) = timed(KeyType::Thread);
    assert_eq!((n_domains, &*first_domain), (20_000, "<domain 20000>:0"));
    assert_eq!((n_threads, &*first_thread), (20_000, "<thread 20000>:0"));
    // Looking each thread up among all the others takes a hundred times as long.
    assert!(of_threads < 40 * of_domains, "{of_threads:?}, domains {of_domains:?}");
}

#[test]
fn what_was_allocated_since_an_older_snapshot_is_told_by_birth() {
    let mut builder = SnapshotBuilder::new(1);
    let frame = builder.frame(Frame::new("a.rs", 1));
    let stack = builder.stack(&[frame], Some(1));
    let generation = |run, number| Some(Generation { run, number });
    let mut snapshot = |generation, births: &[u32]| {
        for (size, &birth) in (1..).zip(births) {
            builder.trace_of(0, size, stack, None, Some(birth));
        }
        builder.set_generation(generation);
        builder.snapshot()
    };
    let first = snapshot(generation(5, 1), &[1, 1]);
    let last = snapshot(generation(5, 3), &[1, 2, 3]);
    let other_run = snapshot(generation(6, 9), &[9]);
    let without = snapshot(None, &[1]);
    let sizes = |snapshot: Snapshot| snapshot.traces().map(|t| t.size).collect::<Vec<_>>();
    assert_eq!(last.since(&first).map(sizes), Ok(vec![2, 3]));
    assert_eq!(last.since(&without).err(), Some(SinceError::NoGenerations));
    assert_eq!(other_run.since(&last).err(), Some(SinceError::OtherRun));
    assert_eq!(first.since(&last).err(), Some(SinceError::NotOlder { own: 1, other: 3 }));
    assert!(last.since(&last).is_err());
}

#[test]
fn large_blocks_and_many_domains_are_kept_as_they_are() {
    let traceback = Traceback::new([Frame::new("a.rs", 1)]);
    let sizes = [1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 0, u64::MAX];
    let domains = [3, 3, 0, u32::MAX, 3];
    let traces = sizes.into_iter().zip(domains).map(|(size, domain)| Trace {
        domain,
        size,
        traceback: traceback.clone(),
    });
    let snapshot = Snapshot::from_traces(traces, 1);
    let found: Vec<_> = snapshot.traces().map(|trace| (trace.size, trace.domain)).collect();
    assert_eq!(found, sizes.into_iter().zip(domains).collect::<Vec<_>>());
    assert_eq!(snapshot.total_size(), u64::MAX);
}
