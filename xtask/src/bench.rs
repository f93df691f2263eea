//! `cargo xtask bench`: what memtrace costs, and what its parts do, beside others.

mod core;
mod cost;
mod delivery;
mod figure;
mod flat_memory;
mod goal;
mod heap;
mod instructions;
mod machine;
mod program;
mod selection;
mod table;
mod unwind;

use std::error::Error;

/// Times workloads untraced, stopped, traced and under other tools; prints Markdown tables.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    cost: cost::Args,
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
    /// Counts the instructions that tracing adds to an allocation and to its release.
    Instructions(instructions::Args),
    /// Times snapshots of a large heap and what is asked of them, beside CPython's tracemalloc.
    Core(core::Args),
    /// Times the way from an allocation to its call site, beside other unwinders.
    Unwind(unwind::Args),
    /// Times the heap as the global allocator, beside glibc's, mimalloc and jemalloc.
    Heap(heap::Args),
}

/// Carries out the verb.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    match &args.verb {
        Some(Verb::Memory { allocations }) => flat_memory::run(*allocations),
        Some(Verb::Instructions(args)) => instructions::run(args),
        Some(Verb::Core(args)) => core::run(args),
        Some(Verb::Unwind(args)) => unwind::run(args),
        Some(Verb::Heap(args)) => heap::run(args),
        None => cost::run(&args.cost),
    }
}
