//! Folded stacks: one line for each distinct stack, as flame graph programs read them.
//!
//! ```text
//! app::main;app::cache::insert 2048
//! ```
//!
//! Frames stand oldest first, separated by `;`; after a blank follows a figure. A frame is called
//! by its function, or by `file:line` if that is unknown, or by the stand-in for its file if
//! there is no line. Since `;` and line ends have a meaning of their own, names are escaped as in
//! Rust's string literals: `\x3b`, `\n`, `\r`, and `\\` for the backslash itself.
//!
//! The machinery that the snapshot's [`Attribution`](memtrace_core::Attribution) hides is left
//! out at the newest end, or every flame would end in the same few functions of the allocator.
//!
//! Of a [sampled](memtrace_core::Snapshot::sample_period) snapshot the figures are estimates for all
//! blocks; the form has no place for their errors.
//!
//! Lines are sorted by bytes. Stacks that read the same are one line; stacks that come to nothing
//! are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use memtrace_core::{Frame, KeyType, Snapshot, Statistic, Traceback};

/// What the figures count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// Live bytes, as requested.
    #[default]
    Bytes,
    /// Live blocks.
    Blocks,
}

impl Metric {
    fn of(self, statistic: &Statistic) -> u64 {
        match self {
            Self::Bytes => statistic.size,
            Self::Blocks => statistic.count,
        }
    }
}

/// Writes the snapshot's stacks.
///
/// **Cost.** Groups by traceback, then makes one line for each distinct stack.
///
/// **Errors.** If `w` fails.
pub fn write(w: &mut impl Write, snapshot: &Snapshot, metric: Metric) -> io::Result<()> {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for statistic in snapshot.statistics(KeyType::Traceback) {
        let figure = metric.of(&statistic);
        if figure > 0 {
            let sum = lines.entry(folded(&statistic.traceback)).or_default();
            *sum = sum.saturating_add(figure);
        }
    }
    for (stack, figure) in lines {
        writeln!(w, "{stack} {figure}")?;
    }
    w.flush()
}

fn folded(traceback: &Traceback) -> String {
    let mut out = String::new();
    for (i, frame) in traceback.iter().enumerate() {
        if i > 0 {
            out.push(';');
        }
        push_name(&mut out, frame);
    }
    if out.is_empty() {
        out.push_str("<unknown>");
    }
    out
}

fn push_name(out: &mut String, frame: &Frame) {
    match &frame.function {
        Some(function) => push_escaped(out, function),
        None => {
            push_escaped(out, &frame.filename);
            if frame.lineno > 0 {
                write!(out, ":{}", frame.lineno).expect("writing to a String cannot fail");
            }
        }
    }
}

fn push_escaped(out: &mut String, name: &str) {
    for c in name.chars() {
        match c {
            ';' => out.push_str("\\x3b"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\\' => out.push_str("\\\\"),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use memtrace_core::{SnapshotBuilder, Trace};

    use super::*;

    fn text(snapshot: &Snapshot, metric: Metric) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, snapshot, metric).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A snapshot of (oldest-first frames, size).
    fn snapshot(stacks: &[(&[Frame], u64)]) -> Snapshot {
        let traces = stacks.iter().map(|(frames, size)| Trace {
            domain: 0,
            size: *size,
            traceback: Traceback::new(frames.to_vec()),
        });
        Snapshot::from_traces(traces, 25)
    }

    fn main() -> Frame {
        Frame::new("src/main.rs", 1).with_function("app::main")
    }

    #[test]
    fn stacks_stand_oldest_first_with_bytes_or_blocks() {
        let insert = Frame::new("src/cache.rs", 42);
        let foreign = Frame::new("<libfoo.so+0x10>", 0);
        let snapshot = snapshot(&[
            (&[main(), insert.clone()], 100),
            (&[main(), insert], 28),
            (&[main(), foreign], 5),
            (&[main()], 0),
        ]);
        assert_eq!(
            text(&snapshot, Metric::Bytes),
            "app::main;<libfoo.so+0x10> 5\napp::main;src/cache.rs:42 128\n"
        );
        assert_eq!(
            text(&snapshot, Metric::Blocks),
            "app::main 1\napp::main;<libfoo.so+0x10> 1\napp::main;src/cache.rs:42 2\n"
        );
    }

    #[test]
    fn lines_of_one_function_are_one_stack() {
        let at = |lineno| Frame::new("src/a.rs", lineno).with_function("app::f");
        let snapshot = snapshot(&[(&[main(), at(1)], 1), (&[main(), at(2)], 2)]);
        assert_eq!(text(&snapshot, Metric::Bytes), "app::main;app::f 3\n");
    }

    #[test]
    fn the_machinery_is_left_out() {
        let grow = Frame::new("/rustc/1/library/alloc/src/raw_vec.rs", 1);
        let snapshot = snapshot(&[(&[main(), grow], 8)]);
        assert_eq!(text(&snapshot, Metric::Bytes), "app::main 8\n");
    }

    #[test]
    fn names_cannot_break_the_form() {
        let odd = Frame::new("x", 1).with_function("a;b\nc\r\\d <[u8; 3]>::e");
        assert_eq!(
            text(&snapshot(&[(&[odd], 8)]), Metric::Bytes),
            "a\\x3bb\\nc\\r\\\\d <[u8\\x3b 3]>::e 8\n"
        );
        assert_eq!(text(&snapshot(&[(&[], 8)]), Metric::Bytes), "<unknown> 8\n");
        assert_eq!(text(&SnapshotBuilder::new(1).finish(), Metric::Bytes), "");
    }
}
