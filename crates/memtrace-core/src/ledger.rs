//! Where the memory of a process is: live blocks, the allocator's slack, the tracer, everything else.
//!
//! A snapshot tells who holds what was asked for. It does not tell why a process takes a gigabyte of
//! memory when its blocks sum to half of that. A [`Ledger`] has a line for each part of the memory that
//! somebody can account for, and one more for the rest, so that the lines always sum to what the system
//! says is resident. A [`LedgerDiff`] tells two of them apart: a leak shows in the live blocks, a heap
//! that keeps half-empty pages in its free ones.
//!
//! # Invariants
//!
//! - **L1** The bytes of all lines of a ledger sum to its resident bytes, without overflow, whatever the
//!   figures were: the last line is the difference.

use std::borrow::Cow;
use std::fmt;

use crate::section::analysis;

/// What a line of a [`Ledger`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerKind {
    /// What the program asked for and has not given back.
    Live,
    /// What an allocator gave beyond that: rounding, headers.
    Rounding,
    /// Free blocks among those in use, which only blocks of a like size can take.
    Free,
    /// What an allocator keeps that serves nothing at the moment.
    Unused,
    /// An allocator's records.
    Records,
    /// Another allocator beside the program's: its blocks, and what it keeps.
    Other,
    /// The tracer's own memory.
    Tracer,
    /// Pages of files: code, constants, mapped files, memory shared with others.
    Files,
    /// The rest, with the sign of the difference.
    Unaccounted,
}

impl LedgerKind {
    /// All kinds, in the order in which a ledger is usually written.
    pub const ALL: [LedgerKind; 9] = [
        LedgerKind::Live,
        LedgerKind::Rounding,
        LedgerKind::Free,
        LedgerKind::Unused,
        LedgerKind::Records,
        LedgerKind::Other,
        LedgerKind::Tracer,
        LedgerKind::Files,
        LedgerKind::Unaccounted,
    ];

    /// Its name in files: lower case, words joined by hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            LedgerKind::Live => "live",
            LedgerKind::Rounding => "rounding",
            LedgerKind::Free => "free",
            LedgerKind::Unused => "unused",
            LedgerKind::Records => "records",
            LedgerKind::Other => "other",
            LedgerKind::Tracer => "tracer",
            LedgerKind::Files => "files",
            LedgerKind::Unaccounted => "unaccounted",
        }
    }

    /// Whether it is memory that an allocator holds beyond what the program asked for.
    pub const fn is_slack(self) -> bool {
        matches!(
            self,
            LedgerKind::Rounding | LedgerKind::Free | LedgerKind::Unused | LedgerKind::Records
        )
    }
}

/// One part of the resident memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerLine {
    /// What it stands for.
    pub kind: LedgerKind,
    /// Its name: lines of one kind and name are the same part in every ledger.
    pub name: Cow<'static, str>,
    /// Resident bytes. Only the line of what is unaccounted for can be negative.
    pub bytes: i64,
    /// What the books of an allocator say, in bytes of address space, where `bytes` are what the system
    /// found to be resident of it.
    pub booked_bytes: Option<u64>,
    /// Whether `bytes` are what somebody's books say, of which a part may not be resident.
    pub is_upper_bound: bool,
}

impl LedgerLine {
    /// A part of which `bytes` are resident.
    pub fn resident(kind: LedgerKind, name: impl Into<Cow<'static, str>>, bytes: u64) -> Self {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        Self { kind, name: name.into(), bytes, booked_bytes: None, is_upper_bound: false }
    }

    /// A part of which `bytes` are resident at most.
    pub fn at_most(kind: LedgerKind, name: impl Into<Cow<'static, str>>, bytes: u64) -> Self {
        Self { is_upper_bound: true, ..Self::resident(kind, name, bytes) }
    }

    /// Adds what the books say of the part.
    #[must_use]
    pub fn booked(mut self, bytes: u64) -> Self {
        self.booked_bytes = Some(bytes);
        self
    }

