//! Development tasks of this repository, run as `cargo xtask VERB`.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod fuzz;
mod golden;
mod programs;
mod soak;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

/// Development tasks of memtrace's repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Golden(golden::Args),
    Programs(programs::Args),
    Soak(soak::Args),
}

fn main() -> ExitCode {
    let done = match Args::parse().verb {
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Golden(args) => golden::run(&args),
        Verb::Programs(args) => programs::run(&args),
        Verb::Soak(args) => soak::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error and what it came from.
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        eprintln!("  because: {error}");
        source = error.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_asks_for_a_verb() {
        Args::command().debug_assert();
        let help = Args::try_parse_from(["cargo xtask"]).err().unwrap().to_string();
        assert!(help.contains("Usage: cargo xtask") && help.contains("bench"), "{help}");
    }

    #[test]
    fn bench_takes_options_or_a_verb_of_its_own_but_not_both() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("xtask bench").is_ok());
        assert!(parse("xtask bench --quick --rounds 3 --filter json --markdown t.md").is_ok());
        assert!(parse("xtask bench --check --svg chart.svg").is_ok());
        assert!(parse("xtask bench instructions --check --markdown t.md").is_ok());
        assert!(parse("xtask bench memory --allocations 1000000").is_ok());
        assert!(parse("xtask bench core --quick --check --markdown t.md").is_ok());
        assert!(parse("xtask bench core --rounds 2 --without-cpython").is_ok());
        assert!(parse("xtask bench unwind --quick --check --filter 25/ --rounds 9").is_ok());
        assert!(parse("xtask bench --quick memory").is_err());
        assert!(parse("xtask bench --quick core").is_err());
        assert!(parse("xtask bench --check instructions").is_err());
        assert!(parse("xtask bench --rounds 0").is_err());
    }

    #[test]
    fn soak_asks_what_to_compare_and_for_how_long() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("xtask soak unwinding").is_ok());
        assert!(parse("xtask soak unwinding --captures 10000000 --seed 3").is_ok());
        assert!(parse("xtask soak signals").is_ok());
        assert!(parse("xtask soak signals --seconds 60 --seed 3").is_ok());
        assert!(parse("xtask soak recorder").is_ok());
        assert!(parse("xtask soak recorder --seconds 60 --threads 3 --seed 3").is_ok());
        assert!(parse("xtask soak").is_err());
        assert!(parse("xtask soak signals --seconds 0").is_err());
        assert!(parse("xtask soak signals --captures 5").is_err());
        assert!(parse("xtask soak recorder --threads 0").is_err());
        assert!(parse("xtask soak unwinding --captures 0").is_err());
    }

    #[test]
    fn programs_asks_for_the_allocator() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).map(|_| ());
        assert!(parse("xtask programs heap").is_ok());
        assert!(parse("xtask programs heap --filter sqlite").is_ok());
        assert!(parse("xtask programs").is_err());
    }
}
