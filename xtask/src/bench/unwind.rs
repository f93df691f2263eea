//! `cargo xtask bench unwind`: from allocation to call site, memtrace's way beside others.
//!
//! Contenders and workloads are in `benches/unwind`, a workspace of its own. A process checks one
//! workload under all contenders against the truth, the system's unwinder, and then times them in
//! turn. It is built as programs are by default, and once more with frame pointers; each build has
//! several *layouts*, orders of the functions in memory: a peer's cache of rules is direct-mapped by
//! address, so that one layout alone shows it at its luckiest or unluckiest.

mod goals;
mod measured;
mod programs;
mod report;

use super::delivery::Delivery;
use super::machine::load_average;
use super::selection::pick;
use crate::cargo::Workspace;
use measured::Measured;
use programs::{Build, Program};
use std::error::Error;

/// What to measure, and where to write it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fewer rounds, layouts, and shorter runs: for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds in all, shared out among the layouts [default: 20, or 9 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only the workloads whose name contains this.
    #[arg(long, value_name = "WORKLOAD")]
    filter: Option<String>,
    #[command(flatten)]
    delivery: Delivery,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effort {
    n_layouts: u16,
    /// For each layout.
    n_rounds: u16,
    /// CPU time for each contender in each round; one run of the workload at least.
    budget_ms: u16,
}

/// Measures, and prints the report.
pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let effort = effort(args);
    let workspace = Workspace::read()?;
    let load_before = load_average();
    let mut measured = Measured::default();
    for build in Build::ALL {
        for layout in 0..effort.n_layouts {
            eprintln!("{}, layout {} of {}", build.name(), layout + 1, effort.n_layouts);
            let program = Program::build(&workspace, build, layout)?;
            for name in pick(program.workloads()?, args.filter.as_deref())? {
                measured.add(build, program.run(&name, effort.n_rounds, effort.budget_ms)?);
            }
        }
    }
    measured.load_averages = [load_before, load_average()];

    let goals = goals::judge(&measured);
    let text = report::write(&measured, effort, &goals);
    args.delivery.deliver(&text, &goals)
}

fn effort(args: &Args) -> Effort {
    let (n_rounds, n_layouts, budget_ms) = if args.quick { (9, 3, 10) } else { (20, 5, 30) };
    let n_rounds = args.rounds.unwrap_or(n_rounds);
    let n_layouts = n_layouts.min(n_rounds);
    Effort { n_layouts, n_rounds: n_rounds.div_ceil(n_layouts), budget_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(quick: bool, rounds: Option<u16>) -> Args {
        Args { quick, rounds, filter: None, delivery: Delivery::default() }
    }

    #[test]
    fn rounds_are_shared_out_among_layouts_of_which_there_are_no_more_than_rounds() {
        let of = |args| {
            let Effort { n_layouts, n_rounds, .. } = effort(&args);
            (n_layouts, n_rounds)
        };
        assert_eq!(of(args(true, None)), (3, 3));
        assert_eq!(of(args(false, None)), (5, 4));
        assert_eq!(of(args(false, Some(2))), (2, 1));
        assert_eq!(of(args(true, Some(10))), (3, 4));
    }
}