    fn is_same_part(&self, other: &LedgerLine) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    fn add(&mut self, other: &LedgerLine) {
        self.bytes += other.bytes;
        self.is_upper_bound |= other.is_upper_bound;
        if let Some(booked) = other.booked_bytes {
            self.booked_bytes = Some(self.booked_bytes.unwrap_or(0).saturating_add(booked));
        }
    }
}

/// The resident memory of a process, in lines that sum to it.
///
/// ```
/// use memtrace_core::{Ledger, LedgerKind, LedgerLine};
///
/// const MIB: u64 = 1 << 20;
/// let ledger = Ledger::new(100 * MIB)
///     .line(LedgerLine::resident(LedgerKind::Live, "live blocks", 40 * MIB).booked(44 * MIB))
///     .line(LedgerLine::resident(LedgerKind::Free, "free in pools", 50 * MIB))
///     .line(LedgerLine::at_most(LedgerKind::Other, "C library", 3 * MIB));
/// assert_eq!(ledger.lines().iter().map(|line| line.bytes).sum::<i64>(), ledger.resident_bytes());
/// assert_eq!(
///     ledger.to_string(),
///     "\
/// resident           100.00 MiB
///   live blocks       40.00 MiB   40.0 %  of 44.00 MiB in its books
///   free in pools     50.00 MiB   50.0 %
///   C library          3.00 MiB    3.0 %  at most
///   unaccounted        7.00 MiB    7.0 %
/// "
/// );
/// ```
///
/// Figures saturate at `i64::MAX` bytes, for all lines together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    resident_bytes: i64,
    swapped_bytes: Option<u64>,
    /// L1; never empty.
    lines: Vec<LedgerLine>,
}

/// The name of the line of what is unaccounted for.
const UNACCOUNTED: &str = "unaccounted";

impl Ledger {
    /// A ledger of so many resident bytes, all of which are unaccounted for.
    pub fn new(resident_bytes: u64) -> Self {
        let rest = LedgerLine::resident(LedgerKind::Unaccounted, UNACCOUNTED, resident_bytes);
        Self { resident_bytes: rest.bytes, swapped_bytes: None, lines: vec![rest] }
    }

    /// Adds a line, before that of what is unaccounted for, from which it is taken. One of the same kind
    /// and name as another is added to that; one that is itself unaccounted for changes nothing.
    #[must_use]
    pub fn line(mut self, mut line: LedgerLine) -> Self {
        if line.kind == LedgerKind::Unaccounted {
            return self;
        }
        let last = self.lines.len() - 1;
        // The others' sum stays at most i64::MAX, so that the last line's bytes are no less than
        // -i64::MAX.
        let sum: i64 = self.lines[..last].iter().map(|line| line.bytes).sum();
        line.bytes = line.bytes.clamp(0, i64::MAX - sum);
        self.lines[last].bytes = self.resident_bytes - (sum + line.bytes);
        match self.lines.iter_mut().find(|other| other.is_same_part(&line)) {
            Some(other) => other.add(&line),
            None => self.lines.insert(last, line),
        }
        self
    }

    /// Says how much of the process's memory is swapped out, which is in no line.
    #[must_use]
    pub fn swapped(mut self, bytes: u64) -> Self {
        self.swapped_bytes = Some(bytes);
        self
    }

    /// What the system says is resident, in bytes.
    pub fn resident_bytes(&self) -> i64 {
        self.resident_bytes
    }

    /// What is swapped out, in bytes, if the system tells.
    pub fn swapped_bytes(&self) -> Option<u64> {
        self.swapped_bytes
    }

    /// All lines, in the order in which they were added; last what is unaccounted for.
    pub fn lines(&self) -> &[LedgerLine] {
        &self.lines
    }

    /// The resident bytes of all lines of a kind.
    pub fn bytes_of(&self, kind: LedgerKind) -> i64 {
        self.sum(|line| line.kind == kind)
    }

    /// What allocators hold beyond what the program asked for, in resident bytes: see
    /// [`LedgerKind::is_slack`].
    pub fn slack_bytes(&self) -> i64 {
        self.sum(|line| line.kind.is_slack())
    }

    fn sum(&self, has_part: impl Fn(&LedgerLine) -> bool) -> i64 {
        self.lines.iter().filter(|line| has_part(line)).map(|line| line.bytes).sum()
    }

