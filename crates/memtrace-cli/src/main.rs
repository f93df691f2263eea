//! The `memtrace` program: reports and differences of saved snapshots.
//!
//! ```text
//! memtrace report after.memtrace --top 5
//! memtrace diff before.memtrace after.memtrace --group-by filename --exclude '*/tokio-*'
//! memtrace folded after.memtrace -o after.folded
//! memtrace leaks 10.00.memtrace 10.05.memtrace 10.10.memtrace 10.15.memtrace
//! memtrace name raw.memtrace --dir target/release -o named.memtrace
//! ```
//!
//! Results go to standard output, everything else to standard error. The exit code is 0, or 2 if
//! the arguments are wrong, a file cannot be read, or a result cannot be written. A reader that
//! closes the pipe early, such as `head`, is no error.

#![forbid(unsafe_code)]

mod args;
mod naming;
mod run;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match run::run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("memtrace: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            // If standard error is closed too, there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::from(2)
        }
    }
}
