//! Ledgers of a process's memory as JSON.
//!
//! One object, on one line, with a line end; see [`json`](crate::json) for what `schema` promises.
//! [`write_ledger`] writes
//!
//! ```json
//! {
//!   "schema": "memtrace.ledger/1",
//!   "resident_bytes": 104857600,
//!   "swapped_bytes": 0,
//!   "slack_bytes": 52428800,
//!   "lines": [
//!     { "kind": "live", "name": "live", "bytes": 41943040, "booked_bytes": 46137344 },
//!     { "kind": "free", "name": "free in pools", "bytes": 52428800 },
//!     { "kind": "other", "name": "C library: in use", "bytes": 3145728, "is_upper_bound": true },
//!     { "kind": "unaccounted", "name": "unaccounted", "bytes": 7340032 }
//!   ]
//! }
//! ```
//!
//! and [`write_ledger_diff`] `"memtrace.ledger-diff/1"`, with `resident_bytes_diff`, `slack_bytes_diff`,
//! and in each line `bytes_diff`.
//!
//! - All figures are bytes; the `bytes` of the lines sum to `resident_bytes`. Only the last line, what is
//!   unaccounted for, and differences can be negative.
//! - `kind` is the name of a [`LedgerKind`](memtrace_core::LedgerKind).
//! - `booked_bytes` and `swapped_bytes` are there if known, `is_upper_bound` if true.

use std::io::{self, Write};

use memtrace_core::{Ledger, LedgerDiff, LedgerLine, LedgerLineDiff};
use serde::Serialize;

/// The `schema` of [`write_ledger`].
pub const LEDGER_SCHEMA: &str = "memtrace.ledger/1";

/// The `schema` of [`write_ledger_diff`].
pub const LEDGER_DIFF_SCHEMA: &str = "memtrace.ledger-diff/1";

/// Writes a ledger.
///
/// **Errors.** If `w` fails.
pub fn write_ledger(w: &mut impl Write, ledger: &Ledger) -> io::Result<()> {
    let line = |line: &LedgerLine| Line {
        kind: line.kind.name(),
        name: line.name.to_string(),
        bytes: line.bytes,
        bytes_diff: None,
        booked_bytes: line.booked_bytes,
        is_upper_bound: line.is_upper_bound,
    };
    write_document(
        w,
        &Document {
            schema: LEDGER_SCHEMA,
            resident_bytes: ledger.resident_bytes(),
            resident_bytes_diff: None,
            swapped_bytes: ledger.swapped_bytes(),
            slack_bytes: Some(ledger.slack_bytes()),
            slack_bytes_diff: None,
            lines: ledger.lines().iter().map(line).collect(),
        },
    )
}

/// Writes what has changed from one ledger to another.
///
/// **Errors.** If `w` fails.
pub fn write_ledger_diff(w: &mut impl Write, diff: &LedgerDiff) -> io::Result<()> {
    let line = |line: &LedgerLineDiff| Line {
        kind: line.kind.name(),
        name: line.name.to_string(),
        bytes: line.bytes,
        bytes_diff: Some(line.bytes_diff),
        booked_bytes: None,
        is_upper_bound: false,
    };
    write_document(
        w,
        &Document {
            schema: LEDGER_DIFF_SCHEMA,
            resident_bytes: diff.resident_bytes(),
            resident_bytes_diff: Some(diff.resident_bytes_diff()),
            swapped_bytes: None,
            slack_bytes: None,
            slack_bytes_diff: Some(diff.slack_bytes_diff()),
            lines: diff.lines().iter().map(line).collect(),
        },
    )
}

fn write_document(w: &mut impl Write, document: &Document) -> io::Result<()> {
    serde_json::to_writer(&mut *w, document)?;
    writeln!(w)?;
    w.flush()
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    resident_bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes_diff: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swapped_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slack_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slack_bytes_diff: Option<i64>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    kind: &'static str,
    name: String,
    bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_diff: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    booked_bytes: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_upper_bound: bool,
}

#[cfg(test)]
mod tests {
    use memtrace_core::LedgerKind;

    use super::*;

    fn ledger(resident: u64, live: u64) -> Ledger {
        Ledger::new(resident)
            .line(LedgerLine::resident(LedgerKind::Live, "live", live).booked(50))
            .line(LedgerLine::at_most(LedgerKind::Free, "free \"in\" pools", 70))
    }

    #[test]
    fn a_ledger_has_its_documented_shape() {
        let mut bytes = Vec::new();
        write_ledger(&mut bytes, &ledger(100, 40).swapped(3)).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"schema\":\"memtrace.ledger/1\",\"resident_bytes\":100,\"swapped_bytes\":3,\
             \"slack_bytes\":70,\"lines\":[{\"kind\":\"live\",\"name\":\"live\",\"bytes\":40,\
             \"booked_bytes\":50},{\"kind\":\"free\",\"name\":\"free \\\"in\\\" pools\",\
             \"bytes\":70,\"is_upper_bound\":true},{\"kind\":\"unaccounted\",\
             \"name\":\"unaccounted\",\"bytes\":-10}]}\n"
        );
    }

    #[test]
    fn a_difference_has_signed_figures() {
        let mut bytes = Vec::new();
        write_ledger_diff(&mut bytes, &ledger(100, 20).compare_to(&ledger(90, 40))).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "{\"schema\":\"memtrace.ledger-diff/1\",\"resident_bytes\":100,\
             \"resident_bytes_diff\":10,\"slack_bytes_diff\":0,\"lines\":[{\"kind\":\"live\",\
             \"name\":\"live\",\"bytes\":20,\"bytes_diff\":-20},{\"kind\":\"free\",\
             \"name\":\"free \\\"in\\\" pools\",\"bytes\":70,\"bytes_diff\":0},\
             {\"kind\":\"unaccounted\",\"name\":\"unaccounted\",\"bytes\":10,\
             \"bytes_diff\":30}]}\n"
        );
    }

    #[test]
    fn a_failing_writer_is_reported_with_its_own_kind() {
        let mut full = io::Cursor::new([0_u8; 4]);
        let error = write_ledger(&mut full, &Ledger::new(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
