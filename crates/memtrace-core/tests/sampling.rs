//! What statistics of sampled snapshots say, against sums made one by one.

use std::num::NonZeroU64;

use memtrace_core::report::Report;
use memtrace_core::{
    DomainFilter, Filter, Frame, KeyType, LeakSearch, SamplingError, Snapshot, SnapshotBuilder,
    Statistic, Suppressions, Thread, Verdict,
};

const T: u64 = 4096;

/// What a trace stands for: bytes and blocks, and their variances.
#[derive(Clone, Copy, Default)]
struct Expected([f64; 4]);

fn sampled(size: u64) -> Expected {
    sampled_every(size, T)
}

fn sampled_every(size: u64, period: u64) -> Expected {
    let s = size as f64;
    let p = if size >= period { 1.0 } else { 1.0 - (-s / period as f64).exp() };
    let variance = (1.0 - p) / (p * p);
    Expected([s / p, 1.0 / p, s * s * variance, variance])
}

fn certain(size: u64) -> Expected {
    Expected([size as f64, 1.0, 0.0, 0.0])
}

impl Expected {
    /// As often as `n`, of one and the same.
    fn times(self, n: f64) -> Self {
        let [size, count, size_variance, count_variance] = self.0;
        Self([size * n, count * n, size_variance * n * n, count_variance * n * n])
    }

    fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    fn figures(self) -> (u64, u64) {
        (self.0[0].round() as u64, self.0[1].round() as u64)
    }

    fn error(self) -> Option<SamplingError> {
        let half = |variance: f64| (1.959964 * variance.sqrt() - 1e-6).ceil() as u64;
        Some(SamplingError::new(half(self.0[2]), half(self.0[3])))
    }
}

/// Two lines of one file that call one of another, a recursion, and memory of all kinds.
fn snapshot() -> Snapshot {
    let mut builder = SnapshotBuilder::new(9);
    builder.set_sample_period(NonZeroU64::new(T));
    let [a, b, leaf] = [("main.rs", 1), ("main.rs", 2), ("leaf.rs", 7)]
        .map(|(file, line)| builder.frame(Frame::new(file, line)));
    let via_a = builder.stack(&[leaf, a], None);
    let recursive = builder.stack(&[leaf, b, b, b], None);
    let other = builder.stack(&[b], None);
    let [one, two] = [1, 2].map(|n| builder.thread(Thread::new(n, n, format!("t{n}"))));
    builder.trace_of(0, 64, via_a, Some(one), None);
    builder.trace_of(0, 1000, recursive, Some(two), None);
    builder.trace_of(0, 100_000, recursive, Some(one), None);
    builder.certain_trace_of(0, 300, via_a, Some(two), None);
    builder.trace_of(5, 77, other, Some(two), None);
    builder.trace_of(0, 0, other, None, None);
    builder.finish()
}

fn check(snapshot: &Snapshot, key_type: KeyType, expected: &[(&str, Expected)]) {
    let found = snapshot.statistics(key_type);
    assert_eq!(found.len(), expected.len(), "{key_type}: {found:?}");
    for (name, expected) in expected {
        let is_it = |s: &&Statistic| s.traceback.to_string() == *name;
        let Some(found) = found.iter().find(is_it) else { panic!("{key_type} {name}: {found:?}") };
        assert_eq!((found.size, found.count), expected.figures(), "{key_type} {name}");
        assert_eq!(found.error, expected.error(), "{key_type} {name}");
    }
}

#[test]
fn all_keys_sum_what_traces_stand_for() {
    let snapshot = snapshot();
    let via_a = sampled(64).and(certain(300));
    let recursive = sampled(1000).and(certain(100_000));
    // A block of no bytes has the chance of one of one byte.
    let empty = Expected([0.0, sampled(1).0[1], 0.0, sampled(1).0[3]]);
    let other = certain(77).and(empty);
    let leaf = via_a.and(recursive);
    check(&snapshot, KeyType::Lineno, &[("leaf.rs:7", leaf), ("main.rs:2", other)]);
    check(&snapshot, KeyType::Filename, &[("leaf.rs:0", leaf), ("main.rs:0", other)]);
    // A frame that is there three times counts three times, and its chance is one and the same.
    let b = recursive.times(3.0).and(other);
    let lines = [("main.rs:1", via_a), ("main.rs:2", b), ("leaf.rs:7", leaf)];
    check(&snapshot, KeyType::CumulativeLineno, &lines);
    let files = [("main.rs:0", via_a.and(b)), ("leaf.rs:0", leaf)];
    check(&snapshot, KeyType::CumulativeFilename, &files);
    let b = recursive.and(other);
    let lines = [("main.rs:1", via_a), ("main.rs:2", b), ("leaf.rs:7", leaf)];
    check(&snapshot, KeyType::InclusiveLineno, &lines);
    let threads = [
        ("<thread 1 \"t1\">:0", sampled(64).and(certain(100_000))),
        ("<thread 2 \"t2\">:0", sampled(1000).and(certain(300)).and(certain(77))),
        ("<unknown thread>:0", empty),
    ];
    check(&snapshot, KeyType::Thread, &threads);
    let heap = leaf.and(empty);
    let domains = [("<domain 0>:0", heap), ("<domain 5>:0", certain(77))];
    check(&snapshot, KeyType::Domain, &domains);
    let total = leaf.and(other);
    assert_eq!((snapshot.total_size(), snapshot.total_count()), total.figures());
    assert_eq!(snapshot.total_error(), total.error());
    assert_eq!(snapshot.n_traces(), 6);
}

