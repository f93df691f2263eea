//! Configuration with the least that is done by whoever compares return addresses, and no tracer: what tracing takes is to be
//! seen beside it.
//!
//! A stack may have changed anywhere since the last block that was allocated from the same place, so every return address
//! is compared with what it was. A trace is stored with the block and taken out again, and what is live is counted. This
//! program does so, and all else comes for nothing:
//!
//! - what a stack is compared with is found by the call's return address and the stack pointer, without a look at the
//!   stacks that share these: the first one is taken for the right one, and nothing is done where it is not, nor where
//!   another start has its place already;
//! - a trace has its place by the block's address alone, where two blocks 1 GiB apart have the same;
//! - nothing is locked, as if blocks were only ever released by the thread that allocated them;
//! - there is no peak, no limit, no `stop`, no signal handler and no fork.
//!
//! So what it recorded would be wrong, and most of all where a program hardly ever repeats a stack, where the comparison is
//! the least part of the work. On the other hand its table has 8 bytes for each 32 of heap, whatever lies there: of large
//! blocks memtrace's own touches less memory. The request's number of frames is the number of return addresses; without
//! one nothing is recorded.

use std::error::Error;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "least/recorder.rs"]
mod recorder;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> Result<(), Box<dyn Error>> {
    let request = memtrace_benches::Request::from_args()?;
    if let Some(n_frames) = request.tracing.n_frames {
        recorder::start(n_frames)?;
    }
    println!("{}", request.run(recorder::figures)?);
    Ok(())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() -> Result<(), Box<dyn Error>> {
    Err("the least that recording takes is written down for x86_64 Linux only".into())
}
