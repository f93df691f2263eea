//! Analyses snapshots of a large heap, or takes them while other threads allocate, and prints what
//! it measured as a line of JSON: `core_analysis operations N_BLOCKS N_ROUNDS FILE`, where
//! snapshots are saved to FILE, or `core_analysis beside N_BLOCKS N_ROUNDS`.
//!
//! Tracing stays on all the time, as it does in a program that looks at itself.

mod beside;
mod check;
mod heap;
mod operations;
mod sites;

use std::error::Error;
use std::path::Path;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["operations", n_blocks, n_rounds, file] => {
            let figures =
                operations::measure(number(n_blocks)?, number(n_rounds)?, Path::new(file))?;
            println!("{}", figures.to_line());
        }
        ["beside", n_blocks, n_rounds] => {
            let figures = beside::measure(number(n_blocks)?, number(n_rounds)?)?;
            println!("{}", figures.to_line());
        }
        _ => {
            let usage = "operations N_BLOCKS N_ROUNDS FILE | beside N_BLOCKS N_ROUNDS";
            return Err(format!("arguments {args:?} are not {usage}").into());
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("{text:?} is not a number: {error}"))
}
