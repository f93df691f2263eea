//! Configuration with heapscope, which captures as many frames as the request names, of every
//! allocation or of a sample. It walks frame pointers, and refuses to start without them.

use heapscope::{Mode, Profiler};
use memtrace_benches::Request;
use std::error::Error;

/// More blocks than heapscope has memory for: there shall be no other limit.
const MAX_LIVE_BLOCKS: usize = 1 << 24;

#[global_allocator]
static ALLOC: heapscope::Alloc = heapscope::Alloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    let mut builder =
        Profiler::builder().mode(Mode::Heap).max_live_blocks(MAX_LIVE_BLOCKS).no_output();
    if let Some(n_frames) = request.tracing.n_frames {
        builder = builder.max_depth(n_frames.into());
    }
    if let Some(n_bytes) = request.tracing.sample_bytes {
        builder = builder.sampling(n_bytes);
    }
    let profiler = builder.build()?;
    let line = request.run(|| None)?;
    let stats = profiler.stats();
    if stats.total_blocks == 0 || stats.dropped_blocks > 0 {
        return Err(format!("heapscope did not record all there was: {stats:?}").into());
    }
    // Only the recording is measured.
    std::mem::forget(profiler);
    println!("{line}");
    Ok(())
}
