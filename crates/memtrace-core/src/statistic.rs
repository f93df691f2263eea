//! What one group of traces amounts to, and how two such sums differ.

use std::fmt;
use std::ops::RangeInclusive;

use crate::size_text::format_average;
use crate::{SamplingError, Traceback, format_size, format_size_diff};

/// The live memory of one group of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// What the traces of the group have in common.
    pub traceback: Traceback,
    /// The sum of their sizes in bytes; of a sampled snapshot, an estimate for all blocks of the group.
    pub size: u64,
    /// The number of traces; of a sampled snapshot, an estimate of the number of blocks.
    pub count: u64,
    /// How far these two may be off; `None` if they are exact.
    pub error: Option<SamplingError>,
}

impl Statistic {
    /// The text that Python's `repr` gives: `<Statistic traceback=… size=1 count=1>`.
    pub fn python_repr(&self) -> String {
        let traceback = self.traceback.python_repr();
        format!("<Statistic traceback={traceback} size={} count={}>", self.size, self.count)
    }

    /// The interval of the size in bytes; see [`SamplingError`]. Exact figures have themselves.
    pub fn size_interval(&self) -> RangeInclusive<u64> {
        around(self.size, self.error.map_or(0, |error| error.size))
    }

    /// The interval of the count; see [`SamplingError`]. Exact figures have themselves.
    pub fn count_interval(&self) -> RangeInclusive<u64> {
        around(self.count, self.error.map_or(0, |error| error.count))
    }
}

/// Writes `filename:lineno: size=S, count=C, average=A`; no average for an empty group. Estimates are
/// written `size≈S (±E), count≈C (±e), average≈A`.
impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { traceback, size, count, error } = self;
        match error {
            None => write!(f, "{traceback}: size={}, count={count}", format_size(*size))?,
            Some(error) => write!(
                f,
                "{traceback}: size≈{} (±{}), count≈{count} (±{})",
                format_size(*size),
                format_size(error.size),
                error.count
            )?,
        }
        write_average(f, self.size, self.count, self.error.is_some())
    }
}

/// How the live memory of one group of traces differs between two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatisticDiff {
    /// What the traces of the group have in common.
    pub traceback: Traceback,
    /// The sum of their sizes in bytes in the new snapshot.
    pub size: u64,
    /// By how many bytes that is more than in the old one.
    pub size_diff: i64,
    /// The number of traces in the new snapshot.
    pub count: u64,
    /// By how many that is more than in the old one.
    pub count_diff: i64,
    /// How far `size` and `count` may be off; `None` if neither snapshot is sampled.
    pub error: Option<SamplingError>,
    /// How far `size_diff` and `count_diff` may be off at most; `None` if neither snapshot is sampled.
    ///
    /// It is that of two independent snapshots: the variances of both, added up. A block that is in both
    /// adds as much to the one as to the other, and nothing to the difference; but snapshots do not tell
    /// which blocks these are. So what has stayed makes this wider than it had to be, and it is as wide as
    /// it should be where everything was replaced in between.
    pub diff_error: Option<SamplingError>,
}

impl StatisticDiff {
    pub(crate) fn new(traceback: Traceback, new: (u64, u64), old: (u64, u64)) -> Self {
        Self {
            traceback,
            size: new.0,
            size_diff: signed_diff(new.0, old.0),
            count: new.1,
            count_diff: signed_diff(new.1, old.1),
            error: None,
            diff_error: None,
        }
    }

    /// The same with the errors of the figures and of the differences.
    pub(crate) fn with_errors(
        self,
        (error, diff_error): (Option<SamplingError>, Option<SamplingError>),
    ) -> Self {
        Self { error, diff_error, ..self }
    }

    /// The interval of the size in bytes; see [`SamplingError`]. Exact figures have themselves.
    pub fn size_interval(&self) -> RangeInclusive<u64> {
        around(self.size, self.error.map_or(0, |error| error.size))
    }

    /// The interval of the count; see [`SamplingError`]. Exact figures have themselves.
    pub fn count_interval(&self) -> RangeInclusive<u64> {
        around(self.count, self.error.map_or(0, |error| error.count))
    }

    /// The interval of the difference of sizes in bytes, as wide as
    /// [`diff_error`](StatisticDiff::diff_error) says.
    pub fn size_diff_interval(&self) -> RangeInclusive<i64> {
        around_diff(self.size_diff, self.diff_error.map_or(0, |error| error.size))
    }

