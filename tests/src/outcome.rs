//! What a probe prints that is run for some time: figures, and whether all was well.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    /// Runs the probe for some time; `options` are further ones, such as `["--frames", "300"]`.
    ///
    /// **Panics** with what it wrote if it did not come to its end: it was killed by a signal, or ended
    /// itself because a thread was stuck.
    pub fn run(program: &Path, time: Duration, seed: u64, options: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args([
            "--milliseconds",
            &time.as_millis().to_string(),
            "--seed",
            &seed.to_string(),
        ]);
        command.args(options).env_remove("MEMTRACE").stdin(Stdio::null());
        let output = command.output().expect("the program runs");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        match Self::parse(&stdout) {
            Some(outcome) => Self { is_success: output.status.success(), messages, ..outcome },
            None => panic!("{command:?} failed ({}):\n{stdout}\n{messages}", output.status),
        }
    }

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
