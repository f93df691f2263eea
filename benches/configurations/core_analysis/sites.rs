//! Ten thousand call sites, and the calls that lead to them. The build script writes them.

use memtrace_benches::analysis::Planned;
use memtrace_benches::analysis::shape::{
    N_MODULES_PER_AREA, N_MODULES_PER_PART, N_SITES_PER_MODULE, n_calls,
};
use std::hint::black_box;

/// A block, with the number of its site at its beginning.
pub(crate) type Block = Vec<u8>;

type Call = fn(usize, usize) -> Block;

include!(concat!(env!("OUT_DIR"), "/sites/calls.rs"));

/// Allocates a block at its call site.
pub(crate) fn allocate(planned: Planned) -> Block {
    let site = usize::from(planned.site);
    let area = site / N_SITES_PER_MODULE / N_MODULES_PER_AREA;
    tagged(AREAS[area](site, usize::from(planned.size)), 0)
}

/// Keeps the call before it from becoming a jump, and functions with different tags from becoming
/// one.
#[inline(always)]
fn tagged(block: Block, tag: usize) -> Block {
    black_box(tag);
    block
}

/// Returns the number of the site that is on a line of a file, if it is one.
pub(crate) fn site_at(filename: &str, lineno: u32) -> Option<usize> {
    let module = module_of(filename)?;
    let first_line = n_calls(module) + 2;
    let i = (lineno as usize).checked_sub(first_line)?;
    (i < N_SITES_PER_MODULE).then_some(module * N_SITES_PER_MODULE + i)
}

/// Returns the number of the module that a file is, if it is one.
pub(crate) fn module_of(filename: &str) -> Option<usize> {
    filename.rsplit_once("/sites/module_")?.1.strip_suffix(".rs")?.parse().ok()
}
