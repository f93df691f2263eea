//! Captures stacks below every kind of call, and compares them with what the system's unwinder
//! says, frame for frame.
//!
//! ```text
//! unwinding --captures N --seed S [--sabotage M]
//! ```
//!
//! At each node of randomised paths of calls ([`plan`]) one walk of `_Unwind_Backtrace` is the truth
//! ([`truth`]) for several captures by `memtrace_unwind` ([`comparison`]). The program ends when N
//! captures were compared; paths depend on the seed alone, but where signals interrupt and
//! how threads interleave does not.
//!
//! It prints a line for each kind of call, fields separated by tabs:
//!
//! ```text
//! kind  comparisons  differences  explained
//! ```
//!
//! and fails if there is a difference, or a kind without comparisons. Explained are further
//! differences, of a limit that the library states (`Comparer::is_explained`). With `--sabotage` every Mth
//! answer is spoilt before it is compared, and a last line `sabotaged` tells how many were: each of
//! them must show as a difference.

mod arguments;
mod calls;
mod comparison;
mod descent;
mod kind;
mod options;
mod plan;
mod rng;
mod session;
mod sites;
mod tally;
mod truth;

use arguments::Arguments;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("error: {message}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let tally = session::run(&arguments);
    print!("{tally}");
    if tally.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
