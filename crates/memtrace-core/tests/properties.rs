//! Laws that hold for every snapshot, and naive oracles.

use std::collections::BTreeMap;
use std::sync::Arc;

use memtrace_core::{
    AnyFilter, Attribution, DomainFilter, Filter, Frame, Generation, KeyType, MissingSource,
    Module, Pattern, Snapshot, SnapshotBuilder, StackId, StatisticDiff, Thread, Trace, Traceback,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Those by which each trace is in one group.
const SUMMING: [KeyType; 7] = [
    KeyType::Filename,
    KeyType::Lineno,
    KeyType::Traceback,
    KeyType::Function,
    KeyType::Module,
    KeyType::Thread,
    KeyType::Domain,
];

/// Each inclusive key type with the cumulative one, where there is one.
const INCLUSIVE: [(KeyType, Option<KeyType>); 3] = [
    (KeyType::InclusiveFilename, Some(KeyType::CumulativeFilename)),
    (KeyType::InclusiveLineno, Some(KeyType::CumulativeLineno)),
    (KeyType::InclusiveFunction, None),
];

/// Few names, so that groups have several members; some hidden by default.
fn frame() -> impl Strategy<Value = Frame> {
    let filename =
        prop::sample::select(vec!["a.rs", "b.rs", "/rustc/1/v.rs", "<a::f>", "<[T]>::x"]);
    let function = prop::sample::select(vec![None, Some("a::f"), Some("alloc::g")]);
    let missing = prop::sample::select(vec![None, None, Some(MissingSource::NoDebugInfo)]);
    // The last two have one name.
    let module = prop::sample::select(vec![None, Some("/bin/a"), Some("/lib/b.so"), Some("/b.so")]);
    let directory = option::of(Just("/src"));
    (filename, 0..3_u32, function, module, directory, missing, any::<bool>()).prop_map(
        |(filename, lineno, function, module, directory, missing, is_inlined)| {
            let mut frame = Frame::new(filename, lineno).with_inlined(is_inlined);
            frame.function = function.map(Into::into);
            frame.module = module.map(|path| Arc::new(Module::new(path)));
            frame.directory = directory.map(Into::into);
            frame.missing = missing;
            frame
        },
    )
}

fn trace() -> impl Strategy<Value = Trace> {
    let size = prop_oneof![Just(0), 1..100_u64, Just(1 << 40)];
    (0..3_u32, size, vec(frame(), 0..5), option::of(0..9_u16), any::<bool>()).prop_map(
        |(domain, size, frames, total_nframe, is_deeper)| {
            let traceback = Traceback::new(frames);
            let traceback = match total_nframe {
                Some(total_nframe) => traceback.with_total_nframe(total_nframe),
                None if is_deeper => traceback.with_unknown_depth(),
                None => traceback,
            };
            Trace { domain, size, traceback }
        },
    )
}

fn attribution() -> impl Strategy<Value = Attribution> {
    prop::sample::select(vec![
        Attribution::newest_frame(),
        Attribution::default(),
        Attribution::default().only_workspace(),
        Attribution::newest_frame().hide_files("[!a]*").hide_functions("a*"),
    ])
}

/// The threads that a trace may be of; the last two have one name.
const THREADS: [(u32, &str); 3] = [(1, "main"), (2, "worker"), (3, "worker")];

/// Traces with the thread and the generation of each, as far as they are known.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let row = (trace(), option::of(0..THREADS.len()), option::of(1..5_u32));
    (vec(row, 0..40), attribution(), any::<bool>()).prop_map(|(rows, attribution, is_plain)| {
        let mut builder = SnapshotBuilder::new(4);
        let threads = THREADS.map(|(number, name)| builder.thread(Thread::new(number, 7, name)));
        for (trace, thread, birth) in rows {
            let stack = stack_of(&mut builder, &trace.traceback);
            // Columns that nobody needs are left out, which is a path of its own.
            let thread = thread.filter(|_| !is_plain).map(|index| threads[index]);
            let birth = birth.filter(|_| !is_plain);
            builder.trace_of(trace.domain, trace.size, stack, thread, birth);
        }
        builder.set_generation(Some(Generation { run: 1, number: 4 }));
        builder.finish().with_attribution(attribution)
    })
}

