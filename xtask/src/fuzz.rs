//! `cargo xtask fuzz`: looks for inputs that the code which reads them does not bear.
//!
//! The targets in `fuzz` are built with the marks of coverage that libFuzzer follows, which the
//! stable compiler can make; a C++ compiler is needed for libFuzzer itself. What is found is kept
//! from run to run under the target directory. An input that panics, takes longer than
//! [`TIMEOUT_S`] or brings the process above [`MEMORY_LIMIT_MIB`] ends the run with an error and is
//! left in a file.

mod seeds;

use crate::cargo::{Programs, Workspace};
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What an input may take, in seconds.
const TIMEOUT_S: u32 = 10;
/// What the process may take in all, in MiB.
const MEMORY_LIMIT_MIB: u32 = 256;
/// Marks every edge of the target's code. Comparisons are not traced: that takes half of the time,
/// and the only magic numbers of the format are those that mutations put right anyway.
const INSTRUMENTATION: [&str; 6] = [
    "--cfg=fuzzing",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
];

/// Feeds a target with inputs made to reach all of its code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is fed.
    target: Target,
    /// Inputs to try.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    inputs: u64,
    /// What the inputs depend on, beside those kept from earlier runs [default: another each time].
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Processes that share the inputs, and what they find.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// `Heap`, by several threads in turn.
    Heap,
    /// `Snapshot::read_from`.
    Loader,
    /// `UnwindTables`.
    Tables,
    /// The walks over a stack.
    Walk,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Loader => "loader",
            Self::Tables => "tables",
            Self::Walk => "walk",
        }
    }

    /// The longest input, in bytes.
    fn max_len(self) -> u32 {
        match self {
            // Thirty steps, some of which take or give back hundreds of blocks. Longer ones are slower in
            // proportion.
            Self::Heap => 128,
            Self::Loader => 1 << 16,
            // Longer ones reach nothing more, and take their time.
            Self::Tables => 4096,
            Self::Walk => 1024,
        }
    }

    /// A few inputs to begin with, with names for their files.
    fn seeds(self) -> Vec<(&'static str, Vec<u8>)> {
        match self {
            Self::Heap => seeds::heaps(),
            Self::Loader => seeds::snapshots(),
            Self::Tables => seeds::tables(),
            Self::Walk => seeds::stacks(),
        }
    }
}

/// Builds and runs a target.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    // These would take the place of the flags that cargo is given here.
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        if env::var_os(variable).is_some() {
            return Err(
                format!("unset {variable}: targets are built with flags of their own").into()
            );
        }
    }
    let name = args.target.name();
    let dir = Workspace::read()?.target_dir.join("fuzz");
    let programs = Programs::build(&build_args(&dir, &host()?)).map_err(|error| {
        format!("{error}; a C++ compiler (such as `apt install g++`) is needed, too")
    })?;
    let (corpus, artifacts) = (dir.join(name).join("corpus"), dir.join(name).join("artifacts"));
    prepare(args.target, &corpus, &artifacts)?;
    let mut jobs = Vec::new();
    for job in 0..args.jobs {
        let started = Command::new(programs.path(name)?)
            .args(fuzzer_args(args, job, &corpus, &artifacts))
            .spawn()
            .map_err(|error| format!("the target could not be run: {error}"))?;
        jobs.push(started);
    }
    let mut failed = None;
    for mut job in jobs {
        // All of them end: each has its share of the inputs.
        let status = job.wait()?;
        failed = failed.or((!status.success()).then_some(status));
    }
    match failed {
        None => Ok(()),
        Some(status) => {
            let artifacts = artifacts.display();
            Err(format!("{name} failed: {status}; the input is in {artifacts}").into())
        }
    }
}

fn build_args(dir: &Path, host: &str) -> Vec<OsString> {
    let flags: Vec<String> = INSTRUMENTATION.iter().map(|flag| format!("{flag:?}")).collect();
    let mut args: Vec<OsString> = ["--manifest-path=fuzz/Cargo.toml", "--locked", "--target", host]
        .map(OsString::from)
        .into();
    args.push(format!("--config=build.rustflags=[{}]", flags.join(",")).into());
    args.push("--target-dir".into());
    args.push(dir.join("build").into());
    args
}

