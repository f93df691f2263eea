//! `cargo xtask soak`: the comparisons of the tests, many more of them and in more builds.
//!
//! `unwinding` compares captured stacks with those of the system's unwinder, by the probe that
//! `tests/tests/unwinding.rs` runs. Each run is a process of its own with a seed of its own, short
//! enough for its table of stacks to stay in memory; all builds run the same seeds.
//!
//! `signals` lets signals interrupt a program whose handlers allocate, by the probe that
//! `tests/tests/signals.rs` runs.
//!
//! `recorder` lets many threads allocate at random, and compares all that is recorded with the truth, by the
//! probe that `tests/tests/recorder.rs` runs.

use crate::cargo::Workspace;
use memtrace_tests::nested_build::Settings;
use memtrace_tests::outcome::Outcome as Figures;
use memtrace_tests::unwinding::{self, Count, Outcome};
use memtrace_tests::{recorder, signals};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Captures of a process, at most.
const CAPTURES_A_RUN: u64 = 500_000;

/// Repeats a test's comparisons, many times and in more builds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    Unwinding(Unwinding),
    Signals(Signals),
    Recorder(Recorder),
}

/// Compares captured stacks with those of the system's unwinder, in all builds.
#[derive(Debug, clap::Args)]
struct Unwinding {
    /// Captures to compare, in all builds together.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    captures: u64,
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Interrupts a program by signals whose handlers allocate, and compares traces with the truth.
#[derive(Debug, clap::Args)]
struct Signals {
    /// Seconds that each build runs.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What the work depends on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Lets many threads allocate at random, and compares all that is recorded with the truth.
#[derive(Debug, clap::Args)]
struct Recorder {
    /// Seconds to run, in all builds together.
    #[arg(long, value_name = "N", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Threads that allocate.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    threads: u64,
    /// What the load depends on.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Builds of the programs that are run for some time.
const BUILDS: [Settings; 2] = [Settings::RELEASE, Settings::DEV];

/// What came of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SoakError {
    #[error("{n} captures differ, see above")]
    Differs { n: u64 },
    #[error("a run of {build} with seed {seed} failed, see above")]
    Failed { build: &'static str, seed: u64 },
}

/// Carries out the verb.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    match &args.subject {
        Subject::Unwinding(args) => unwinding(args),
        Subject::Signals(args) => signals(args),
        Subject::Recorder(args) => recorder(args),
    }
}

fn signals(args: &Signals) -> Result<(), Box<dyn Error>> {
    let time = Duration::from_secs(args.seconds);
    run_in_builds(signals::build, time, args.seed, &[])
}

fn recorder(args: &Recorder) -> Result<(), Box<dyn Error>> {
    let time = Duration::from_secs(args.seconds) / BUILDS.len() as u32;
    run_in_builds(recorder::build, time, args.seed, &["--threads", &args.threads.to_string()])
}

/// Runs a probe for some time in each build, and prints its figures.
fn run_in_builds(
    build: fn(&Path, &Settings) -> PathBuf,
    time: Duration,
    seed: u64,
    options: &[&str],
) -> Result<(), Box<dyn Error>> {
    let dir = Workspace::read()?.target_dir.join("soak");
    let mut failed = None;
    for settings in &BUILDS {
        eprintln!("{}: building", settings.name);
        let program = build(&dir, settings);
        eprintln!("{}: {} s", settings.name, time.as_secs_f64());
        let outcome = Figures::run(&program, time, seed, options);
        println!("{}\n{outcome}", settings.name);
        if !outcome.is_success {
            failed = Some(SoakError::Failed { build: settings.name, seed });
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn unwinding(args: &Unwinding) -> Result<(), Box<dyn Error>> {
    let dir = Workspace::read()?.target_dir.join("soak");
    let mut results = Results::default();
    let mut failed = None;
    for (settings, n_captures) in unwinding::ALL.iter().zip(shares(args.captures)) {
        eprintln!("{}: building", settings.name);
        let program = unwinding::build(&dir, settings);
        eprintln!("{}: {n_captures} captures", settings.name);
        let mut n_left = n_captures;
        let mut seed = args.seed;
        while n_left > 0 {
            let outcome = unwinding::run(&program, n_left.min(CAPTURES_A_RUN), seed, None);
            if !outcome.is_success {
                eprint!("{} with seed {seed}:\n{}", settings.name, outcome.messages);
                failed = Some(SoakError::Failed { build: settings.name, seed });
            }
            n_left = n_left.saturating_sub(outcome.total().n_comparisons);
            results.add(settings, &outcome);
            seed = seed.wrapping_add(1);
        }
    }
    print!("{}", results.table());
    let n = results.total().n_differences;
    if n > 0 {
        return Err(SoakError::Differs { n }.into());
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// How many captures each build makes: together at least `n_captures`.
fn shares(n_captures: u64) -> [u64; unwinding::ALL.len()] {
    [n_captures.div_ceil(unwinding::ALL.len() as u64); unwinding::ALL.len()]
}

/// Counts by kind of call and by build.
#[derive(Default)]
struct Results {
    builds: Vec<&'static str>,
    counts: BTreeMap<String, BTreeMap<&'static str, Count>>,
}

impl Results {
    fn add(&mut self, settings: &Settings, outcome: &Outcome) {
        let build = settings.name;
        if !self.builds.contains(&build) {
            self.builds.push(build);
        }
        for (kind, &count) in &outcome.counts {
            let of_kind = self.counts.entry(kind.clone()).or_default();
            *of_kind.entry(build).or_default() += count;
        }
    }

    fn total(&self) -> Count {
        let mut total = Count::default();
        self.counts.values().flat_map(BTreeMap::values).for_each(|&count| total += count);
        total
    }

    /// A Markdown table of captures compared, with those that differ, by kind and build.
    fn table(&self) -> String {
        let mut text = String::from("| calls |");
        for build in &self.builds {
            let _ = write!(text, " {build} |");
        }
        text.push_str("\n| --- |");
        self.builds.iter().for_each(|_| text.push_str(" ---: |"));
        text.push('\n');
        let mut sums: BTreeMap<&str, Count> = BTreeMap::new();
        for (kind, by_build) in &self.counts {
            let _ = write!(text, "| {kind} |");
            for &build in &self.builds {
                let count = by_build.get(build).copied();
                count.into_iter().for_each(|count| *sums.entry(build).or_default() += count);
                let _ = write!(text, " {} |", cell(count));
            }
            text.push('\n');
        }
        text.push_str("| all |");
        for build in &self.builds {
            let _ = write!(text, " {} |", cell(sums.get(build).copied()));
        }
        let Count { n_comparisons, n_differences, n_explained } = self.total();
        let _ = writeln!(
            text,
            "\n\n{n_comparisons} captures compared with the system's unwinder: {n_differences} \
             differ; {n_explained} end early, and say so, at a stated limit."
        );
        text
    }
}

/// Captures compared; a build may not have such calls.
fn cell(count: Option<Count>) -> String {
    match count {
        None => String::from("–"),
        Some(Count { n_comparisons, n_differences: 0, .. }) => n_comparisons.to_string(),
        Some(Count { n_comparisons, n_differences, .. }) => {
            format!("{n_comparisons}, **{n_differences} differ**")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(counts: &[(&str, u64, u64)]) -> Outcome {
        let counts = counts.iter().map(|&(kind, n_comparisons, n_differences)| {
            (kind.to_owned(), Count { n_comparisons, n_differences, n_explained: 1 })
        });
        Outcome { counts: counts.collect(), ..Outcome::default() }
    }

    #[test]
    fn runs_of_a_build_are_summed_and_differences_stand_out() {
        let mut results = Results::default();
        results.add(&Settings::DEV, &outcome(&[("closure", 10, 0), ("signal", 5, 0)]));
        results.add(&Settings::DEV, &outcome(&[("closure", 10, 2), ("signal", 6, 0)]));
        results.add(&Settings::RELEASE, &outcome(&[("closure", 7, 0)]));
        assert_eq!(
            results.table(),
            "| calls | dev | release |\n\
             | --- | ---: | ---: |\n\
             | closure | 20, **2 differ** | 7 |\n\
             | signal | 11 | – |\n\
             | all | 31, **2 differ** | 7 |\n\
             \n\
             38 captures compared with the system's unwinder: 2 differ; 5 end early, and say so, at a \
             stated limit.\n"
        );
    }

    #[test]
    fn builds_have_names_of_their_own_and_shares_that_add_up() {
        let names: std::collections::BTreeSet<_> =
            unwinding::ALL.iter().map(|settings| settings.name).collect();
        assert_eq!(names.len(), unwinding::ALL.len());
        for n_captures in [1, 9, 10, 10_000_000] {
            assert!(shares(n_captures).iter().sum::<u64>() >= n_captures);
        }
    }
}
