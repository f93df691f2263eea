//! Configuration with the hook: traced if the request names a number of frames, a sample if it names a
//! number of bytes, too; else stopped.

use memtrace_benches::{Request, TracerFigures};
use std::error::Error;

#[global_allocator]
static ALLOC: memtrace::Alloc = memtrace::Alloc::system();

fn main() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    if let Some(n_frames) = request.tracing.n_frames {
        let mut config = memtrace::Config::new().frames(n_frames);
        if let Some(n_bytes) = request.tracing.sample_bytes {
            config = config.sample_every(n_bytes);
        }
        memtrace::start_with(config)?;
    }
    println!("{}", request.run(tracer_figures)?);
    Ok(())
}

fn tracer_figures() -> Option<TracerFigures> {
    if !memtrace::is_tracing() {
        return None;
    }
    let memory = memtrace::tracer_memory();
    let losses = memory.losses;
    Some(TracerFigures {
        resident_bytes: memory.total(),
        n_sites: memory.n_sites,
        n_lost: losses.n_blocks_without_record + losses.n_blocks_without_site + losses.n_nested,
    })
}
