//! Traces 25 frames while one working set comes and goes, and fails unless the tracer's own memory
//! stays flat: `flat_memory [N_ALLOCATIONS]`, 10,000,000 unless told otherwise.

use memtrace_benches::flat::{self, Reading};
use std::error::Error;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    let n_allocations = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|error| format!("N_ALLOCATIONS {text:?}: {error}"))?,
        None => 10_000_000,
    };
    memtrace::start(25)?;
    println!("| allocations | tracer, bytes | live table | sites | rules | other | lost |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    let readings = flat::watch(n_allocations, |n_allocations| {
        let memory = memtrace::tracer_memory();
        let losses = memory.losses;
        let n_lost =
            losses.n_blocks_without_record + losses.n_blocks_without_site + losses.n_nested;
        println!(
            "| {n_allocations} | {} | {} | {} | {} | {} | {n_lost} |",
            memory.total(),
            memory.live_table,
            memory.sites,
            memory.unwind_rules,
            memory.tracked + memory.buffers,
        );
        Reading { n_allocations, resident_bytes: memory.total(), n_lost }
    });
    Ok(flat::check(&readings)?)
}
