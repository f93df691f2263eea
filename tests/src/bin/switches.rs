//! Starts and stops tracing as its argument says, and prints what it is told, one line each.

use memtrace::{is_tracing, start, stop, take_snapshot, traceback_limit};

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() {
    let script = std::env::args().nth(1).expect("one argument: commands with commas between");
    for command in script.split(',') {
        let (name, argument) = command.split_once('=').unwrap_or((command, ""));
        match name {
            "start" => match start(argument.parse().expect("a number of frames")) {
                Ok(started) => println!("{started:?}"),
                Err(error) => println!("error: {error}"),
            },
            "stop" => stop(),
            "state" => println!("tracing: {}, limit: {}", is_tracing(), traceback_limit()),
            "snapshot" => match take_snapshot() {
                Ok(snapshot) => {
                    let n_deepest = snapshot.traces().map(|trace| trace.traceback.len()).max();
                    println!("traces: {}, deepest: {n_deepest:?}", snapshot.n_traces());
                }
                Err(error) => println!("error: {error}"),
            },
            _ => panic!("no such command: {name:?}"),
        }
    }
}