    /// The interval of the difference of counts, as wide as
    /// [`diff_error`](StatisticDiff::diff_error) says.
    pub fn count_diff_interval(&self) -> RangeInclusive<i64> {
        around_diff(self.count_diff, self.diff_error.map_or(0, |error| error.count))
    }

    /// The text that Python's `repr` gives:
    /// `<StatisticDiff traceback=… size=1 (+1) count=1 (+1)>`.
    pub fn python_repr(&self) -> String {
        format!(
            "<StatisticDiff traceback={} size={} ({:+}) count={} ({:+})>",
            self.traceback.python_repr(),
            self.size,
            self.size_diff,
            self.count,
            self.count_diff
        )
    }
}

/// Writes `filename:lineno: size=S (±D), count=C (±d), average=A`; no average for an empty group.
/// Estimates are written `size≈S (+D ±E), count≈C (+d ±e), average≈A`, with the errors of the differences.
impl fmt::Display for StatisticDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, size_diff) = (format_size(self.size), format_size_diff(self.size_diff));
        let Self { traceback, count, count_diff, .. } = self;
        match self.diff_error {
            None => {
                write!(
                    f,
                    "{traceback}: size={size} ({size_diff}), count={count} ({count_diff:+})"
                )?;
            }
            Some(error) => write!(
                f,
                "{traceback}: size≈{size} ({size_diff} ±{}), count≈{count} ({count_diff:+} ±{})",
                format_size(error.size),
                error.count
            )?,
        }
        write_average(f, self.size, self.count, self.diff_error.is_some())
    }
}

fn write_average(
    f: &mut fmt::Formatter<'_>,
    size: u64,
    count: u64,
    is_estimate: bool,
) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    let sign = if is_estimate { '≈' } else { '=' };
    write!(f, ", average{sign}{}", format_average(size, count))
}

fn around(figure: u64, error: u64) -> RangeInclusive<u64> {
    figure.saturating_sub(error)..=figure.saturating_add(error)
}

fn around_diff(figure: i64, error: u64) -> RangeInclusive<i64> {
    figure.saturating_sub_unsigned(error)..=figure.saturating_add_unsigned(error)
}

/// `new - old`, saturating symmetrically so that swapping the two always flips the sign.
pub(crate) fn signed_diff(new: u64, old: u64) -> i64 {
    let magnitude = i64::try_from(new.abs_diff(old)).unwrap_or(i64::MAX);
    if new < old { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

    fn at(filename: &str) -> Traceback {
        Traceback::new([Frame::new(filename, 1)])
    }

    #[test]
    fn differences_saturate_symmetrically() {
        assert_eq!(signed_diff(5, 7), -2);
        assert_eq!(signed_diff(u64::MAX, 0), i64::MAX);
        assert_eq!(signed_diff(0, u64::MAX), -i64::MAX);
    }

    #[test]
    fn an_empty_group_has_no_average() {
        let gone = StatisticDiff::new(at("a"), (0, 0), (10_240, 1));
        assert_eq!(gone.to_string(), "a:1: size=0 B (-10.0 KiB), count=0 (-1)");
        let half = Statistic { traceback: at("a"), size: 3, count: 2, error: None };
        assert_eq!(half.to_string(), "a:1: size=3 B, count=2, average=2 B");
    }

    #[test]
    fn estimates_are_written_as_such_with_their_errors() {
        let error = Some(SamplingError::new(307_200, 57));
        let statistic = Statistic { traceback: at("a"), size: 1_258_291, count: 812, error };
        assert_eq!(
            statistic.to_string(),
            "a:1: size≈1229 KiB (±300 KiB), count≈812 (±57), average≈1550 B"
        );
        assert_eq!(statistic.size_interval(), 951_091..=1_565_491);
        assert_eq!(statistic.count_interval(), 755..=869);
        let diff = StatisticDiff::new(at("a"), (1024, 10), (3072, 30));
        let diff = diff.with_errors((Some(SamplingError::new(2048, 5)), error));
        assert_eq!(
            diff.to_string(),
            "a:1: size≈1024 B (-2048 B ±300 KiB), count≈10 (-20 ±57), average≈102 B"
        );
        assert_eq!(diff.size_interval(), 0..=3072);
        assert_eq!(diff.count_interval(), 5..=15);
        assert_eq!(diff.size_diff_interval(), -309_248..=305_152);
        assert_eq!(diff.count_diff_interval(), -77..=37);
    }
}
