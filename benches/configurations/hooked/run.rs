//! What a configuration with the hook does, whatever the hook wraps.

use memtrace_benches::{More, Request, TracerFigures};
use std::error::Error;

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let request = Request::from_args()?;
    if let Some(n_frames) = request.tracing.n_frames {
        let mut config = memtrace::Config::new().frames(n_frames);
        if let Some(n_bytes) = request.tracing.sample_bytes {
            config = config.sample_every(n_bytes);
        }
        config = match request.tracing.more {
            None => config,
            Some(More::SiteTotals) => config.site_totals(true),
            Some(More::Threads) => config.threads(true),
        };
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