    /// Tells what has changed since an earlier ledger.
    ///
    /// Lines are compared by kind and name; one that is missing on either side counts as 0 there.
    pub fn compare_to(&self, earlier: &Ledger) -> LedgerDiff {
        analysis(|| self.compared_to(earlier))
    }

    fn compared_to(&self, earlier: &Ledger) -> LedgerDiff {
        let find = |lines: &[LedgerLine], wanted: &LedgerLine| {
            lines.iter().find(|line| line.is_same_part(wanted)).map(|line| line.bytes)
        };
        let diff = |line: &LedgerLine, bytes: i64, earlier_bytes: i64| LedgerLineDiff {
            kind: line.kind,
            name: line.name.clone(),
            bytes,
            bytes_diff: bytes.saturating_sub(earlier_bytes),
        };
        let gone = earlier.lines.iter().filter(|line| find(&self.lines, line).is_none());
        let gone = gone.map(|line| diff(line, 0, line.bytes));
        let lines = self.lines.iter().map(|line| {
            let earlier_bytes = find(&earlier.lines, line).unwrap_or(0);
            diff(line, line.bytes, earlier_bytes)
        });
        LedgerDiff {
            resident_bytes: self.resident_bytes,
            resident_bytes_diff: self.resident_bytes.saturating_sub(earlier.resident_bytes),
            lines: gone.chain(lines).collect(),
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = name_width(self.lines.iter().map(|line| &*line.name));
        let width = inner + 2;
        writeln!(f, "{:<width$} {:>13}", "resident", mib(self.resident_bytes as f64))?;
        for line in &self.lines {
            let share = match self.resident_bytes {
                0 => 0.0,
                resident => rounded(line.bytes as f64 / resident as f64 * 100.0, 10.0),
            };
            let (name, size) = (&line.name, mib(line.bytes as f64));
            write!(f, "  {name:<inner$} {size:>13}  {share:5.1} %")?;
            if line.is_upper_bound && line.bytes != 0 {
                write!(f, "  at most")?;
            }
            if let Some(booked) = line.booked_bytes
                && mib(booked as f64) != size
            {
                write!(f, "  of {} in its books", mib(booked as f64))?;
            }
            writeln!(f)?;
        }
        match self.swapped_bytes {
            Some(swapped) if swapped != 0 => {
                writeln!(f, "note: {} more are swapped out", mib(swapped as f64))
            }
            _ => Ok(()),
        }
    }
}

/// How the line of one part has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerLineDiff {
    /// What it stands for.
    pub kind: LedgerKind,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Resident bytes in the later ledger.
    pub bytes: i64,
    /// What they are more than in the earlier one.
    pub bytes_diff: i64,
}

/// What has changed from one [`Ledger`] to a later one.
///
/// The differences of its lines sum to that of the resident bytes, unless figures saturate.
///
/// ```
/// use memtrace_core::{Ledger, LedgerKind, LedgerLine};
///
/// const MIB: u64 = 1 << 20;
/// let ledger = |resident, live, free| {
///     Ledger::new(resident * MIB)
///         .line(LedgerLine::resident(LedgerKind::Live, "live blocks", live * MIB))
///         .line(LedgerLine::resident(LedgerKind::Free, "free in pools", free * MIB))
/// };
/// assert_eq!(
///     ledger(100, 30, 60).compare_to(&ledger(100, 85, 5)).to_string(),
///     "\
/// resident           100.00 MiB      +0.00 MiB
///   live blocks       30.00 MiB     -55.00 MiB
///   free in pools     60.00 MiB     +55.00 MiB
///   unaccounted       10.00 MiB      +0.00 MiB
/// live blocks -55.00 MiB, allocator's slack +55.00 MiB, everything else +0.00 MiB
/// "
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerDiff {
    resident_bytes: i64,
    resident_bytes_diff: i64,
    lines: Vec<LedgerLineDiff>,
}

impl LedgerDiff {
    /// What is resident in the later ledger, in bytes.
    pub fn resident_bytes(&self) -> i64 {
        self.resident_bytes
    }

