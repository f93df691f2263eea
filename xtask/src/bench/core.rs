//! `cargo xtask bench core`: how fast snapshots of a large heap are taken and analysed, beside
//! CPython's tracemalloc on as many blocks of as many lines.
//!
//! Both programs follow one plan of blocks; see `memtrace_benches::analysis`. Each checks its
//! results before it reports their times. The goals are judged by the times of the *first* question
//! asked of a snapshot, not by those of later ones, for which snapshots keep sums.

mod goals;
mod programs;
mod report;
mod times;

use super::delivery::Delivery;
use super::machine::load_average;
use crate::cargo::Workspace;
use memtrace_benches::analysis::{BesideFigures, Figures};
use programs::Programs;
use std::error::Error;

/// The numbers of live blocks.
const N_BLOCKS: usize = 1_000_000;
const N_MANY_BLOCKS: usize = 10_000_000;

/// What to measure, and where to write it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One million blocks only, and fewer rounds: for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 7, or 3 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Leave out CPython, which takes most of the time.
    #[arg(long)]
    without_cpython: bool,
    #[command(flatten)]
    delivery: Delivery,
}

/// All that was measured.
struct Measured {
    ours: Figures,
    /// On ten times as many blocks.
    ours_many: Option<Figures>,
    cpython: Option<Figures>,
    beside: BesideFigures,
    n_rounds: u16,
    /// Load averages of the last minute, before and after.
    load_averages: [Option<f64>; 2],
}

/// Measures, and prints the report.
pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let n_rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 7 });
    let workspace = Workspace::read()?;
    let programs = Programs::build(&workspace)?;
    let load_before = load_average();
    eprintln!("memtrace, {N_BLOCKS} blocks");
    let ours = programs.operations(N_BLOCKS, n_rounds)?;
    eprintln!("memtrace, {N_BLOCKS} blocks, beside threads that allocate");
    let beside = programs.beside(N_BLOCKS, n_rounds)?;
    let ours_many = if args.quick {
        None
    } else {
        eprintln!("memtrace, {N_MANY_BLOCKS} blocks");
        Some(programs.operations(N_MANY_BLOCKS, n_rounds.min(3))?)
    };
    let cpython = if args.without_cpython {
        None
    } else {
        eprintln!("CPython, {N_BLOCKS} blocks: some minutes");
        let n_rounds = if args.quick { 1 } else { n_rounds.min(3) };
        programs.cpython(N_BLOCKS, ours.n_calls_per_stack, n_rounds, !args.quick)?
    };
    let load_averages = [load_before, load_average()];
    let measured = Measured { ours, ours_many, cpython, beside, n_rounds, load_averages };

    let goals = goals::judge(&measured);
    let text = report::write(&measured, &goals);
    args.delivery.deliver(&text, &goals)
}
