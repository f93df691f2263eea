//! What one group of traces amounts to, and how two such sums differ.

use std::fmt;

use crate::size_text::format_average;
use crate::{Traceback, format_size, format_size_diff};

/// The live memory of one group of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistic {
    /// What the traces of the group have in common.
    pub traceback: Traceback,
    /// The sum of their sizes in bytes.
    pub size: u64,
    /// The number of traces.
    pub count: u64,
}

impl Statistic {
    /// The text that Python's `repr` gives: `<Statistic traceback=… size=1 count=1>`.
    pub fn python_repr(&self) -> String {
        let traceback = self.traceback.python_repr();
        format!("<Statistic traceback={traceback} size={} count={}>", self.size, self.count)
    }
}

/// Writes `filename:lineno: size=S, count=C, average=A`; no average for an empty group.
impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: size={}, count={}", self.traceback, format_size(self.size), self.count)?;
        write_average(f, self.size, self.count)
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
}

impl StatisticDiff {
    pub(crate) fn new(traceback: Traceback, new: (u64, u64), old: (u64, u64)) -> Self {
        Self {
            traceback,
            size: new.0,
            size_diff: signed_diff(new.0, old.0),
            count: new.1,
            count_diff: signed_diff(new.1, old.1),
        }
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
impl fmt::Display for StatisticDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: size={} ({}), count={} ({:+})",
            self.traceback,
            format_size(self.size),
            format_size_diff(self.size_diff),
            self.count,
            self.count_diff
        )?;
        write_average(f, self.size, self.count)
    }
}

fn write_average(f: &mut fmt::Formatter<'_>, size: u64, count: u64) -> fmt::Result {
    if count == 0 {
        return Ok(());
    }
    write!(f, ", average={}", format_average(size, count))
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
        let half = Statistic { traceback: at("a"), size: 3, count: 2 };
        assert_eq!(half.to_string(), "a:1: size=3 B, count=2, average=2 B");
    }
}