    /// What that is more than in the earlier one.
    pub fn resident_bytes_diff(&self) -> i64 {
        self.resident_bytes_diff
    }

    /// Each line of either ledger; last what is unaccounted for.
    pub fn lines(&self) -> &[LedgerLineDiff] {
        &self.lines
    }

    /// How the lines of a kind have changed, in resident bytes.
    pub fn bytes_diff_of(&self, kind: LedgerKind) -> i64 {
        self.sum(|line| line.kind == kind)
    }

    /// How much more allocators hold beyond what the program asked for: see
    /// [`LedgerKind::is_slack`].
    pub fn slack_bytes_diff(&self) -> i64 {
        self.sum(|line| line.kind.is_slack())
    }

    fn sum(&self, has_part: impl Fn(&LedgerLineDiff) -> bool) -> i64 {
        let parts = self.lines.iter().filter(|line| has_part(line));
        parts.fold(0, |sum, line| sum.saturating_add(line.bytes_diff))
    }
}

/// Writes the lines, then one that tells live blocks, the allocator's slack and everything else apart.
impl fmt::Display for LedgerDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = name_width(self.lines.iter().map(|line| &*line.name));
        let width = inner + 2;
        let (size, diff) = (mib(self.resident_bytes as f64), mib_diff(self.resident_bytes_diff));
        writeln!(f, "{:<width$} {size:>13} {diff:>14}", "resident")?;
        for line in &self.lines {
            let (name, size) = (&line.name, mib(line.bytes as f64));
            let diff = mib_diff(line.bytes_diff);
            writeln!(f, "  {name:<inner$} {size:>13} {diff:>14}")?;
        }
        let (live, slack) = (self.bytes_diff_of(LedgerKind::Live), self.slack_bytes_diff());
        let rest = self.resident_bytes_diff.saturating_sub(live).saturating_sub(slack);
        let [live, slack, rest] = [live, slack, rest].map(mib_diff);
        writeln!(f, "live blocks {live}, allocator's slack {slack}, everything else {rest}")
    }
}

/// The columns of the names.
fn name_width<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

/// One unit for all lines, so that they can be added up by eye.
fn mib(bytes: f64) -> String {
    format!("{:.2} MiB", rounded(bytes / MIB, 100.0))
}

fn mib_diff(bytes: i64) -> String {
    format!("{:+.2} MiB", rounded(bytes as f64 / MIB, 100.0))
}

const MIB: f64 = 1024.0 * 1024.0;

/// `figure` as a multiple of `1 / n`; zero has no sign.
fn rounded(figure: f64, n: f64) -> f64 {
    (figure * n).round() / n + 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_books_have_beyond_the_resident_memory_is_a_negative_rest() {
        let ledger = Ledger::new(10 << 20)
            .line(LedgerLine::at_most(LedgerKind::Live, "live blocks", 12 << 20))
            .swapped(3 << 20);
        assert_eq!(ledger.bytes_of(LedgerKind::Unaccounted), -(2 << 20));
        assert_eq!(
            ledger.to_string(),
            "\
resident          10.00 MiB
  live blocks     12.00 MiB  120.0 %  at most
  unaccounted     -2.00 MiB  -20.0 %
note: 3.00 MiB more are swapped out
"
        );
    }

    #[test]
    fn a_line_that_is_missing_on_a_side_counts_as_nothing_there() {
        let one = Ledger::new(100).line(LedgerLine::resident(LedgerKind::Tracer, "tracer", 60));
        let other = Ledger::new(90).line(LedgerLine::resident(LedgerKind::Other, "device", 30));
        let diff = other.compare_to(&one);
        let lines: Vec<_> =
            diff.lines().iter().map(|line| (&*line.name, line.bytes_diff)).collect();
        assert_eq!(lines, [("tracer", -60), ("device", 30), ("unaccounted", 20)]);
        assert_eq!(diff.resident_bytes_diff(), -10);
    }

    #[test]
    fn an_empty_process_has_no_shares() {
        assert_eq!(
            Ledger::new(0).to_string(),
            "resident           0.00 MiB\n  unaccounted      0.00 MiB    0.0 %\n"
        );
    }
}
