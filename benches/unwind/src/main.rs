//! From a point in a program to the number of its stack: memtrace's way and others, in one process.
//!
//! ```text
//! unwind names                             the workloads, one a line
//! unwind run NAME N_ROUNDS BUDGET_MS       checks and times one; prints its figures as JSON
//! ```
//!
//! All contenders share the [`table`] and the hash, so that they differ only in how they capture. They
//! are checked against the truth, the system's unwinder, on every capture of a run ([`check`]) before
//! they are timed ([`measure`]): in loops ([`synthetic`]) or at the allocations ([`hook`]) of
//! [`programs`].

#![deny(unsafe_code)]

mod buffer;
mod check;
mod clock;
mod contender;
mod hook;
mod measure;
mod programs;
mod synthetic;
mod table;

use measure::Effort;
use programs::Program;
use std::error::Error;
use synthetic::Synthetic;

const USAGE: &str = "usage: unwind names | unwind run NAME N_ROUNDS BUDGET_MS";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["names"] => {
            Synthetic::names().chain(Program::names()).for_each(|name| println!("{name}"));
            Ok(())
        }
        ["run", name, n_rounds, budget_ms] => {
            let budget_ns = budget_ms.parse::<f64>()? * 1e6;
            run(name, Effort { n_rounds: n_rounds.parse()?, budget_ns })
        }
        _ => Err(USAGE.into()),
    }
}

fn run(name: &str, effort: Effort) -> Result<(), Box<dyn Error>> {
    let figures = if let Some(workload) = Synthetic::find(name) {
        contender::prepare(Synthetic::N_SLOTS);
        measure::synthetic(name, &workload, effort)?
    } else if let Some(program) = Program::find(name)? {
        contender::prepare(Program::N_SLOTS);
        hook::keep_memory();
        measure::program(name, &program, effort)?
    } else {
        return Err(format!("there is no workload {name}").into());
    };
    println!("{}", figures.to_line());
    Ok(())
}
