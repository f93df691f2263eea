//! The functions that ask for blocks: each block is compared with the one that asked for it.
//!
//! Functions are never inlined and do something after the call, since a last call would take the place of
//! its caller.

use crate::ALLOC;
use crate::report::differs;
use crate::truth;
use std::alloc::Layout;
use std::hint::black_box;
use std::ops::Range;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    Alloc(Layout),
    AllocZeroed(Layout),
    /// A live block, its layout, and its new size.
    Resize(*mut u8, Layout, usize),
}

pub(crate) const N_SITES: usize = 16;
const MAX_DEPTH: usize = 40;

type Site = fn(Request) -> *mut u8;

const SITES: [Site; N_SITES] = [
    site::<0>, site::<1>, site::<2>, site::<3>, site::<4>, site::<5>, site::<6>, site::<7>,
    site::<8>, site::<9>, site::<10>, site::<11>, site::<12>, site::<13>, site::<14>, site::<15>,
];

#[inline(never)]
fn site<const N: usize>(request: Request) -> *mut u8 {
    let n = black_box(N);
    // SAFETY: no size is zero; a block that is resized is live and has the layout.
    let block = unsafe {
        match request {
            Request::Alloc(layout) => std::alloc::alloc(layout),
            Request::AllocZeroed(layout) => std::alloc::alloc_zeroed(layout),
            Request::Resize(block, layout, size) => std::alloc::realloc(block, layout, size),
        }
    };
    black_box((n, block)).1
}

/// Asks for a block below some calls, and returns it, or null.
pub(crate) fn ask(tag: usize, path: usize, request: Request) -> *mut u8 {
    let block = truth::request(tag as u32, || descend(path % MAX_DEPTH, path, SITES[tag], request));
    if let (true, Request::Resize(old, ..)) = (block.is_null(), request) {
        // Its record has been put back by now.
        ALLOC.inner().end_request(old);
    }
    block
}

#[inline(never)]
fn descend(depth: usize, path: usize, site: Site, request: Request) -> *mut u8 {
    let Some(rest) = depth.checked_sub(1) else { return black_box(site(request)) };
    let block = if path >> (depth % 4) & 1 == 0 {
        descend(rest, path, site, request)
    } else {
        turn(rest, path, site, request)
    };
    black_box(block)
}

#[inline(never)]
fn turn(depth: usize, path: usize, site: Site, request: Request) -> *mut u8 {
    black_box(black_box(descend(depth, path, site, request)))
}

/// The functions' extents, by tag.
pub(crate) fn extents() -> [Range<u64>; N_SITES] {
    SITES.map(|site| {
        let extent = memtrace_unwind::function_range(site as *const () as u64);
        extent.unwrap_or_else(|| differs(format_args!("a function has no unwind tables")))
    })
}
