//! The probe `unwinding`: how it is built, and what it prints.
//!
//! It compares captured stacks with those of the system's unwinder. A stack depends on how the code
//! is compiled, so that a run of it tells of one build.

use crate::nested_build::{Probe, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The C library linked statically, into a program that can be loaded anywhere.
pub const STATIC_PIE: Settings = Settings {
    name: "static-pie",
    rustflags: &["-Ctarget-feature=+crt-static"],
    // Flags of static linking would reach build scripts otherwise.
    target: Some("x86_64-unknown-linux-gnu"),
    ..Settings::RELEASE
};

/// Every function keeps a frame pointer, but those of std and C.
pub const FRAME_POINTERS: Settings = Settings {
    name: "only-frame-pointers",
    rustflags: &["-Cforce-frame-pointers=yes"],
    ..Settings::RELEASE
};

/// All builds: the levels of optimization, and what else changes frames or unwind tables.
pub const ALL: [Settings; 9] = [
    Settings::DEV,
    Settings::release("opt-1", &[("opt-level", "1")]),
    Settings::release("opt-2", &[("opt-level", "2")]),
    Settings::RELEASE,
    Settings::release("opt-s", &[("opt-level", "\"s\"")]),
    FRAME_POINTERS,
    Settings::release("only-lto", &[("lto", "\"fat\""), ("codegen-units", "1")]),
    Settings::release("only-abort", &[("panic", "\"abort\"")]),
    STATIC_PIE,
];

/// Builds the probe below `dir`.
///
/// **Panics** with cargo's messages if it does not build.
pub fn build(dir: &Path, settings: &Settings) -> PathBuf {
    let dir = dir.to_str().expect("the path of the target directory is UTF-8");
    Probe::new("unwinding")
        .build(dir, settings, &[])
        .remove("unwinding")
        .expect("it has one program")
}

/// What the probe counted for a kind of call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Captures that were compared with the truth.
    pub n_comparisons: u64,
    /// Of those, the ones that differed.
    pub n_differences: u64,
    /// And the ones that ended at a stated limit of the library.
    pub n_explained: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.n_comparisons += other.n_comparisons;
        self.n_differences += other.n_differences;
        self.n_explained += other.n_explained;
    }
}

/// What a run of the probe printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By kind of call.
    pub counts: BTreeMap<String, Count>,
    /// Answers that were spoilt on purpose.
    pub n_sabotaged: Option<u64>,
    /// Whether the probe found everything to be well.
    pub is_success: bool,
    /// What it wrote on standard error: the first differences.
    pub messages: String,
}

impl Outcome {
    /// The counts of all kinds together.
    pub fn total(&self) -> Count {
        let mut total = Count::default();
        self.counts.values().for_each(|&count| total += count);
        total
    }

    /// Reads what the probe printed; `None` if that is not what it prints.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "kind\tcomparisons\tdifferences\texplained" {
            return None;
        }
        let mut outcome = Self::default();
        for line in lines {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["sabotaged", n] => outcome.n_sabotaged = Some(n.parse().ok()?),
                [kind, n_comparisons, n_differences, n_explained] => {
                    let count = Count {
                        n_comparisons: n_comparisons.parse().ok()?,
                        n_differences: n_differences.parse().ok()?,
                        n_explained: n_explained.parse().ok()?,
                    };
                    outcome.counts.insert(kind.to_owned(), count);
                }
                _ => return None,
            }
        }
        Some(outcome)
    }
}

/// Runs the probe: at least `n_captures` by paths that depend on `seed`; every so many answers one is
/// spoilt, if `sabotage` says so.
///
/// **Panics** with what it wrote if it did not come to its end.
pub fn run(program: &Path, n_captures: u64, seed: u64, sabotage: Option<u64>) -> Outcome {
    let mut command = Command::new(program);
    command.args(["--captures", &n_captures.to_string(), "--seed", &seed.to_string()]);
    if let Some(every) = sabotage {
        command.args(["--sabotage", &every.to_string()]);
    }
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    match Outcome::parse(&stdout) {
        Some(outcome) => Outcome { is_success: output.status.success(), messages, ..outcome },
        None => panic!("{command:?} failed ({}):\n{stdout}\n{messages}", output.status),
    }
}
