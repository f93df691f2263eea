//! The hook's own frames, so that captures begin with the program's.
//!
//! How many frames there are between the program and the recorder depends on the build: the compiler
//! may make one frame of several functions, or none. So they are not counted but known by address:
//! when tracing starts, the recorder is called from a function that knows its own extent, and all
//! functions between the two are the hook's, or those of allocators that the program put around it.
//!
//! # Invariants
//!
//! - **I1** Ranges are added under the control lock, and never changed or removed. What captures
//!   remember is forgotten after that.
//! - **I2** The bits of all pages of a range are set before it is published.
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `n_ranges` | `add_function_of` (Release) | `contains` (Acquire) | the ranges below |
//! | `pages` | `add_function_of` (Relaxed) | `contains` (Relaxed) | nothing: without its bits, a range is not yet there |
//!
//! # Cost
//!
//! A load and a bit, for nearly all addresses of a program; else a look at all ranges.

use crate::platform;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use memtrace_unwind::StackBounds;

/// Functions that may lie between the recorder and the program.
const N_HOOK_FRAMES: usize = 24;

/// Pages of code that have a bit each; beyond them, pages share one.
const N_PAGE_BITS: usize = 256;
const PAGE_BITS: u32 = 12;

/// The code ranges of the functions between the recorder and the program.
pub(crate) struct HookFrames {
    /// A bit for each page of code in which a range lies.
    pages: [AtomicU64; N_PAGE_BITS / 64],
    /// Start and end addresses; the first `n_ranges` are valid.
    ranges: [(AtomicU64, AtomicU64); N_HOOK_FRAMES],
    n_ranges: AtomicU32,
    n_probes: AtomicU32,
}

impl HookFrames {
    pub(crate) const fn new() -> Self {
        Self {
            pages: [const { AtomicU64::new(0) }; N_PAGE_BITS / 64],
            ranges: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; N_HOOK_FRAMES],
            n_ranges: AtomicU32::new(0),
            n_probes: AtomicU32::new(0),
        }
    }

    /// Learns the ranges of the frames above the probe's. Called under the control lock, by the
    /// recorder, from the probe.
    #[inline(never)]
    pub(crate) fn learn(&self) {
        self.n_probes.fetch_add(1, Relaxed);
        let probe = platform::probe_global_allocator as fn() as usize as u64;
        let Some(probe) = memtrace_unwind::function_range(probe) else { return };
        let mut call_addrs = [0; 2 * N_HOOK_FRAMES];
        let walk = memtrace_unwind::capture(&StackBounds::current(), &mut call_addrs);
        let captured = call_addrs.get(..walk.len).unwrap_or(&[]);
        if !captured.iter().any(|addr| probe.contains(addr)) {
            return;
        }
        for addr in captured.iter().take_while(|addr| !probe.contains(addr)) {
            self.add_function_of(*addr);
        }
    }

    /// Adds the function that holds an address. Called under the control lock.
    pub(crate) fn add_function_of(&self, addr: u64) {
        if !self.contains(addr)
            && let Some(range) = memtrace_unwind::function_range(addr)
        {
            let n_ranges = self.n_ranges.load(Relaxed);
            if let Some((start, end)) = self.ranges.get(n_ranges as usize) {
                let pages = range.start >> PAGE_BITS..=range.end >> PAGE_BITS;
                for page in pages.take(N_PAGE_BITS) {
                    self.pages_with(page).fetch_or(bit_of(page), Relaxed);
                }
                start.store(range.start, Relaxed);
                end.store(range.end, Relaxed);
                // Release pairs with the Acquire in `contains`: publishes the range.
                self.n_ranges.store(n_ranges.saturating_add(1), Release);
            }
        }
    }

    /// Returns how often the hook was called by a probe.
    pub(crate) fn n_probes(&self) -> u32 {
        self.n_probes.load(Relaxed)
    }

    /// The bits that are those of a page and others.
    #[inline(always)]
    fn pages_with(&self, page: u64) -> &AtomicU64 {
        #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
        &self.pages[(page / 64) as usize % (N_PAGE_BITS / 64)]
    }

    /// Whether a call address lies in a function of the hook.
    #[inline(always)]
    pub(crate) fn contains(&self, addr: u64) -> bool {
        let page = addr >> PAGE_BITS;
        self.pages_with(page).load(Relaxed) & bit_of(page) != 0 && self.is_in_range(addr)
    }

    #[cold]
    #[inline(never)]
    fn is_in_range(&self, addr: u64) -> bool {
        let n_ranges = self.n_ranges.load(Acquire) as usize;
        let mut ranges = self.ranges.iter().take(n_ranges);
        ranges.any(|(start, end)| (start.load(Relaxed)..end.load(Relaxed)).contains(&addr))
    }
}

#[inline(always)]
const fn bit_of(page: u64) -> u64 {
    1 << (page % 64)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn functions_that_were_added_are_found_by_any_of_their_addresses_and_others_are_not() {
        let added = [HookFrames::learn as *const (), HookFrames::is_in_range as *const ()];
        for function in added {
            let frames = HookFrames::new();
            let range = memtrace_unwind::function_range(function.addr() as u64).unwrap();
            assert!(!range.clone().any(|addr| frames.contains(addr)));
            frames.add_function_of(function.addr() as u64);
            assert!(range.clone().all(|addr| frames.contains(addr)));
            // Pages share a bit.
            let far = range.start.wrapping_add((N_PAGE_BITS as u64) << PAGE_BITS);
            assert!(![range.start - 1, range.end, far].iter().any(|&addr| frames.contains(addr)));
        }
    }
}
