//! The largest groups as text: a line of figures, the formatted traceback, an empty line.
//!
//! ```text
//! 0.00 new KiB, 264.03 total KiB, 0 new blocks, 18 total blocks
//!   File "src/cache.rs", line 42
//!     self.map.insert(key, value);
//!
//! ```
//!
//! Figures are KiB with two decimals, 1 KiB being 1024 bytes.

use std::fmt::{self, Write};

use crate::{SourceCache, Statistic, StatisticDiff, Traceback};

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
        writeln!(
            w,
            "{:.2} new KiB, {:.2} total KiB, {} new blocks, {} total blocks",
            diff.size_diff as f64 / 1024.0,
            diff.size as f64 / 1024.0,
            diff.count_diff,
            diff.count
        )?;
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
        let kib = statistic.size as f64 / 1024.0;
        writeln!(w, "{kib:.2} total KiB, {} total blocks", statistic.count)?;
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
    use crate::Frame;

    #[test]
    fn only_the_first_groups_are_written() {
        let at = |filename| Traceback::new([Frame::new(filename, 42)]);
        let statistics = [
            Statistic { traceback: at("src/a.rs"), size: 270_367, count: 18 },
            Statistic { traceback: at("src/b.rs"), size: 1, count: 1 },
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
        let diff = StatisticDiff { traceback, size: 512, size_diff: -1, count: 2, count_diff: -3 };
        let mut text = String::new();
        write_top(&mut text, &[diff], 9, &SourceCache::without_files()).unwrap();
        assert_eq!(
            text,
            "-0.00 new KiB, 0.50 total KiB, -3 new blocks, 2 total blocks\n  File \"a\", line 1\n\n"
        );
    }
}
