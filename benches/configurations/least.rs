//! Configuration with the least that is done by whoever records stacks exactly: a bound for what tracing can cost, and no
//! tracer.
//!
//! A stack may have changed anywhere since the last block that was allocated from the same place, so every return address
//! is compared with what it was. A trace is stored with the block and taken out again, and what is live is counted. This
//! program does so, and all else comes for nothing:
//!
//! - what a stack is compared with is found by the call's address and the stack pointer, without a look at the stacks that
//!   share these: the first one is taken for the right one, and nothing is done where it is not;
//! - a trace has its place by the block's address alone, where two blocks 1 GiB apart have the same;
//! - nothing is locked, as if blocks were only ever released by the thread that allocated them;
//! - there is no peak, no limit, no `stop`, no signal handler and no fork.
//!
//! What it recorded would be wrong, where it does less than an exact tracer. Where that takes no longer than this, there is
//! nothing left to be had from recording more quickly. The request's number of frames is the number of return addresses;
//! without one nothing is recorded.

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
