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
//!
//! # Orderings
//!
//! | variable | writer | reader | publishes |
//! | --- | --- | --- | --- |
//! | `n_ranges` | `add_function_of` (Release) | `contains` (Acquire) | the ranges below |

use crate::platform;
use core::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use memtrace_unwind::StackBounds;

/// Functions that may lie between the recorder and the program.
const N_HOOK_FRAMES: usize = 24;

/// The code ranges of the functions between the recorder and the program.
pub(crate) struct HookFrames {
    /// Start and end addresses; the first `n_ranges` are valid.
    ranges: [(AtomicU64, AtomicU64); N_HOOK_FRAMES],
    n_ranges: AtomicU32,
    n_probes: AtomicU32,
}

impl HookFrames {
    pub(crate) const fn new() -> Self {
        Self {
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

    /// Whether a call address lies in a function of the hook.
    #[inline(always)]
    pub(crate) fn contains(&self, addr: u64) -> bool {
        let n_ranges = self.n_ranges.load(Acquire) as usize;
        let mut ranges = self.ranges.iter().take(n_ranges);
        ranges.any(|(start, end)| (start.load(Relaxed)..end.load(Relaxed)).contains(&addr))
    }
}