/// What a filter asks for, without its sign.
#[derive(Clone, Debug)]
enum Wanted {
    Frame { pattern: &'static str, lineno: Option<u32>, all_frames: bool, domain: Option<u32> },
    Domain(u32),
}

impl Wanted {
    fn filter(&self, is_inclusive: bool) -> AnyFilter {
        let (pattern, lineno, all_frames, domain) = match *self {
            Self::Domain(domain) => return DomainFilter::new(is_inclusive, domain).into(),
            Self::Frame { pattern, lineno, all_frames, domain } => {
                (pattern, lineno, all_frames, domain)
            }
        };
        let mut filter = Filter::new(is_inclusive, pattern);
        if let Some(lineno) = lineno {
            filter = filter.lineno(lineno);
        }
        if all_frames {
            filter = filter.all_frames();
        }
        if let Some(domain) = domain {
            filter = filter.domain(domain);
        }
        filter.into()
    }

    /// Whether the trace is hit, by the plain definition.
    fn hits(&self, trace: &Trace, rule: &Attribution) -> bool {
        match self {
            Self::Domain(domain) => trace.domain == *domain,
            Self::Frame { pattern, lineno, all_frames, domain } => {
                let pattern = Pattern::new(*pattern);
                let is_hit = |frame: &Frame| {
                    pattern.matches(&frame.filename) && lineno.is_none_or(|n| n == frame.lineno)
                };
                let mut blamed = rule.attributed(&trace.traceback).into_iter();
                domain.is_none_or(|domain| domain == trace.domain)
                    && if *all_frames {
                        trace.traceback.iter().any(is_hit)
                    } else {
                        blamed.any(is_hit)
                    }
            }
        }
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let pattern = prop::sample::select(vec!["*", "a.rs", "?.rs", "/rustc/*", "<*>", "[!a]*"]);
    let number = || option::of(0..3_u32);
    prop_oneof![
        (pattern, number(), any::<bool>(), number()).prop_map(
            |(pattern, lineno, all_frames, domain)| {
                Wanted::Frame { pattern, lineno, all_frames, domain }
            },
        ),
        (0..3_u32).prop_map(Wanted::Domain),
    ]
}

/// Key to (size, count), by the plain definition.
fn naive_groups(snapshot: &Snapshot, key_type: KeyType) -> BTreeMap<Traceback, (u64, u64)> {
    let mut groups = BTreeMap::new();
    for (index, trace) in snapshot.traces().enumerate() {
        let mut keys = naive_keys(snapshot, key_type, index, &trace);
        if is_inclusive(key_type) {
            keys.sort();
            keys.dedup();
        }
        for key in keys {
            let (size, count) = groups.entry(key).or_insert((0, 0));
            *size += trace.size;
            *count += 1;
        }
    }
    groups
}

fn is_inclusive(key_type: KeyType) -> bool {
    INCLUSIVE.iter().any(|(inclusive, _)| *inclusive == key_type)
}

/// The groups that a trace counts for, as often as it would without a rule against that.
fn naive_keys(
    snapshot: &Snapshot,
    key_type: KeyType,
    index: usize,
    trace: &Trace,
) -> Vec<Traceback> {
    let mut frames: Vec<Frame> = trace.traceback.iter().cloned().collect();
    let blamed = snapshot.attribution().attributed(&trace.traceback);
    // Which of several equal frames is meant is told by its address; of one that occurs more than
    // once, the newest is.
    let is_blamed = |f: &Frame| blamed.is_some_and(|b| std::ptr::eq(f, b));
    let n_shown = trace.traceback.iter().rposition(is_blamed);
    frames.truncate(n_shown.map_or(0, |i| i + 1));
    let label = |text: String| Traceback::new([Frame::new(text, 0)]);
    let key_of = |frame: &Frame| match key_type {
        KeyType::Filename | KeyType::CumulativeFilename | KeyType::InclusiveFilename => {
            label(frame.filename.to_string())
        }
        KeyType::Function | KeyType::InclusiveFunction => match &frame.function {
            Some(path) => label(format!("<{path}>")),
            None => label(frame.filename.to_string()),
        },
        KeyType::Module => match &frame.module {
            Some(module) => label(format!("<{}>", module.name())),
            None => label("<unknown module>".to_owned()),
        },
        _ => Traceback::new([frame.clone()]),
    };
    match key_type {
        KeyType::Traceback => vec![Traceback::new(frames)],
        KeyType::Domain => vec![label(format!("<domain {}>", trace.domain))],
        KeyType::Thread => match snapshot.thread_of(index) {
            Some(thread) => vec![label(format!("<{thread}>"))],
            None => vec![label("<unknown thread>".to_owned())],
        },
        _ if is_inclusive(key_type) || key_type.is_cumulative() => {
            frames.iter().map(key_of).collect()
        }
        _ => vec![frames.last().map_or_else(|| Traceback::new([]), key_of)],
    }
}

fn everything(snapshot: &Snapshot) -> String {
    let traces: Vec<_> = snapshot
        .traces()
        .enumerate()
        .map(|(i, trace)| (trace, snapshot.thread_of(i), snapshot.birth_of(i)))
        .collect();
    let (limit, generation) = (snapshot.traceback_limit(), snapshot.generation());
    let (rule, threads) = (snapshot.attribution(), snapshot.threads());
    format!("{limit} {generation:?} {rule:?} {threads:?} {traces:?}")
}

fn stack_of(builder: &mut SnapshotBuilder, traceback: &Traceback) -> StackId {
    let frames: Vec<_> = traceback.iter().rev().map(|frame| builder.frame(frame.clone())).collect();
    builder.stack(&frames, traceback.total_nframe())
}

/// The same traces, with tables shared by all snapshots of the builder.
fn through(builder: &mut SnapshotBuilder, snapshot: &Snapshot) -> Snapshot {
    let threads: Vec<_> =
        snapshot.threads().iter().map(|thread| (thread, builder.thread(thread.clone()))).collect();
    for (index, trace) in snapshot.traces().enumerate() {
        let stack = stack_of(builder, &trace.traceback);
        let own = snapshot.thread_of(index);
        let thread = threads.iter().find(|(thread, _)| Some(*thread) == own).map(|(_, id)| *id);
        builder.trace_of(trace.domain, trace.size, stack, thread, snapshot.birth_of(index));
    }
    builder.set_generation(snapshot.generation());
    builder.snapshot().with_attribution(snapshot.attribution().clone())
}

proptest! {
    #[test]
    fn snapshots_of_one_builder_differ_as_if_they_had_nothing_in_common(
        new in snapshot(), old in snapshot(), between in snapshot(),
    ) {
        let mut builder = SnapshotBuilder::new(4);
        let shared_old = through(&mut builder, &old);
        let _ = through(&mut builder, &between);
        let mut other = builder.clone();
        let shared_new = through(&mut builder, &new);
        let other_new = through(&mut other, &new);
        for key_type in KeyType::ALL {
            let expected = new.compare_to(&old, key_type);
            prop_assert_eq!(&shared_new.compare_to(&shared_old, key_type), &expected);
            prop_assert_eq!(&other_new.compare_to(&shared_old, key_type), &expected);
            let flipped = old.compare_to(&new, key_type).len();
            prop_assert_eq!(shared_old.compare_to(&shared_new, key_type).len(), flipped);
            prop_assert_eq!(shared_new.statistics(key_type), new.statistics(key_type));
        }
    }

    #[test]
    fn groups_are_those_of_the_plain_definition(snapshot in snapshot()) {
        for key_type in KeyType::ALL {
            let mut expected: Vec<_> = naive_groups(&snapshot, key_type)
                .into_iter()
                .map(|(traceback, (size, count))| (size, count, traceback))
                .collect();
            expected.sort_by(|a, b| b.cmp(a));
            let found: Vec<_> = snapshot
                .statistics(key_type)
                .into_iter()
                .map(|s| (s.size, s.count, s.traceback))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn differences_are_those_of_the_plain_definition(new in snapshot(), old in snapshot()) {
        let old = old.with_attribution(new.attribution().clone());
        for key_type in KeyType::ALL {
            let (now, before) = (naive_groups(&new, key_type), naive_groups(&old, key_type));
            let keys: BTreeMap<_, _> = now.iter().chain(&before).collect();
            let mut expected: Vec<_> = keys
                .into_keys()
                .map(|traceback| {
                    let of = |groups: &BTreeMap<_, _>| *groups.get(traceback).unwrap_or(&(0, 0));
                    let ((size, count), (old_size, old_count)) = (of(&now), of(&before));
                    let size_diff = size as i64 - old_size as i64;
                    let count_diff = count as i64 - old_count as i64;
                    (size_diff.abs(), size, count_diff.abs(), count, traceback.clone(), size_diff, count_diff)
                })
                .collect();
            expected.sort_by(|a, b| b.cmp(a));
            let found: Vec<_> = new
                .compare_to(&old, key_type)
                .into_iter()
                .map(|d| {
                    let (size_diff, count_diff) = (d.size_diff.abs(), d.count_diff.abs());
                    (size_diff, d.size, count_diff, d.count, d.traceback, d.size_diff, d.count_diff)
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn nothing_differs_from_itself(snapshot in snapshot()) {
        for key_type in KeyType::ALL {
            let diffs = snapshot.compare_to(&snapshot, key_type);
            prop_assert_eq!(diffs.len(), snapshot.statistics(key_type).len());
            prop_assert!(diffs.iter().all(|d| d.size_diff == 0 && d.count_diff == 0));
        }
    }

    #[test]
    fn swapping_the_sides_flips_the_signs(a in snapshot(), b in snapshot()) {
        let b = b.with_attribution(a.attribution().clone());
        for key_type in KeyType::ALL {
            let signs = |new: &Snapshot, old: &Snapshot, sign: i64| -> BTreeMap<_, _> {
                let diffs = new.compare_to(old, key_type).into_iter();
                diffs.map(|d| (d.traceback, (sign * d.size_diff, sign * d.count_diff))).collect()
            };
            prop_assert_eq!(signs(&a, &b, 1), signs(&b, &a, -1));
        }
    }

    #[test]
    fn groups_sum_to_the_totals(snapshot in snapshot()) {
        for key_type in SUMMING {
            let statistics = snapshot.statistics(key_type);
            prop_assert_eq!(statistics.iter().map(|s| s.size).sum::<u64>(), snapshot.total_size());
            let count = statistics.iter().map(|s| s.count).sum::<u64>();
            prop_assert_eq!(count, snapshot.n_traces() as u64);
        }
    }

    #[test]
    fn inclusive_groups_exceed_neither_the_totals_nor_the_cumulative_ones(snapshot in snapshot()) {
        for (inclusive, cumulative) in INCLUSIVE {
            let cumulative: BTreeMap<Traceback, _> = cumulative
                .into_iter()
                .flat_map(|key_type| snapshot.statistics(key_type))
                .map(|s| (s.traceback, (s.size, s.count)))
                .collect();
            for group in snapshot.statistics(inclusive) {
                prop_assert!(group.size <= snapshot.total_size());
                prop_assert!(group.count <= snapshot.n_traces() as u64);
                if let Some(&(size, count)) = cumulative.get(&group.traceback) {
                    prop_assert!(group.size <= size && group.count <= count);
                } else {
                    prop_assert!(cumulative.is_empty());
                }
            }
        }
    }

    #[test]
    fn the_first_groups_are_the_beginning_of_all_of_them(
        new in snapshot(), old in snapshot(), n in 0..30_usize,
    ) {
        for key_type in KeyType::ALL {
            let all = new.statistics(key_type);
            prop_assert_eq!(&new.top(key_type, n), &all[..n.min(all.len())]);
            let all = new.compare_to(&old, key_type);
            prop_assert_eq!(&new.top_diff(&old, key_type, n), &all[..n.min(all.len())]);
        }
    }

    #[test]
    fn every_difference_is_in_the_one_set_where_it_belongs(new in snapshot(), old in snapshot()) {
        for key_type in KeyType::ALL {
            let sets = new.diff_sets(&old, key_type);
            let has_old = |d: &StatisticDiff| d.count as i64 != d.count_diff;
            let is_changed = |d: &StatisticDiff| d.count > 0 && has_old(d);
            prop_assert!(sets.new.iter().all(|d| d.count > 0 && !has_old(d)));
            prop_assert!(sets.gone.iter().all(|d| d.count == 0 && has_old(d)));
            prop_assert!(sets.grown.iter().all(|d| is_changed(d) && d.size_diff > 0));
            prop_assert!(sets.shrunk.iter().all(|d| is_changed(d) && d.size_diff < 0));
            prop_assert!(sets.unchanged.iter().all(|d| is_changed(d) && d.size_diff == 0));
            let mut all = new.compare_to(&old, key_type);
            let mut in_sets = [sets.new, sets.gone, sets.grown, sets.shrunk, sets.unchanged].concat();
            // Tracebacks are unique among the groups.
            all.sort_by(|a, b| a.traceback.cmp(&b.traceback));
            in_sets.sort_by(|a, b| a.traceback.cmp(&b.traceback));
            prop_assert_eq!(in_sets, all);
        }
    }

    #[test]
    fn what_is_there_since_a_generation_was_born_after_it(snapshot in snapshot(), number in 1..4_u32) {
        let mut older = SnapshotBuilder::new(1);
        older.set_generation(Some(Generation { run: 1, number }));
        let since = snapshot.since(&older.finish()).unwrap();
        let born = |index: &usize| snapshot.birth_of(*index).is_some_and(|birth| birth > number);
        let traces: Vec<_> = snapshot.traces().collect();
        let expected: Vec<_> = (0..traces.len())
            .filter(born)
            .map(|i| (traces[i].clone(), snapshot.thread_of(i), snapshot.birth_of(i)))
            .collect();
        let found: Vec<_> = since
            .traces()
            .enumerate()
            .map(|(i, trace)| (trace, since.thread_of(i), since.birth_of(i)))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn a_filter_and_its_opposite_part_the_traces(snapshot in snapshot(), wanted in wanted()) {
        let kept = snapshot.filter_traces(&[wanted.filter(true)]);
        let dropped = snapshot.filter_traces(&[wanted.filter(false)]);
        prop_assert_eq!(kept.n_traces() + dropped.n_traces(), snapshot.n_traces());
        let (mut kept, mut dropped) = (kept.traces().peekable(), dropped.traces().peekable());
        for trace in snapshot.traces() {
            let side = if wanted.hits(&trace, snapshot.attribution()) { &mut kept } else { &mut dropped };
            prop_assert_eq!(side.next(), Some(trace));
        }
    }

    #[test]
    fn filters_are_combined_as_the_plain_definition_says(
        snapshot in snapshot(),
        wanted in vec((wanted(), any::<bool>()), 0..4),
    ) {
        let filters: Vec<_> = wanted.iter().map(|(wanted, sign)| wanted.filter(*sign)).collect();
        let is_kept = |trace: &Trace| {
            let hits = |wanted: &Wanted| wanted.hits(trace, snapshot.attribution());
            let mut included = wanted.iter().filter(|(_, sign)| *sign).map(|(w, _)| w).peekable();
            let mut excluded = wanted.iter().filter(|(_, sign)| !*sign).map(|(w, _)| w);
            (included.peek().is_none() || included.any(hits)) && !excluded.any(hits)
        };
        let filtered = snapshot.filter_traces(&filters);
        let expected: Vec<_> = snapshot.traces().filter(is_kept).collect();
        prop_assert_eq!(filtered.traces().collect::<Vec<_>>(), expected);
        prop_assert_eq!(filtered.attribution(), snapshot.attribution());
    }

    #[test]
    fn a_file_keeps_everything(snapshot in snapshot()) {
        let mut bytes = Vec::new();
        snapshot.write_to(&mut bytes).unwrap();
        let loaded = Snapshot::read_from(&bytes[..]).unwrap();
        prop_assert_eq!(everything(&loaded), everything(&snapshot));
        for key_type in KeyType::ALL {
            prop_assert_eq!(loaded.statistics(key_type), snapshot.statistics(key_type));
        }
    }

    #[test]
    fn no_bytes_are_worse_than_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let mut file = b"MEMTRACE\x02\0\0\0\x04\x03\x02\x01meta".to_vec();
        file.extend((bytes.len() as u64).to_le_bytes());
        file.extend(&bytes);
        file.extend(crc32fast::hash(&file).to_le_bytes());
        prop_assert!(Snapshot::read_from(&file[..]).is_err());
    }
}
