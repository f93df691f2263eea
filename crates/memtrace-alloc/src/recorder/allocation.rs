//! What is done for an allocation, between the hook and the tables.
//!
//! # Mechanism
//!
//! Nearly all allocations take the *short* way: recorded without details, at a stack that the thread's cache
//! recalls. All that is not so is left to functions that are jumped to, so that the short way saves no
//! registers. The next one captures the stack; the last looks whether the block is sampled, finds out its
//! details, and counts it at its site.
//!
//! # Cost
//!
//! The short way: a dozen instructions beside those that recall the stack, and those of
//! [`insertion`](super::insertion).

use super::Recorder;
use crate::control::{self, Mode, On, Recording, State};
use crate::entry::Entry;
use crate::live::LiveTrace;
use crate::sampler;
use crate::site::SiteId;
use crate::thread;
use memtrace_unwind::Registers;

impl Recorder {
    /// Records a block that the wrapped allocator has handed out; null is passed over.
    ///
    /// What is done for nearly all blocks: whatever else there is to do is done by functions that this one
    /// jumps to, so that it needs no frame.
    #[inline(always)]
    pub(crate) fn allocated(&self, block: *mut u8, size: usize, entry: Entry) {
        if !control::is_short() || block.is_null() {
            return self.allocated_otherwise(block, size, entry);
        }
        match thread::recall(entry.registers()) {
            Some(site) => {
                let trace = LiveTrace { size: size as u64, site: SiteId(site.get()) };
                self.record(block.addr() as u64, trace, None, On);
            }
            None => self.allocated_unrecalled(block, size, entry),
        }
    }

    /// Records a block whose stack is not remembered where it is likeliest to be.
    #[inline(never)]
    fn allocated_unrecalled(&self, block: *mut u8, size: usize, entry: Entry) {
        let (block_addr, size) = (block.addr() as u64, size as u64);
        // One in some thousand allocations of a thread comes here, even where all else takes the short ways.
        self.live.shadow().tend_now_and_then();
        let site = thread::guarded(|state| self.site_unrecalled(entry.registers(), state));
        match site {
            Some(site) => self.record(block_addr, LiveTrace { size, site }, None, On),
            None => self.count_nested(),
        }
    }

    /// The same while nothing is recorded, or more than the short way does.
    #[inline(never)]
    fn allocated_otherwise(&self, block: *mut u8, size: usize, entry: Entry) {
        match control::mode() {
            _ if block.is_null() => self.probed(),
            Mode::Off => self.probed(),
            Mode::Short => self.allocated_unrecalled(block, size, entry),
            Mode::AtLength => {
                let (block_addr, size) = (block.addr() as u64, size as u64);
                if self.record_at_length(entry.registers(), block_addr, size, None).is_none() {
                    self.count_nested();
                }
            }
        }
    }

    /// Records a block with its details and a stack that may be deep, if it is to be recorded at all;
    /// `None` inside a guarded section.
    ///
    /// A function of its own: the short way needs fewer registers and less stack.
    #[inline(never)]
    pub(super) fn record_at_length(
        &self,
        here: Registers,
        block_addr: u64,
        size: u64,
        old_bytes: Option<u64>,
    ) -> Option<()> {
        // If tracing has stopped since, the record is taken back.
        let now = State::now();
        if let Some(period) = now.period()
            && !sampler::decides_for(period, size)
        {
            self.forget_resized(old_bytes);
            return Some(());
        }
        thread::guarded(|state| {
            let trace = LiveTrace { size, site: self.site_from(here, state) };
            if self.by_site.is_on() {
                let (n_blocks, bytes) = now.stands_for(size);
                self.by_site.add_allocated(trace.site, n_blocks, bytes);
            }
            if !control::records().any() {
                return self.record(block_addr, trace, old_bytes, now);
            }
            let detail = self.detail_now(|| self.number_of(state));
            self.live.recording(|| {
                self.set_detail(block_addr, detail);
                self.record(block_addr, trace, old_bytes, now);
            });
        })
    }
}
