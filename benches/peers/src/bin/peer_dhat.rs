//! Configuration with dhat, which captures as many frames as the request names, by default all.

use memtrace_benches::Request;
use std::error::Error;

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    let n_frames = request.tracing.n_frames.map(usize::from);
    let profiler = dhat::Profiler::builder().trim_backtraces(n_frames).build();
    let line = request.run(|| None)?;
    // Only the recording is measured: names are looked up, and the profile is written, by the drop.
    std::mem::forget(profiler);
    println!("{line}");
    Ok(())
}
