//! `cargo xtask programs`: programs that nobody here wrote, with and without the heap.
//!
//! Some are run as they are, with the probe `preload` loaded before the C library, so that all they
//! and their children allocate comes from the heap; others are crates of the registry, whose own tests
//! are built once more with the heap as the global allocator. What a program writes, or how its tests
//! end, must be the same; no process may have had a call refused by the heap or a figure that a
//! recount does not confirm.

mod foreign;
mod suite;

use crate::cargo::{CargoError, Workspace};
use memtrace_tests::nested_build::{Probe, Settings};
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use foreign::Foreign;

/// Runs programs that nobody here wrote with the heap, and compares them with plain runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    Heap(Heap),
}

/// With the pooled heap as the allocator.
#[derive(Debug, clap::Args)]
struct Heap {
    /// Only those whose names contain this.
    #[arg(long, value_name = "WORD", default_value = "")]
    filter: String,
}

/// Why a program could not be run or compared, or how it differs.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error("{program} could not be run")]
    NotRun { program: String, source: io::Error },
    #[error("{} could not be used", path.display())]
    NoFile { path: PathBuf, source: io::Error },
    #[error("no source of {name} in {}: `cargo fetch` brings it", registry.display())]
    NoSource { name: &'static str, registry: PathBuf },
    #[error("the plain run of {program} failed ({status}):\n{messages}")]
    PlainFails { program: String, status: String, messages: String },
    #[error("with the heap {program} does otherwise:\n{difference}")]
    Differs { program: String, difference: String },
    #[error("{program}: a process reported {line:?}")]
    Unwell { program: String, line: String },
    #[error("{n} of {n_all} programs do otherwise, see above")]
    Some { n: usize, n_all: usize },
    #[error(transparent)]
    Cargo(#[from] CargoError),
}

/// Carries out the verb.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let Subject::Heap(Heap { filter }) = &args.subject;
    let dir = Workspace::read()?.target_dir.join("programs");
    make_dir(&dir)?;
    let mut results = Vec::new();
    let foreign: Vec<Foreign> =
        Foreign::all(&dir)?.into_iter().filter(|program| program.name.contains(filter)).collect();
    if !foreign.is_empty() {
        eprintln!("building the library to preload");
        let library = preload(&dir);
        for program in foreign {
            eprintln!("{}: running", program.name);
            results.push((program.name, program.compare(&library, &dir)));
        }
    }
    for name in suite::CRATES.into_iter().filter(|name| name.contains(filter)) {
        eprintln!("{name}: building and running its tests");
        results.push((name, suite::compare(name, &dir)));
    }
    let n_all = results.len();
    let mut n = 0;
    for (name, result) in results {
        match result {
            Ok(figures) => println!("{name}: the same; {figures}"),
            Err(error) => {
                n += 1;
                println!("{name}: {error}");
            }
        }
    }
    if n > 0 { Err(ProgramError::Some { n, n_all }.into()) } else { Ok(()) }
}

/// Builds the library.
fn preload(dir: &Path) -> PathBuf {
    let dir = dir.to_str().expect("the path of the target directory is UTF-8");
    Probe::new("preload").build_library(dir, &Settings::RELEASE)
}

fn make_dir(path: &Path) -> Result<(), ProgramError> {
    fs::create_dir_all(path).map_err(|source| no_file(path, source))
}

fn no_file(path: &Path, source: io::Error) -> ProgramError {
    ProgramError::NoFile { path: path.to_owned(), source }
}

/// What a program wrote and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    status: String,
    is_success: bool,
    output: String,
    messages: String,
}

impl Outcome {
    fn of(command: &mut Command) -> Result<Outcome, ProgramError> {
        let program = format!("{command:?}");
        let output = command.output().map_err(|source| ProgramError::NotRun { program, source })?;
        Ok(Outcome {
            status: output.status.to_string(),
            is_success: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
