//! The largest groups as text: a line of figures, the formatted traceback, an empty line.
//!
//! ```text
//! 0.00 new KiB, 264.03 total KiB, 0 new blocks, 18 total blocks
//!   File "src/cache.rs", line 42
//!     self.map.insert(key, value);
//!
//! ```
//!
//! Figures are KiB with two decimals, 1 KiB being 1024 bytes. Estimates, of sampled snapshots, read
//! `≈0.00 ±12.50 new KiB`, the second number being their [error](crate::SamplingError). A [`Report`] is the whole text for one
//! snapshot or two; [`write_top`] and [`write_top_statistics`] write rows that are at hand.

use std::fmt::{self, Write};
use std::num::NonZeroU64;

use crate::{KeyType, Snapshot, SourceCache, Statistic, StatisticDiff, Traceback, format_size};

/// What holds memory, or what has grown, as text: the largest groups and, if files and lines are
/// missing in them, one line on how to get those.
///
/// ```
/// use memtrace_core::{Frame, KeyType, MissingSource, Snapshot, Trace, Traceback, report::Report};
///
/// let frame = Frame::new("<app::cache::insert>", 0).with_missing(MissingSource::NoDebugInfo);
/// let trace = Trace { domain: 0, size: 2048, traceback: Traceback::new([frame]) };
/// let snapshot = Snapshot::from_traces([trace], 25);
/// assert_eq!(
///     Report::of(&snapshot, KeyType::Lineno).top(5).to_string(),
///     "2.00 total KiB, 1 total blocks\n  File \"<app::cache::insert>\", line 0\n\n\
///      note: built without line tables: set `debug = \"line-tables-only\"` in the Cargo profile \
///      to see files and lines\n"
/// );
/// ```
///
/// **Cost.** Making it groups the traces, like [`Snapshot::statistics`] or
/// [`Snapshot::compare_to`]; each time it is written, the source files it names are read anew.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    snapshot: &'a Snapshot,
    /// Of the older snapshot, if there are two.
    old_period: Option<NonZeroU64>,
    rows: Rows,
    top: usize,
}

#[derive(Clone, Debug)]
enum Rows {
    Held(Vec<Statistic>),
    Grown(Vec<StatisticDiff>),
}

impl<'a> Report<'a> {
    /// Reports what holds memory: the groups of a snapshot, largest first.
    pub fn of(snapshot: &'a Snapshot, key_type: KeyType) -> Self {
        Self::new(snapshot, Rows::Held(snapshot.statistics(key_type)))
    }

    /// Reports what has changed from the `old` snapshot to the `new` one, the largest difference
    /// first.
    pub fn growth(new: &'a Snapshot, old: &Snapshot, key_type: KeyType) -> Self {
        let rows = Rows::Grown(new.compare_to(old, key_type));
        Self { old_period: old.sample_period(), ..Self::new(new, rows) }
    }

    fn new(snapshot: &'a Snapshot, rows: Rows) -> Self {
        Self { snapshot, old_period: None, rows, top: 10 }
    }

    /// Sets how many groups are written at most; 10 unless told.
    #[must_use]
    pub fn top(mut self, n_groups: usize) -> Self {
        self.top = n_groups;
        self
    }

    /// Whether there is no group at all.
    pub fn is_empty(&self) -> bool {
        match &self.rows {
            Rows::Held(statistics) => statistics.is_empty(),
            Rows::Grown(diffs) => diffs.is_empty(),
        }
    }
}

/// Writes the rows, then `note: …` if a snapshot is sampled, and if it has a
/// [`Snapshot::missing_source`].
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A cache that lives no longer than the text: the sources may be edited meanwhile.
        let sources = SourceCache::new();
        match &self.rows {
            Rows::Held(statistics) => write_top_statistics(f, statistics, self.top, &sources)?,
            Rows::Grown(diffs) => write_top(f, diffs, self.top, &sources)?,
        }
        if let Some(period) = self.snapshot.sample_period().or(self.old_period) {
            writeln!(f, "note: {}", SamplingNote(period))?;
        }
        match self.snapshot.missing_source() {
            Some(missing) => writeln!(f, "note: {missing}"),
            None => Ok(()),
        }
    }
}

/// What is to be said of figures that were sampled with this period, in one sentence.
///
/// ```
/// let period = std::num::NonZeroU64::new(512 * 1024).unwrap();
/// assert_eq!(
///     memtrace_core::report::SamplingNote(period).to_string(),
///     "sampled, one block in 512 KiB: figures are estimates, and ± is half the width of their 95 % \
///      intervals"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SamplingNote(pub NonZeroU64);

impl fmt::Display for SamplingNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sampled, one block in {}: figures are estimates, and ± is half the width of their 95 % \
             intervals",
            format_size(self.0.get())
        )
    }
}

/// Writes the first `top` differences.
///
/// **Errors.** If `w` fails.
pub fn write_top(
    w: &mut impl Write,
    diffs: &[StatisticDiff],
    top: usize,
    sources: &SourceCache,
) -> fmt::Result {
    for diff in diffs.iter().take(top) {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let (new, total) = (diff.size_diff as f64 / 1024.0, kib(diff.size));
        let StatisticDiff { count_diff, count, .. } = diff;
        match (diff.diff_error, diff.error) {
            (Some(of_new), Some(of_total)) => writeln!(
                w,
                "≈{new:.2} ±{:.2} new KiB, ≈{total:.2} ±{:.2} total KiB, ≈{count_diff} ±{} new blocks, \
                 ≈{count} ±{} total blocks",
                kib(of_new.size),
                kib(of_total.size),
                of_new.count,
                of_total.count
            )?,
            _ => writeln!(
                w,
                "{new:.2} new KiB, {total:.2} total KiB, {count_diff} new blocks, {count} total blocks"
            )?,
        }
        write_traceback(w, &diff.traceback, sources)?;
    }
    Ok(())
}