#[test]
fn filters_and_suppressions_take_out_what_traces_stand_for() {
    let snapshot = snapshot();
    let main = snapshot.filter_traces(&[Filter::include("main.rs")]);
    assert_eq!(main.sample_period(), snapshot.sample_period());
    let leaf = snapshot.filter_traces(&[Filter::exclude("main.rs")]);
    let expected = sampled(64).and(certain(300)).and(sampled(1000)).and(certain(100_000));
    check(&leaf, KeyType::Lineno, &[("leaf.rs:7", expected)]);
    let heap = snapshot.filter_traces(&[DomainFilter::include(5)]);
    check(&heap, KeyType::Lineno, &[("main.rs:2", certain(77))]);
    let rules = Suppressions::parse("leak:leaf.rs\n").unwrap();
    let (rest, uses) = rules.filter(&snapshot);
    assert_eq!(rest.total_count(), main.total_count());
    // Each of the two stacks is rounded.
    assert!(uses[0].size.abs_diff(expected.figures().0) <= 1);
    assert!(uses[0].count.abs_diff(expected.figures().1) <= 1);
}

/// A snapshot of `n_blocks` of a size, from one line.
fn uniform(period: u64, size: u32, n_blocks: usize) -> Snapshot {
    let mut builder = SnapshotBuilder::new(1);
    builder.set_sample_period(NonZeroU64::new(period));
    let frame = builder.frame(Frame::new("a.rs", 1));
    let stack = builder.stack(&[frame], None);
    builder.trace_columns(0, vec![size; n_blocks], vec![stack; n_blocks]);
    builder.finish()
}

#[test]
fn snapshots_of_any_periods_are_compared_each_by_its_own() {
    for (new_period, old_period) in [(4096, 65_536), (4096, 4096), (1, 4096), (4096, 0)] {
        let (new, old) = (uniform(new_period, 100, 50), uniform(old_period, 200, 20));
        let diff = &new.compare_to(&old, KeyType::Lineno)[0];
        let new = sampled_every(100, new_period).times(50.0);
        let old = sampled_every(200, old_period).times(20.0);
        // Blocks are sampled one by one.
        let sum = |of: Expected, n: f64| Expected([of.0[0], of.0[1], of.0[2] / n, of.0[3] / n]);
        let (new, old) = (sum(new, 50.0), sum(old, 20.0));
        assert_eq!((diff.size, diff.count), new.figures());
        let (size, count) = old.figures();
        assert_eq!(diff.size_diff, diff.size as i64 - size as i64);
        assert_eq!(diff.count_diff, diff.count as i64 - count as i64);
        assert_eq!(diff.error, new.error(), "{new_period} {old_period}");
        assert_eq!(diff.diff_error, new.and(old).error(), "{new_period} {old_period}");
    }
}

#[test]
fn a_period_of_one_byte_or_none_is_exact() {
    for period in [0, 1] {
        let snapshot = uniform(period, 100, 50);
        assert_eq!(snapshot.sample_period(), None);
        let statistic = &snapshot.statistics(KeyType::Lineno)[0];
        assert_eq!((statistic.size, statistic.count, statistic.error), (5000, 50, None));
        assert_eq!((snapshot.total_count(), snapshot.total_error()), (50, None));
        let diff = &snapshot.compare_to(&snapshot, KeyType::Lineno)[0];
        assert_eq!((diff.error, diff.diff_error), (None, None));
    }
}

#[test]
fn reports_say_that_figures_are_estimates() {
    let (new, old) = (uniform(4096, 100, 50), uniform(4096, 100, 20));
    let note = "note: sampled, one block in 4096 B: figures are estimates, and ± is half the width of \
                their 95 % intervals\n";
    assert_eq!(
        Report::of(&new, KeyType::Lineno).to_string(),
        format!(
            "≈202.45 ±55.44 total KiB, ≈2073 ±568 total blocks\n  File \"a.rs\", line 1\n\n{note}"
        )
    );
    assert_eq!(
        Report::growth(&new, &old, KeyType::Lineno).to_string(),
        format!(
            "≈121.47 ±65.59 new KiB, ≈202.45 ±55.44 total KiB, ≈1244 ±672 new blocks, ≈2073 ±568 total \
             blocks\n  File \"a.rs\", line 1\n\n{note}"
        )
    );
    assert!(Report::growth(&uniform(0, 1, 1), &old, KeyType::Lineno).to_string().ends_with(note));
}

#[test]
fn a_leak_is_found_among_samples_and_told_with_estimates() {
    let snapshots: Vec<_> = (1..6).map(|n| uniform(4096, 1000, 100 * n)).collect();
    let findings = LeakSearch::new(KeyType::Lineno).run(&snapshots).unwrap();
    let leak = &findings.verdicts[0];
    assert!(leak.verdict == Verdict::Leak && leak.is_estimate);
    assert_eq!(leak.size(), snapshots[4].total_size());
    assert!(leak.to_string().contains(": size≈2254 KiB (+1803 KiB), count≈2308 (+1846), grew"));
}
