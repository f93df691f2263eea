//! `cargo xtask bench memory`: builds and runs the check that the tracer's own memory stays flat.

use crate::cargo::Programs;
use std::error::Error;
use std::process::Command;

/// Runs the check; its readings go to standard output.
pub(super) fn run(n_allocations: u64) -> Result<(), Box<dyn Error>> {
    let programs =
        Programs::build(&["--package=memtrace-benches".into(), "--example=flat_memory".into()])?;
    let program = programs.path("flat_memory")?;
    let status = Command::new(program)
        .arg(n_allocations.to_string())
        .env_remove("MEMTRACE")
        .status()
        .map_err(|error| format!("{} could not be run: {error}", program.display()))?;
    if !status.success() {
        return Err("the tracer's own memory did not stay flat, or could not be watched".into());
    }
    println!("\nThe tracer's own memory stayed flat.");
    Ok(())
}
