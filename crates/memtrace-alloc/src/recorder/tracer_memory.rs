//! What the tracer itself uses.

use super::RECORDER;
use super::losses::{Losses, losses};
use crate::mapped::{self, Part, resident_bytes_of};

/// What the tracer itself uses, in resident bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracerMemory {
    /// Distinct stacks and their index.
    pub sites: u64,
    /// The table of live blocks, with their details and times of birth; the words of a pooled heap included.
    pub live_table: u64,
    /// The table of memory that the program told of.
    pub tracked: u64,
    /// The table of threads.
    pub threads: u64,
    /// Copies of all traces as they were at the peak.
    pub peak: u64,
    /// Unwind rules of the addresses seen so far.
    pub unwind_rules: u64,
    /// What threads remember of their earlier captures, and up to 608 KiB that ended ones have left to others; mapped
    /// bytes rather than resident ones.
    pub site_caches: u64,
    /// Buffers for deep captures.
    pub buffers: u64,
    /// What counts against [`Options::table_limit`](crate::Options::table_limit): the tables above, whether
    /// their memory is resident or not yet.
    pub charged: u64,
    /// Number of distinct stacks.
    pub n_sites: u32,
    /// Copies of a peak made since the process began.
    pub n_peak_copies: u64,
    /// What was lost.
    pub losses: Losses,
}

impl TracerMemory {
    /// Returns the sum of all parts in bytes.
    pub const fn total(&self) -> u64 {
        self.sites
            .saturating_add(self.live_table)
            .saturating_add(self.tracked)
            .saturating_add(self.threads)
            .saturating_add(self.peak)
            .saturating_add(self.unwind_rules)
            .saturating_add(self.site_caches)
            .saturating_add(self.buffers)
    }
}

/// Returns what the tracer itself uses.
///
/// **Cost**: a system call for each 4 MiB of its tables.
pub fn tracer_memory() -> TracerMemory {
    RECORDER.live.tend_if_due();
    let (rules, rules_len) = memtrace_unwind::rule_table();
    TracerMemory {
        sites: resident_bytes_of(Part::Sites),
        live_table: resident_bytes_of(Part::LiveTable).saturating_add(RECORDER.live.word_bytes()),
        tracked: resident_bytes_of(Part::Tracked),
        threads: resident_bytes_of(Part::Threads),
        peak: resident_bytes_of(Part::Peak),
        unwind_rules: mapped::resident_bytes(rules, rules_len),
        site_caches: memtrace_unwind::cache_memory(),
        buffers: resident_bytes_of(Part::Scratch),
        charged: mapped::charged(),
        n_sites: RECORDER.sites.n_sites(),
        n_peak_copies: RECORDER.n_peak_copies().0,
        losses: losses(),
    }
}
