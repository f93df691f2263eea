//! Statistics and differences as JSON.
//!
//! One object, on one line, with a line end. All sizes are bytes as requested. Fields may be
//! added to a shape; when one changes its meaning or goes, the number in `schema` grows.
//!
//! [`write_statistics`] writes
//!
//! ```json
//! {
//!   "schema": "memtrace.statistics/1",
//!   "group_by": "lineno",
//!   "n_groups": 17,
//!   "groups": [
//!     {
//!       "size": 2048,
//!       "count": 3,
//!       "frames": [
//!         { "filename": "src/cache.rs", "lineno": 42, "function": "app::cache::insert" }
//!       ]
//!     }
//!   ]
//! }
//! ```
//!
//! and [`write_diffs`] the same with `"memtrace.diff/1"` and in each group also `size_diff` and
//! `count_diff`.
//!
//! If the snapshot is [sampled](memtrace_core::Snapshot::sample_period), `sample_period` beside `schema`
//! is its period in bytes; in a comparison `old_sample_period` is that of the older one. Figures are
//! estimates then, and each group also has `size_error` and `count_error`, in a comparison
//! `size_diff_error` and `count_diff_error` as well: halves of the widths of 95 % intervals.
//!
//! - `group_by` is the name of a key type, such as `filename` or `cumulative-lineno`.
//! - `n_groups` counts all groups; `groups` holds the first of them, largest first.
//! - `frames` stand oldest first. Grouped by `filename`, there is one with `lineno` 0; grouped by
//!   what is no place in the source, one whose `filename` is a name in angle brackets.
//! - In a frame, `filename` and `lineno` are always there. `function`, `module` (a path),
//!   `directory` and `missing` (why there is no source, as a sentence) are there if known, and `inlined` if true.

use std::io::{self, Write};
use std::num::NonZeroU64;

use memtrace_core::{Frame, KeyType, Statistic, StatisticDiff, Traceback};
use serde::{Serialize, Serializer};

/// The `schema` of [`write_statistics`].
pub const STATISTICS_SCHEMA: &str = "memtrace.statistics/1";

/// The `schema` of [`write_diffs`].
pub const DIFF_SCHEMA: &str = "memtrace.diff/1";

/// Writes the first `top` of the statistics that were grouped by `key_type`, of a snapshot with this
/// [period](memtrace_core::Snapshot::sample_period).
///
/// **Errors.** If `w` fails.
pub fn write_statistics(
    w: &mut impl Write,
    statistics: &[Statistic],
    key_type: KeyType,
    top: usize,
    sample_period: Option<NonZeroU64>,
) -> io::Result<()> {
    let groups = statistics.iter().take(top).map(|statistic| Group {
        size: statistic.size,
        size_error: statistic.error.map(|error| error.size),
        size_diff: None,
        size_diff_error: None,
        count: statistic.count,
        count_error: statistic.error.map(|error| error.count),
        count_diff: None,
        count_diff_error: None,
        frames: Frames(&statistic.traceback),
    });
    write_document(
        w,
        Document {
            schema: STATISTICS_SCHEMA,
            sample_period,
            old_sample_period: None,
            group_by: key_type.name(),
            n_groups: statistics.len(),
            groups: groups.collect(),
        },
    )
}

/// Writes the first `top` of the differences that were grouped by `key_type`, of snapshots with these
/// [periods](memtrace_core::Snapshot::sample_period), that of the newer one first.
///
/// **Errors.** If `w` fails.
pub fn write_diffs(
    w: &mut impl Write,
    diffs: &[StatisticDiff],
    key_type: KeyType,
    top: usize,
    [sample_period, old_sample_period]: [Option<NonZeroU64>; 2],
) -> io::Result<()> {
    let groups = diffs.iter().take(top).map(|diff| Group {
        size: diff.size,
        size_error: diff.error.map(|error| error.size),
        size_diff: Some(diff.size_diff),
        size_diff_error: diff.diff_error.map(|error| error.size),
        count: diff.count,
        count_error: diff.error.map(|error| error.count),
        count_diff: Some(diff.count_diff),
        count_diff_error: diff.diff_error.map(|error| error.count),
        frames: Frames(&diff.traceback),
    });
    write_document(
        w,
        Document {
            schema: DIFF_SCHEMA,
            sample_period,
            old_sample_period,
            group_by: key_type.name(),
            n_groups: diffs.len(),
            groups: groups.collect(),
        },
    )
}

fn write_document(w: &mut impl Write, document: Document<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *w, &document)?;
    writeln!(w)?;
    w.flush()
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_period: Option<NonZeroU64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_sample_period: Option<NonZeroU64>,
    group_by: &'static str,
    n_groups: usize,
    groups: Vec<Group<'a>>,
}

#[derive(Serialize)]
struct Group<'a> {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_error: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_diff: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_diff_error: Option<u64>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_error: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_diff: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_diff_error: Option<u64>,
    frames: Frames<'a>,
}