/// Writes the first `top` statistics.
///
/// **Errors.** If `w` fails.
pub fn write_top_statistics(
    w: &mut impl Write,
    statistics: &[Statistic],
    top: usize,
    sources: &SourceCache,
) -> fmt::Result {
    for statistic in statistics.iter().take(top) {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        let (total, count) = (kib(statistic.size), statistic.count);
        match statistic.error {
            None => writeln!(w, "{total:.2} total KiB, {count} total blocks")?,
            Some(error) => writeln!(
                w,
                "≈{total:.2} ±{:.2} total KiB, ≈{count} ±{} total blocks",
                kib(error.size),
                error.count
            )?,
        }
        write_traceback(w, &statistic.traceback, sources)?;
    }
    Ok(())
}

fn write_traceback(
    w: &mut impl Write,
    traceback: &Traceback,
    sources: &SourceCache,
) -> fmt::Result {
    for line in traceback.format(None, false, sources) {
        writeln!(w, "{line}")?;
    }
    writeln!(w)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, MissingSource, Trace};

    #[test]
    fn only_the_first_groups_are_written() {
        let at = |filename| Traceback::new([Frame::new(filename, 42)]);
        let statistics = [
            Statistic { traceback: at("src/a.rs"), size: 270_367, count: 18, error: None },
            Statistic { traceback: at("src/b.rs"), size: 1, count: 1, error: None },
        ];
        let mut sources = SourceCache::without_files();
        sources.insert("src/a.rs", format!("{}  push(x);\n", "\n".repeat(41)));
        let mut text = String::new();
        write_top_statistics(&mut text, &statistics, 1, &sources).unwrap();
        assert_eq!(
            text,
            "264.03 total KiB, 18 total blocks\n  File \"src/a.rs\", line 42\n    push(x);\n\n"
        );
    }

    #[test]
    fn a_loss_has_a_sign() {
        let traceback = Traceback::new([Frame::new("a", 1)]);
        let diff =
            StatisticDiff { size_diff: -1, ..StatisticDiff::new(traceback, (512, 2), (0, 5)) };
        let mut text = String::new();
        write_top(&mut text, &[diff], 9, &SourceCache::without_files()).unwrap();
        assert_eq!(
            text,
            "-0.00 new KiB, 0.50 total KiB, -3 new blocks, 2 total blocks\n  File \"a\", line 1\n\n"
        );
    }
    /// A snapshot of one block for each size, each in a file of its own.
    fn snapshot(sizes: &[u64], missing: Option<MissingSource>) -> Snapshot {
        let trace = |(index, &size): (usize, &u64)| {
            let mut frame = Frame::new(format!("no-such-folder/{index}.rs"), 1);
            frame.missing = missing;
            Trace { domain: 0, size, traceback: Traceback::new([frame]) }
        };
        Snapshot::from_traces(sizes.iter().enumerate().map(trace), 1)
    }

    #[test]
    fn a_report_of_known_places_is_its_rows_alone() {
        let snapshot = snapshot(&[1024, 4096, 2048], None);
        let report = Report::of(&snapshot, KeyType::Lineno).top(2);
        assert!(!report.is_empty());
        assert_eq!(
            report.to_string(),
            "4.00 total KiB, 1 total blocks\n  File \"no-such-folder/1.rs\", line 1\n\n\
             2.00 total KiB, 1 total blocks\n  File \"no-such-folder/2.rs\", line 1\n\n"
        );
    }

    #[test]
    fn growth_is_what_the_new_snapshot_has_more() {
        let old = snapshot(&[1024, 1024], None);
        let new = snapshot(&[1024, 3072], None);
        assert_eq!(
            Report::growth(&new, &old, KeyType::Filename).top(1).to_string(),
            "2.00 new KiB, 3.00 total KiB, 0 new blocks, 1 total blocks\n  \
             File \"no-such-folder/1.rs\", line 0\n\n"
        );
    }

    #[test]
    fn missing_places_are_noted_in_one_line_after_the_rows() {
        let new = snapshot(&[1024], Some(MissingSource::NoDebugInfo));
        let old = snapshot(&[], None);
        let note = format!("\n\nnote: {}\n", MissingSource::NoDebugInfo);
        for report in [
            Report::of(&new, KeyType::Lineno),
            Report::growth(&new, &old, KeyType::Traceback),
            Report::of(&new, KeyType::Lineno).top(0),
        ] {
            let n_rows = report.top.min(1);
            let text = report.to_string();
            let expected = if n_rows == 0 { &note[2..] } else { &note[..] };
            assert!(text.ends_with(expected), "{text}");
            assert_eq!(text.matches("note: ").count(), 1, "{text}");
        }
    }

    #[test]
    fn an_empty_snapshot_makes_an_empty_text() {
        let empty = snapshot(&[], None);
        let report = Report::of(&empty, KeyType::Lineno);
        assert!(report.is_empty());
        assert_eq!(report.to_string(), "");
        assert!(Report::growth(&empty, &empty, KeyType::Lineno).is_empty());
        assert!(!Report::growth(&empty, &snapshot(&[1], None), KeyType::Lineno).is_empty());
    }
}
