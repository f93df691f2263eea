//! Reads the report as its user would: the first row names the leak.
//!
//! What is expected is read from the source of the cache, not from anything that the program
//! measured, so that the check can fail.

use std::error::Error;
use std::fmt;

/// The source with the leak in it.
const CACHE_SOURCE: &str = include_str!("cache.rs");

/// Where that source lies, as the end of the name that the compiler was given.
const CACHE_FILE: &str = "leaky_service/cache.rs";

/// The code on the line that keeps every page.
const LEAK: &str = "pages.insert(";

/// One row of the report.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    n_new_blocks: i64,
    total_kib: f64,
    n_total_blocks: u64,
    file: String,
    line: usize,
}

/// Checks that the report's first row is the line in the cache that leaks and that it has grown,
/// and returns it.
///
/// **Errors.** If the report cannot be read, or if its first row is any other line, the message
/// then names both, or if that line has not grown.
pub(crate) fn judge(body: &str) -> Result<Row, Box<dyn Error>> {
    let row = Row::first_of(body).ok_or("the report has no row that can be read")?;
    let expected_line = leak_line()?;
    if !row.file.ends_with(CACHE_FILE) || row.line != expected_line {
        let Row { file, line, .. } = row;
        return Err(format!(
            "the first row should be {CACHE_FILE}:{expected_line}, but it is {file}:{line}"
        )
        .into());
    }
    if row.n_new_blocks <= 0 {
        return Err(format!("{CACHE_FILE}:{expected_line} has not grown").into());
    }
    Ok(row)
}

/// The number, from 1, of the one line in the cache's source that leaks.
fn leak_line() -> Result<usize, String> {
    let lines: Vec<usize> = CACHE_SOURCE
        .lines()
        .zip(1..)
        .filter(|(text, _)| text.contains(LEAK))
        .map(|(_, number)| number)
        .collect();
    match lines.as_slice() {
        [line] => Ok(*line),
        _ => Err(format!("{CACHE_FILE} has {} lines with {LEAK:?}, not 1", lines.len())),
    }
}

impl Row {
    /// Reads the row at the head of a report:
    ///
    /// ```text
    /// 120.50 new KiB, 264.03 total KiB, 90 new blocks, 180 total blocks
    ///   File "src/cache.rs", line 42
    /// ```
    fn first_of(body: &str) -> Option<Row> {
        let mut lines = body.lines();
        let mut figures = lines.next()?.split(", ");
        let _new_kib = figures.next()?.strip_suffix(" new KiB")?;
        let total_kib = figures.next()?.strip_suffix(" total KiB")?.parse().ok()?;
        let n_new_blocks = figures.next()?.strip_suffix(" new blocks")?.parse().ok()?;
        let n_total_blocks = figures.next()?.strip_suffix(" total blocks")?.parse().ok()?;
        let frame = lines.next()?.strip_prefix("  File \"")?;
        let (file, line) = frame.rsplit_once("\", line ")?;
        let (file, line) = (file.to_owned(), line.parse().ok()?);
        Some(Row { n_new_blocks, total_kib, n_total_blocks, file, line })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { total_kib, n_total_blocks, file, line, .. } = self;
        let total_mib = total_kib / 1024.0;
        write!(
            f,
            "leak: {file}:{line} holds {total_mib:.1} MiB in {n_total_blocks} blocks that nothing \
             will free"
        )
    }
}