struct Frames<'a>(&'a Traceback);

impl Serialize for Frames<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(FrameFields::new))
    }
}

#[derive(Serialize)]
struct FrameFields<'a> {
    filename: &'a str,
    lineno: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inlined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

impl<'a> FrameFields<'a> {
    fn new(frame: &'a Frame) -> Self {
        Self {
            filename: &frame.filename,
            lineno: frame.lineno,
            function: frame.function.as_deref(),
            module: frame.module.as_ref().map(|module| &*module.path),
            directory: frame.directory.as_deref(),
            inlined: frame.is_inlined,
            missing: frame.missing.map(|reason| reason.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use memtrace_core::{MissingSource, Module, SamplingError};
    use serde_json::{Value, json};

    use super::*;

    fn at(filename: &str) -> Traceback {
        Traceback::new([Frame::new(filename, 1)])
    }

    #[test]
    fn statistics_have_their_documented_shape() {
        let full = Frame::new("<a::\"f\">", 0)
            .with_function("a::\"f\"")
            .with_module(Module::new("/bin/a"))
            .with_directory("/src")
            .with_inlined(true)
            .with_missing(MissingSource::NoDebugInfo);
        let traceback = Traceback::new([Frame::new("src/main.rs", 1), full]);
        let statistics = [
            Statistic { traceback, size: u64::MAX, count: 3, error: None },
            Statistic { traceback: at("b"), size: 1, count: 1, error: None },
        ];
        let mut bytes = Vec::new();
        write_statistics(&mut bytes, &statistics, KeyType::Traceback, 1, None).unwrap();
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert_eq!(bytes.last(), Some(&b'\n'));
        let found: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            found,
            json!({
                "schema": "memtrace.statistics/1",
                "group_by": "traceback",
                "n_groups": 2,
                "groups": [{
                    "size": u64::MAX,
                    "count": 3,
                    "frames": [
                        { "filename": "src/main.rs", "lineno": 1 },
                        {
                            "filename": "<a::\"f\">",
                            "lineno": 0,
                            "function": "a::\"f\"",
                            "module": "/bin/a",
                            "directory": "/src",
                            "inlined": true,
                            "missing": MissingSource::NoDebugInfo.to_string(),
                        },
                    ],
                }],
            })
        );
    }

    #[test]
    fn differences_also_have_signed_figures() {
        let diff = StatisticDiff {
            traceback: at("a"),
            size: 1,
            size_diff: -7,
            count: 2,
            count_diff: 0,
            error: None,
            diff_error: None,
        };
        let mut bytes = Vec::new();
        write_diffs(&mut bytes, &[diff], KeyType::CumulativeLineno, 10, [None; 2]).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"schema\":\"memtrace.diff/1\",\"group_by\":\"cumulative-lineno\",\
             \"n_groups\":1,\"groups\":[{\"size\":1,\"size_diff\":-7,\"count\":2,\
             \"count_diff\":0,\"frames\":[{\"filename\":\"a\",\"lineno\":1}]}]}\n"
        );
    }

    #[test]
    fn estimates_have_their_errors_and_samples_their_period() {
        let error = Some(SamplingError::new(50, 3));
        let statistic = Statistic { traceback: at("a"), size: 100, count: 7, error };
        let mut bytes = Vec::new();
        let period = NonZeroU64::new(4096);
        write_statistics(&mut bytes, &[statistic], KeyType::Lineno, 1, period).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"schema\":\"memtrace.statistics/1\",\"sample_period\":4096,\"group_by\":\"lineno\",\
             \"n_groups\":1,\"groups\":[{\"size\":100,\"size_error\":50,\"count\":7,\"count_error\":3,\
             \"frames\":[{\"filename\":\"a\",\"lineno\":1}]}]}\n"
        );
        let diff = StatisticDiff {
            traceback: at("a"),
            size: 100,
            size_diff: 40,
            count: 7,
            count_diff: -2,
            error,
            diff_error: Some(SamplingError::new(60, 4)),
        };
        let mut bytes = Vec::new();
        write_diffs(&mut bytes, &[diff], KeyType::Lineno, 1, [None, period]).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"schema\":\"memtrace.diff/1\",\"old_sample_period\":4096,\"group_by\":\"lineno\",\
             \"n_groups\":1,\"groups\":[{\"size\":100,\"size_error\":50,\"size_diff\":40,\
             \"size_diff_error\":60,\"count\":7,\"count_error\":3,\"count_diff\":-2,\
             \"count_diff_error\":4,\"frames\":[{\"filename\":\"a\",\"lineno\":1}]}]}\n"
        );
    }

    #[test]
    fn a_failing_writer_is_reported_with_its_own_kind() {
        let mut full = io::Cursor::new([0_u8; 4]);
        let error = write_diffs(&mut full, &[], KeyType::Lineno, 1, [None; 2]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
