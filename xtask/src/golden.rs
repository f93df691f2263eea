//! `cargo xtask golden`: the analysis against CPython's own, on as many fresh cases as wanted.
//!
//! For each seed, a Python program makes cases and lets this machine's own `tracemalloc` answer
//! them; then `crates/memtrace-core/tests/golden.rs` does. Before that, Python has to give the
//! answers of the cases that lie in the repository, so that a fault of the generator's or a change
//! of CPython's is not taken for one of ours.

use crate::cargo::Workspace;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// The test that reads cases from the file that this variable names.
const VARIABLE: &str = "MEMTRACE_GOLDEN_CASES";
const TEST: &str = "all_generated_cases_agree_with_cpython";

/// Compares the analysis with CPython's tracemalloc on fresh cases.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 2)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Cases for each seed.
    #[arg(long, value_name = "M", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(1..))]
    cases: u64,
    /// The Python to ask, 3.10 or later.
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: PathBuf,
}

/// Why nothing could be compared, or what came of it.
#[derive(Debug, thiserror::Error)]
enum GoldenError {
    #[error(
        "{} could not be run: install Python 3.10 or later, or name one with --python",
        python.display()
    )]
    NoPython { python: PathBuf, source: io::Error },
    #[error("{} is {found}, and 3.10 or later is wanted: name one with --python", python.display())]
    OldPython { python: PathBuf, found: String },
    #[error("{} {}: {status}", python.display(), script.display())]
    PythonFailed { python: PathBuf, script: PathBuf, status: ExitStatus },
    #[error("{} could not be written", path.display())]
    NotWritten { path: PathBuf, source: io::Error },
    #[error("cargo could not be run")]
    NoCargo { source: io::Error },
    #[error("the test could not be built: {status}")]
    NotBuilt { status: ExitStatus },
    #[error(
        "seed {seed} has a case that is answered otherwise, see above; the cases are in {}",
        cases.display()
    )]
    Disagrees { seed: u64, cases: PathBuf },
}

/// Carries out the verb.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let python = Python::find(&args.python)?;
    let root = Workspace::root();
    let shipped = root.join("crates/memtrace-core/tests/data/stats_seed1.jsonl");
    python.run("oracle.py", [shipped.as_os_str()], None)?;
    eprintln!("{} gives the answers of {}", python.version, shipped.display());

    build()?;
    let dir = Workspace::read()?.target_dir.join("golden");
    fs::create_dir_all(&dir)
        .map_err(|source| GoldenError::NotWritten { path: dir.clone(), source })?;
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let cases = dir.join(format!("stats_seed{seed}.jsonl"));
        let [for_seed, n_cases] = [seed, args.cases].map(|n| n.to_string());
        let options = ["--seed", &for_seed, "--cases", &n_cases].map(OsStr::new);
        python.run("generate.py", options, Some(&cases))?;
        eprintln!("seed {seed}:");
        if !agrees(&cases)? {
            return Err(GoldenError::Disagrees { seed, cases }.into());
        }
        // Only cases that tell something are kept.
        fs::remove_file(&cases)
            .map_err(|source| GoldenError::NotWritten { path: cases, source })?;
    }
    Ok(())
}

/// Builds the test, so that a fault in it is not taken for a wrong answer.
fn build() -> Result<(), GoldenError> {
    let status = cargo_test().arg("--no-run").status();
    match status.map_err(|source| GoldenError::NoCargo { source })? {
        status if status.success() => Ok(()),
        status => Err(GoldenError::NotBuilt { status }),
    }
}

/// Runs the test over a file of cases. It prints what it has to say.
fn agrees(cases: &Path) -> Result<bool, GoldenError> {
    let status = cargo_test()
        .args(["--", "--ignored", "--exact", TEST, "--nocapture"])
        .env(VARIABLE, cases)
        .status()
        .map_err(|source| GoldenError::NoCargo { source })?;
    Ok(status.success())
}

fn cargo_test() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["test", "--quiet", "--release", "--package", "memtrace-core", "--test", "golden"])
        .current_dir(Workspace::root());
    command
}

/// A Python that is young enough.
struct Python {
    program: PathBuf,
    /// As it writes it: `Python 3.11.7`.
    version: String,
}

impl Python {
    fn find(program: &Path) -> Result<Self, GoldenError> {
        let output = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| GoldenError::NoPython { python: program.to_owned(), source })?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !is_young_enough(&version) {
            return Err(GoldenError::OldPython { python: program.to_owned(), found: version });
        }
        Ok(Self { program: program.to_owned(), version })
    }

    /// Runs one of the repository's programs, with its output in a file if one is given.
    fn run<'a>(
        &self,
        script: &str,
        args: impl IntoIterator<Item = &'a OsStr>,
        output: Option<&Path>,
    ) -> Result<(), GoldenError> {
        let script = Workspace::root().join("xtask/golden").join(script);
        let mut command = Command::new(&self.program);
        // Without leaving compiled files in the repository.
        command.arg("-B").arg(&script).args(args).stdin(Stdio::null());
        if let Some(path) = output {
            let file = File::create(path)
                .map_err(|source| GoldenError::NotWritten { path: path.to_owned(), source })?;
            command.stdout(file);
        }
        let python = self.program.clone();
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(GoldenError::PythonFailed { python, script, status }),
            Err(source) => Err(GoldenError::NoPython { python, source }),
        }
    }
}

/// Whether that is Python 3.10 or later: `match`, and ranges in patterns that run backwards.
fn is_young_enough(version: &str) -> bool {
    let numbers = version.strip_prefix("Python 3.").unwrap_or_default();
    let minor = numbers.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    minor.parse().is_ok_and(|minor: u32| minor >= 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_python_that_reads_patterns_as_we_do_is_asked() {
        assert!(is_young_enough("Python 3.11.7") && is_young_enough("Python 3.10.0rc1"));
        assert!(is_young_enough("Python 3.14+"));
        for other in ["Python 3.9.18", "Python 2.7.18", "Python 3.", "PyPy", ""] {
            assert!(!is_young_enough(other), "{other}");
        }
    }

    #[test]
    fn a_missing_python_is_named_with_what_to_do() {
        let error = Python::find(Path::new("no-such-python")).err().unwrap().to_string();
        assert_eq!(
            error,
            "no-such-python could not be run: install Python 3.10 or later, or name one with \
             --python"
        );
    }
}