/// The platform of this machine. Named as a target, it keeps the flags from build scripts.
fn host() -> Result<String, Box<dyn Error>> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("`rustc -vV` names no host")?.to_owned())
}

/// Makes the folders, with a few valid inputs to begin with.
fn prepare(target: Target, corpus: &Path, artifacts: &Path) -> Result<(), Box<dyn Error>> {
    let failed = |path: &Path, error: &dyn Error| -> Box<dyn Error> {
        format!("{} could not be written: {error}", path.display()).into()
    };
    for dir in [corpus, artifacts] {
        fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    }
    for (name, seed) in target.seeds() {
        let path: PathBuf = corpus.join(format!("seed-{name}"));
        fs::write(&path, seed).map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn fuzzer_args(args: &Args, job: u32, corpus: &Path, artifacts: &Path) -> Vec<OsString> {
    let (jobs, job) = (u64::from(args.jobs), u64::from(job));
    let n_inputs = args.inputs / jobs + u64::from(job < args.inputs % jobs);
    // Zero is any seed; else each job has one of its own.
    let seed = args.seed.map_or(0, |seed| u64::from(seed) + job);
    let mut artifact_prefix = OsString::from("-artifact_prefix=");
    // With the separator at the end: libFuzzer appends the name of the file.
    artifact_prefix.push(artifacts.join(""));
    vec![
        corpus.into(),
        artifact_prefix,
        format!("-runs={n_inputs}").into(),
        format!("-seed={seed}").into(),
        format!("-max_len={}", args.target.max_len()).into(),
        format!("-timeout={TIMEOUT_S}").into(),
        format!("-rss_limit_mb={MEMORY_LIMIT_MIB}").into(),
        "-print_final_stats=1".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_and_the_number_of_inputs_reach_the_fuzzer() {
        let args = Args { target: Target::Loader, inputs: 77, seed: None, jobs: 1 };
        let args = fuzzer_args(&args, 0, Path::new("c"), Path::new("a"));
        assert_eq!(args[..2], ["c", "-artifact_prefix=a/"]);
        for expected in ["-runs=77", "-seed=0", "-timeout=10", "-rss_limit_mb=256"] {
            assert!(args.iter().any(|arg| arg == expected), "{expected} in {args:?}");
        }
    }

    #[test]
    fn jobs_share_the_inputs_and_have_seeds_of_their_own() {
        let args = Args { target: Target::Heap, inputs: 11, seed: Some(5), jobs: 3 };
        let of = |job| fuzzer_args(&args, job, Path::new("c"), Path::new("a"));
        for (job, expected) in
            [["-runs=4", "-seed=5"], ["-runs=4", "-seed=6"], ["-runs=3", "-seed=7"]]
                .into_iter()
                .enumerate()
        {
            let args = of(job as u32);
            for expected in expected {
                assert!(args.iter().any(|arg| arg == expected), "{expected} in {args:?}");
            }
        }
    }

    #[test]
    fn cargo_is_given_the_flags_as_one_list() {
        let args = build_args(Path::new("t"), "x86_64-unknown-linux-gnu");
        let config = args.iter().find_map(|arg| arg.to_str()?.strip_prefix("--config=")).unwrap();
        assert!(config.starts_with("build.rustflags=[\"--cfg=fuzzing\",\"-C"), "{config}");
    }

    #[test]
    fn seeds_are_small_and_written_to_the_corpus() {
        for target in [Target::Heap, Target::Loader, Target::Tables, Target::Walk] {
            let dir = tempfile::tempdir().unwrap();
            let corpus = dir.path().join("corpus");
            prepare(target, &corpus, &dir.path().join("artifacts")).unwrap();
            let mut n_seeds = 0;
            for entry in fs::read_dir(corpus).unwrap() {
                let path = entry.unwrap().path();
                let len = fs::metadata(&path).unwrap().len();
                assert!((1..8192).contains(&len), "{}", path.display());
                assert!(len <= target.max_len().into(), "{}", path.display());
                n_seeds += 1;
            }
            assert!(n_seeds >= 3, "{target:?}");
        }
    }

    #[test]
    fn seeds_of_the_loader_can_be_loaded() {
        let snapshots = seeds::snapshots();
        assert!(snapshots.len() >= 5);
        for (name, seed) in snapshots {
            memtrace_core::Snapshot::read_from(&seed[..]).expect(name);
        }
    }
}
