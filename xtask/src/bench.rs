//! `cargo xtask bench`: what tracing costs, beside no tracing and beside other tools.
//!
//! Every figure is of a process of its own. In each round every configuration runs every workload
//! once, and each round begins with another configuration; ratios and differences are taken within a
//! round, against the untraced run of the same workload, and the median over the rounds is reported.
//! A slow spell of the machine so falls on all configurations alike. Even so, figures mean little
//! while other programs use the machine; the report says how loaded it was.
//!
//! A configuration runs for a fixed time and not for a fixed number of operations, so that slow ones
//! take no longer. Its checksum must be that of the untraced one, or the benchmark fails.

mod configuration;
mod core;
mod figure;
mod flat_memory;
mod goal;
mod heap;
mod program;
mod report;
mod results;
mod table;
mod unwind;

use crate::cargo::Workspace;
use configuration::{Configurations, HEAPTRACK};
use memtrace_benches::{Request, Workload};
use results::Results;
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Times workloads untraced, stopped, traced and under other tools; prints a Markdown table.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Fewer rounds and shorter runs: for a first look.
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 7, or 3 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only the workloads whose name contains this.
    #[arg(long, value_name = "WORKLOAD")]
    filter: Option<String>,
    /// Write the tables to this file, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Checks that the tracer's own memory stays flat while one working set comes and goes.
    Memory {
        /// Allocations to make.
        #[arg(long, value_name = "N", default_value_t = 10_000_000)]
        allocations: u64,
    },
    /// Times snapshots of a large heap and what is asked of them, beside CPython's tracemalloc.
    Core(core::Args),
    /// Times the way from an allocation to its call site, beside other unwinders.
    Unwind(unwind::Args),
    /// Times the heap as the global allocator, beside glibc's, mimalloc and jemalloc.
    Heap(heap::Args),
}

/// No workload's name contains what was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no workload's name contains {filter:?}; there are {}",
    Workload::ALL.map(Workload::name).join(", ")
)]
struct NoWorkload {
    filter: String,
}

/// Carries out the verb.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    match &args.verb {
        Some(Verb::Memory { allocations }) => return flat_memory::run(*allocations),
        Some(Verb::Core(args)) => return core::run(args),
        Some(Verb::Unwind(args)) => return unwind::run(args),
        Some(Verb::Heap(args)) => return heap::run(args),
        None => {}
    }
    let workloads = workloads(args.filter.as_deref())?;
    let n_rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 7 });
    let budget = Duration::from_millis(if args.quick { 100 } else { 300 });

    let workspace = Workspace::read()?;
    let dir = workspace.target_dir.join("bench");
    let document = dir.join("document.json");
    fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&document, &workspace.metadata))
        .map_err(|error| format!("{} could not be written: {error}", document.display()))?;
    let configurations = Configurations::build(&workspace)?;
    if !configurations.has_heaptrack() {
        eprintln!("{HEAPTRACK} was not found on PATH: the table will be without it");
    }

    let load_before = load_average();
    let mut results = Results::new(configurations.names());
    for &workload in &workloads {
        let document = document.clone();
        let request = Request { workload, budget: Duration::ZERO, document, n_frames: None };
        results.add_count(workload, configurations.count(request)?);
    }
    for round in 0..n_rounds {
        eprintln!("round {} of {n_rounds}", round + 1);
        for &workload in &workloads {
            let n_configurations = configurations.names().len();
            for i in (0..n_configurations).map(|i| (i + usize::from(round)) % n_configurations) {
                let document = document.clone();
                let request = Request { workload, budget, document, n_frames: None };
                results.add(workload, i, configurations.measure(i, request)?)?;
            }
        }
    }

    let text = report::write(
        &results,
        &report::Conditions {
            n_rounds,
            budget,
            load_averages: [load_before, load_average()],
            document_len: workspace.metadata.len(),
            has_heaptrack: configurations.has_heaptrack(),
        },
    );
    print!("{text}");
    if let Some(path) = &args.markdown {
        fs::write(path, &text)
            .map_err(|error| format!("{} could not be written: {error}", path.display()))?;
    }
    Ok(())
}

/// The number of tasks that ran or wanted to, over the last minute; `None` if the kernel does not tell.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn workloads(filter: Option<&str>) -> Result<Vec<Workload>, NoWorkload> {
    let filter = filter.unwrap_or("");
    let found: Vec<_> =
        Workload::ALL.into_iter().filter(|workload| workload.name().contains(filter)).collect();
    if found.is_empty() {
        return Err(NoWorkload { filter: filter.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_picks_workloads_by_part_of_their_name() {
        assert_eq!(workloads(None).unwrap(), Workload::ALL);
        assert_eq!(workloads(Some("json")).unwrap(), [Workload::Json]);
        assert_eq!(workloads(Some("vec")).unwrap(), [Workload::GrowingVectors]);
    }

    #[test]
    fn a_filter_that_picks_nothing_is_answered_with_the_names() {
        let error = workloads(Some("yaml")).unwrap_err().to_string();
        assert!(error.contains("\"yaml\"; there are tight-pair, json,"), "{error}");
    }
}
