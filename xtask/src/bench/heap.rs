//! `cargo xtask bench heap`: memtrace's heap as the global allocator, beside glibc's, mimalloc and
//! jemalloc.
//!
//! Workloads and programs are in `benches/heap`, a workspace of its own. Each figure is of a process
//! of its own. In each round every workload runs once under every allocator, and each workload of
//! each round begins with another one; ratios are taken within a round, so that a slow spell of the
//! machine falls on both sides, and the median over the rounds is reported.

mod goals;
mod measured;
mod programs;
mod report;

use super::delivery::Delivery;
use super::machine::load_average;
use super::selection::pick;
use crate::cargo::Workspace;
use measured::Measured;
use programs::{Allocator, Programs};
use std::error::Error;

/// Memory is measured in one of so many rounds: it takes longer than times, and varies less.
const BURST_ROUNDS: u16 = 3;

/// What to measure, and where to write it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fewer rounds: for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 9, or 3 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only the workloads whose name contains this.
    #[arg(long, value_name = "WORKLOAD")]
    filter: Option<String>,
    #[command(flatten)]
    delivery: Delivery,
}

/// Measures, and prints the report.
pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let n_rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 9 });
    let workspace = Workspace::read()?;
    let programs = Programs::build(&workspace)?;
    let workloads = pick(programs.workloads()?, args.filter.as_deref())?;
    let load_before = load_average();
    let mut measured = Measured::default();
    for round in 0..n_rounds {
        eprintln!("round {} of {n_rounds}", round + 1);
        for (i, workload) in workloads.iter().enumerate() {
            let is_burst = measured.bursts().any(|burst| burst.name == *workload);
            if is_burst && round % BURST_ROUNDS != 0 {
                continue;
            }
            for allocator in Allocator::in_turn(usize::from(round) + i) {
                measured.add(allocator, programs.run(allocator, workload)?)?;
            }
        }
    }
    measured.load_averages = [load_before, load_average()];

    let goals = goals::judge(&measured);
    let text = report::write(&measured, n_rounds, &goals);
    args.delivery.deliver(&text, &goals)
}
