//! memtrace: the site cache, and the walk by itself.
#![expect(unsafe_code, reason = "hands out the thread's cache without a check")]

use crate::buffer;
use crate::table::TABLE;
use memtrace_unwind::SiteCache;
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::num::NonZeroU32;

thread_local! {
    static CACHE: UnsafeCell<SiteCache> = const { UnsafeCell::new(SiteCache::new()) };
}

/// From the registers to the number of the stack, as memtrace does it.
#[inline(never)]
pub(super) fn site(limit: usize) -> Option<NonZeroU32> {
    let bounds = buffer::bounds();
    let cache = CACHE.try_with(UnsafeCell::get).ok()?;
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let cache = unsafe { &mut *cache };
    black_box(cache.site_of_caller(&bounds, limit, &TABLE))
}

/// The walk into a buffer; then as all others.
#[inline(never)]
pub(super) fn walk(limit: usize) -> Option<NonZeroU32> {
    let bounds = buffer::bounds();
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = memtrace_unwind::capture(&bounds, &mut frames[..limit]);
    buffer::intern(frames, walk)
}

/// The walk into a buffer.
#[inline(never)]
pub(super) fn walk_only(limit: usize) -> Option<NonZeroU32> {
    let bounds = buffer::bounds();
    // SAFETY: captures do not nest, as an allocation inside of one is not captured.
    let frames = unsafe { buffer::frames() };
    let walk = memtrace_unwind::capture(&bounds, &mut frames[..limit]);
    buffer::keep(frames, walk)
}
