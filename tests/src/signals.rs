//! The probe `signals`: how it is built, and what it prints.
//!
//! It allocates while signals interrupt it whose handlers allocate, and compares every trace with the
//! truth.

use crate::nested_build::{Probe, Settings};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Builds the probe below `dir`.
///
/// **Panics** with cargo's messages if it does not build.
pub fn build(dir: &Path, settings: &Settings) -> PathBuf {
    let dir = dir.to_str().expect("the path of the target directory is UTF-8");
    Probe::new("signals").build(dir, settings, &[]).remove("signals").expect("it has one program")
}

/// What a run of the probe printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its figures, by name.
    pub figures: BTreeMap<String, u64>,
    /// Whether the probe found everything to be well.
    pub is_success: bool,
    /// What it wrote on standard error: the first differences.
    pub messages: String,
}

impl Outcome {
    /// The figure of this name.
    ///
    /// **Panics** if there is none.
    pub fn figure(&self, name: &str) -> u64 {
        *self.figures.get(name).unwrap_or_else(|| panic!("there is no figure {name:?}:\n{self}"))
    }

    /// Reads what the probe printed; `None` if that is not what it prints.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "figure\tvalue" {
            return None;
        }
        let mut outcome = Self::default();
        for line in lines {
            let (name, value) = line.split_once('\t')?;
            outcome.figures.insert(name.to_owned(), value.parse().ok()?);
        }
        (!outcome.figures.is_empty()).then_some(outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figures.iter().try_for_each(|(name, value)| writeln!(f, "{value:>12} {name}"))?;
        f.write_str(&self.messages)
    }
}

/// Runs the probe for some time; `options` are further ones, such as `["--frames", "300"]`.
///
/// **Panics** with what it wrote if it did not come to its end: it was killed by a signal, or ended
/// itself because a thread was stuck.
pub fn run(program: &Path, time: Duration, seed: u64, options: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    command.args(["--milliseconds", &time.as_millis().to_string(), "--seed", &seed.to_string()]);
    command.args(options).env_remove("MEMTRACE").stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    match Outcome::parse(&stdout) {
        Some(outcome) => Outcome { is_success: output.status.success(), messages, ..outcome },
        None => panic!("{command:?} failed ({}):\n{stdout}\n{messages}", output.status),
    }
}
