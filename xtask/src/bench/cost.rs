//! `cargo xtask bench`: what tracing costs, beside no tracing and beside other tools.
//!
//! Every figure is of a process of its own. In each round every configuration runs every workload
//! once, and each round begins with another configuration; ratios and differences are taken within a
//! round, against the baseline's run of the same workload, and the median over the rounds is reported.
//! A slow spell of the machine so falls on all configurations alike. Even so, figures mean little
//! while other programs use the machine; the report says how loaded it was.
//!
//! A configuration runs for a fixed time and not for a fixed number of operations, so that slow ones
//! take no longer. Its checksum must be that of the untraced one, or the benchmark fails.

mod chart;
mod configuration;
mod goals;
mod inputs;
mod memory;
mod picture;
mod programs;
mod report;
mod results;

use super::delivery::{self, Delivery};
use super::machine::load_average;
use super::selection::pick;
use crate::cargo::Workspace;
use configuration::Configuration;
use inputs::Inputs;
use memory::Memory;
use memtrace_benches::{Task, Workload};
use programs::{HEAPTRACK, Programs};
use results::Results;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// A workload that takes minutes under some tools is run in one of so many rounds.
const LONG_ROUNDS: u16 = 3;
/// Memory is measured in at most so many rounds: it varies less than time.
const MEMORY_ROUNDS: u16 = 3;

/// What to measure, and where to write it.
#[derive(Debug, clap::Args)]
// The name of the type is that of the verb's arguments, too.
#[group(id = "cost")]
pub(super) struct Args {
    /// Fewer rounds and shorter runs, and no more than a million live blocks: for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 7, or 3 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only the workloads whose name contains this, and no measurement of live blocks.
    #[arg(long, value_name = "WORKLOAD")]
    filter: Option<String>,
    /// Write a chart of the slowdowns to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    delivery: Delivery,
}

/// Measures, and prints the report.
pub(super) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let is_wanted = |workload: &Workload| !(args.quick && workload.is_long());
    let workloads: Vec<_> = Workload::ALL.into_iter().filter(is_wanted).collect();
    let workloads = pick(workloads, args.filter.as_deref())?;
    let n_rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 7 });
    let budget_ms = if args.quick { 100 } else { 300 };

    let workspace = Workspace::read()?;
    let inputs = Inputs::write(&workspace)?;
    let programs = Programs::build(&workspace, inputs.dir)?;
    let configurations = programs.configurations();
    let has_heaptrack = configurations.contains(&Configuration::Heaptrack);
    if !has_heaptrack {
        eprintln!("{HEAPTRACK} was not found on PATH: the tables will be without it");
    }

    let load_before = load_average();
    let results = time(&programs, &workloads, configurations, n_rounds, budget_ms)?;
    let memory = if args.filter.is_none() {
        eprintln!("memory of live blocks");
        Some(Memory::measure(&programs, n_rounds.min(MEMORY_ROUNDS), args.quick)?)
    } else {
        None
    };
    let conditions = report::Conditions {
        n_rounds,
        budget: Duration::from_millis(budget_ms.into()),
        load_averages: [load_before, load_average()],
        document_len: inputs.document_len,
        source_len: inputs.source_len,
        has_heaptrack,
    };

    if let Some(path) = &args.svg {
        delivery::write(path, picture::of(&results, n_rounds).to_svg())?;
    }
    let goals = goals::judge(&results, memory.as_ref());
    let text = report::write(&results, memory.as_ref(), &conditions, &goals);
    args.delivery.deliver(&text, &goals)
}

/// Times all workloads under all configurations, in rounds.
fn time(
    programs: &Programs,
    workloads: &[Workload],
    configurations: Vec<Configuration>,
    n_rounds: u16,
    budget_ms: u32,
) -> Result<Results, Box<dyn Error>> {
    let mut results = Results::new(configurations.clone());
    for &workload in workloads {
        results.add_count(workload, programs.count(Task::Time(workload, 0))?);
    }
    for round in 0..n_rounds {
        eprintln!("round {} of {n_rounds}", round + 1);
        for &workload in workloads {
            if workload.is_long() && round % LONG_ROUNDS != 0 {
                continue;
            }
            let (after, before) =
                configurations.split_at(usize::from(round) % configurations.len());
            let in_turn = before.iter().chain(after).filter(|c| c.can_run(workload));
            for &configuration in in_turn {
                let measurement = programs.time(configuration, Task::Time(workload, budget_ms))?;
                results.add(workload, configuration, measurement)?;
            }
        }
    }
    Ok(results)
}
