//! The recorder: what happens to an allocation between the hook and the tables.
//!
//! # The order of things
//!
//! A trace is put into the live table, and added to the totals, and the state is looked at again;
//! if tracing was stopped meanwhile, the trace is taken back. Whoever takes a trace out of the table
//! subtracts it from the totals, and a trace can be taken out once: so table and totals agree as
//! soon as no thread is inside the hook, whatever starts, stops and clears there were.
//!
//! While tracing is sampled, the totals have for each recorded block what it stands for: a function of its
//! size and of the state that it was recorded in. [`crate::control`] says how whoever takes a trace out
//! knows that state. Memory that the program told of counts as it is.

use crate::c_symbols;
use crate::control::{self, Mode, On, Recording, State};
use crate::entry::{self, Entry};
use crate::generation::Generations;
use crate::hook_frames::HookFrames;
use crate::live::{Detail, LiveBlock, LiveTable, LiveTrace, Quick};
use crate::live_blocks::{Beside, LiveBlocks};
use crate::live_samples::LiveSamples;
use crate::lock::LeafLock;
use crate::mapped::{self, Part, resident_bytes_of};
use crate::page_shadow::AtHome;
use crate::page_word::{Shape, small_live, trace_of};
use crate::peak::{Peak, PeakKeeper, PeakTrace, Writer};
use crate::platform;
use crate::sampler;
use crate::scratch;
use crate::site::{Site, SiteId, Sites};
use crate::site_totals::{SiteTotals, TotalsBySite};
use crate::thread::{self, Probe, ThreadState};
use crate::thread_slot::Slot;
use crate::thread_table::{ThreadInfo, ThreadTable};
use crate::totals::{Totals, TracedMemory};
use crate::tracked::{self, Tracked, TrackedTable, TrackedTrace};
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use memtrace_unwind::{End, N_FRAMES_ON_STACK, Registers, StackHash, here};

/// The one recorder of the process.
pub(crate) static RECORDER: Recorder = Recorder {
    live: LiveBlocks::new(),
    sites: Sites::new(),
    tracked: LeafLock::new(TrackedTable::new()),
    peak: LeafLock::new(PeakKeeper::new()),
    threads: ThreadTable::new(),
    generations: Generations::new(),
    totals: Totals::new(),
    by_site: TotalsBySite::new(),
    hook_frames: HookFrames::new(),
    track_frames: HookFrames::new(),
    n_blocks_without_record: AtomicU64::new(0),
    n_blocks_without_site: AtomicU64::new(0),
    n_blocks_without_detail: AtomicU64::new(0),
    n_nested: AtomicU64::new(0),
};

pub(crate) struct Recorder {
    pub(crate) live: LiveBlocks,
    pub(crate) sites: Sites,
    pub(crate) tracked: Tracked,
    pub(crate) peak: LeafLock<PeakKeeper>,
    threads: ThreadTable,
    pub(crate) generations: Generations,
    pub(crate) totals: Totals,
    pub(crate) by_site: TotalsBySite,
    hook_frames: HookFrames,
    /// The frames between [`tracked::track`] and its caller.
    track_frames: HookFrames,
    n_blocks_without_record: AtomicU64,
    n_blocks_without_site: AtomicU64,
    n_blocks_without_detail: AtomicU64,
    n_nested: AtomicU64,
}

/// What was lost for want of memory or by nesting, since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Blocks that are not in the table of live blocks: it could not grow, or the address has no
    /// place in it.
    pub n_blocks_without_record: u64,
    /// Blocks recorded without their stack: no room for a new one.
    pub n_blocks_without_site: u64,
    /// Blocks recorded without their thread and generation, though these were asked for: no room.
    pub n_blocks_without_detail: u64,
    /// Allocations made inside the recorder (by a signal handler), not recorded.
    pub n_nested: u64,
    /// Peaks that were not copied, though this was asked for: no room.
    pub n_peaks: u64,
}

/// What the tracer itself uses, in resident bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracerMemory {
    /// Distinct stacks and their index.
    pub sites: u64,
    /// The table of live blocks, with their details; the words of a pooled heap included.
    pub live_table: u64,
    /// The table of memory that the program told of.
    pub tracked: u64,
    /// The table of threads.
    pub threads: u64,
    /// Copies of all traces as they were at the peak.
    pub peak: u64,
    /// Unwind rules of the addresses seen so far.
    pub unwind_rules: u64,
    /// What threads remember of their earlier captures; mapped bytes rather than resident ones.
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

impl Recorder {
    /// Maps the first tables; `false` if there is no memory for them.
    pub(crate) fn prepare(&self) -> bool {
        self.live.prepare() && self.sites.prepare()
    }

    /// Finds out which frames are the hook's own by allocating; `false` if the hook was not called.
    pub(crate) fn find_hook_frames(&self) -> bool {
        let before = self.hook_frames.n_probes();
        // Named here because a capture need not see them: the compiler may turn their last call into a
        // jump, and the ways in for tracked memory are not called by the probe.
        for entry in [entry::allocated as *const (), Recorder::resized as *const ()] {
            self.hook_frames.add_function_of(entry.addr() as u64);
        }
        let entries = [
            Recorder::capture as *const (),
            tracked::track as *const (),
            c_symbols::memtrace_track as *const (),
        ];
        for entry in entries {
            self.track_frames.add_function_of(entry.addr() as u64);
        }
        thread::while_probing(Probe::Functions, platform::probe_global_allocator);
        // Stacks that were remembered may begin with frames now known to be the hook's.
        memtrace_unwind::forget_unloaded();
        self.hook_frames.n_probes() != before
    }

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
    fn record_at_length(
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

    /// Learns from an allocation that was made to find out about the hook itself.
    #[inline(always)]
    fn probed(&self) {
        match thread::probe() {
            Probe::None => {}
            Probe::Functions => self.hook_frames.learn(),
        }
    }

    /// Counts an allocation inside a guarded section, unless the section leaves it out on purpose.
    #[cold]
    fn count_nested(&self) {
        if thread::is_recording() {
            self.n_nested.fetch_add(1, Relaxed);
        }
    }

    /// Forgets a block that is about to be given back, or that the program says is gone. `state` was
    /// looked at just before.
    #[inline(always)]
    pub(crate) fn releasing(&self, block_addr: u64, state: State) {
        if state.is_plain() {
            Self::releasing_plainly(block_addr);
        } else if state.is_sampled() {
            self.releasing_sampled(block_addr, state);
        } else {
            self.releasing_in(block_addr, state);
        }
    }

    /// The same while tracing is sampled, for what [`State::lets_go`] did not let go.
    #[cold]
    #[inline(never)]
    pub(crate) fn releasing_sampled(&self, block_addr: u64, state: State) {
        self.release_at_length(&LiveSamples(&self.live), block_addr, state);
    }

    /// The same in the state [`On`], in which neither totals by site nor a copy of the peak are kept.
    ///
    /// What is not as it is most of the time is left to others in a jump, not a call, so that no registers need
    /// be saved but for the search of the thread's own memory; nor does `self` need one.
    // Not inlined into the program's own code, which has registers to spare for nothing.
    #[inline(never)]
    fn releasing_plainly(block_addr: u64) {
        let slot = thread::slot();
        let recorder = &RECORDER;
        // No guard: nothing here can nest, and a release in a signal handler counts, too.
        let Some(slot) = slot else { return recorder.releasing_in(block_addr, On) };
        match recorder.live.shadow().take_at_home(slot, block_addr) {
            AtHome::Done(trace) => recorder.released(slot, trace),
            AtHome::Not(shape) => Self::releasing_from_line(slot, block_addr, shape),
            AtHome::Unknown => recorder.releasing_in(block_addr, On),
        }
    }

    /// The same where the trace is not where it is likeliest to be; ends the operation.
    #[inline(never)]
    fn releasing_from_line(slot: &Slot, block_addr: u64, shape: Shape) {
        let recorder = &RECORDER;
        match recorder.live.shadow().take_from_line(shape, block_addr) {
            Quick::Taken(trace) => recorder.released(slot, trace),
            Quick::Nothing => slot.end(),
            Quick::Unknown => {
                slot.end();
                recorder.release_at_length(recorder.live.shadow(), block_addr, On);
            }
        }
    }

    /// Ends the operation in which a trace was taken, and subtracts it from the thread's own sums.
    #[inline(always)]
    fn released(&self, slot: &Slot, trace: LiveTrace) {
        slot.end_with_block_removed();
        if self.totals.shrink_own(slot, trace.size) {
            self.totals.flush_if_much(slot);
        }
    }

    #[inline(never)]
    fn releasing_in(&self, block_addr: u64, state: impl Recording) {
        match self.live.beside() {
            None => self.release_from(self.live.shadow(), block_addr, state),
            Some(table) => self.releasing_beside(table, block_addr, state),
        }
    }

    /// The same where traces stand beside their blocks.
    #[inline(never)]
    fn releasing_beside(&self, table: Beside<'_>, block_addr: u64, state: impl Recording) {
        self.release_from(&table, block_addr, state);
    }

    #[inline(always)]
    fn release_from(&self, table: &impl LiveTable, block_addr: u64, state: impl Recording) {
        // No guard: nothing here can nest, and a release in a signal handler counts, too.
        match table.take_quickly(block_addr) {
            Quick::Taken(trace) => self.remove_taken(block_addr, trace, state),
            Quick::Nothing => {}
            Quick::Unknown => self.release_at_length(table, block_addr, state),
        }
    }

    /// The same where the trace is not where it is likeliest to be. Out of line, so that the other way needs few
    /// registers.
    #[inline(never)]
    fn release_at_length(&self, table: &impl LiveTable, block_addr: u64, state: impl Recording) {
        if let Some(trace) = table.take(block_addr) {
            self.remove_taken(block_addr, trace, state);
        }
    }

    /// Subtracts a block that was taken out of the table, and keeps the peak if this was one.
    #[inline]
    fn remove_taken(&self, block_addr: u64, trace: LiveTrace, state: impl Recording) {
        if self.by_site.is_on() {
            let (n_blocks, bytes) = state.stands_for(trace.size);
            self.by_site.add_freed(trace.site, n_blocks, bytes);
        }
        let before = self.totals.remove(state.counted(trace.size));
        if self.totals.is_peak(before) {
            self.keep_peak_with_block(before, block_addr, trace);
        }
    }

    /// Keeps the peak, if this is one, before a block becomes smaller that was taken out of the table
    /// and not yet subtracted.
    #[inline]
    fn shrinking(&self, block_addr: u64, trace: LiveTrace) {
        if self.totals.is_shared() {
            let now = self.totals.bytes();
            if self.totals.is_peak(now) {
                self.keep_peak_with_block(now, block_addr, trace);
            }
        }
    }

    /// Takes out the record of a block that is about to be resized. `state` was looked at just before.
    #[inline]
    pub(crate) fn resizing(
        &self,
        block: *mut u8,
        new_size: usize,
        state: State,
    ) -> Option<LiveTrace> {
        let block_addr = block.addr() as u64;
        let trace = self.live.take(block_addr)?;
        // One that was sampled need not be sampled again.
        if trace.size > new_size as u64 || state.is_sampled() {
            self.shrinking(block_addr, trace);
        }
        Some(trace)
    }

    /// Puts back the record of a block that could not be resized.
    #[cold]
    pub(crate) fn not_resized(&self, block: *mut u8, record: Option<LiveTrace>, state: State) {
        if let Some(trace) = record {
            let bytes = state.counted(trace.size);
            self.record(block.addr() as u64, trace, Some(bytes), state);
        }
    }

    /// Records a resized block, whose earlier record, `old`, was made in `old_state`.
    #[inline(never)]
    pub(crate) fn resized(
        &self,
        block: *mut u8,
        size: usize,
        old: Option<LiveTrace>,
        old_state: State,
    ) {
        let (block_addr, size) = (block.addr() as u64, size as u64);
        let old_bytes = old.map(|old| old_state.counted(old.size));
        if self.by_site.is_on()
            && let Some(old) = old
        {
            let (n_blocks, bytes) = old_state.stands_for(old.size);
            self.by_site.add_freed(old.site, n_blocks, bytes);
        }
        let recorded = match control::mode() {
            Mode::Off => {
                self.forget_resized(old_bytes);
                return self.probed();
            }
            Mode::Short => {
                let here = here();
                thread::guarded(|state| {
                    let trace = LiveTrace { size, site: self.site_from(here, state) };
                    self.record(block_addr, trace, old_bytes, On);
                })
            }
            Mode::AtLength => self.record_at_length(here(), block_addr, size, old_bytes),
        };
        if recorded.is_none() {
            match old {
                Some(old) => {
                    self.resized_unguarded(block_addr, LiveTrace { size, ..old }, old_bytes)
                }
                None => self.count_nested(),
            }
        }
    }

    /// Subtracts the earlier record of a resized block that gets no new one.
    #[inline]
    fn forget_resized(&self, old_bytes: Option<u64>) {
        if let Some(old_bytes) = old_bytes {
            self.totals.remove(old_bytes);
        }
    }

    /// Records a resized block inside a guarded section: it was known and stays known, born anew; its
    /// stack is the only one there is.
    #[cold]
    fn resized_unguarded(&self, block_addr: u64, trace: LiveTrace, old_bytes: Option<u64>) {
        // If tracing has stopped since, the record is taken back.
        let state = State::now();
        if self.by_site.is_on() {
            let (n_blocks, bytes) = state.stands_for(trace.size);
            self.by_site.add_allocated(trace.site, n_blocks, bytes);
        }
        self.live.recording(|| {
            if control::records().any() {
                let number = || thread::with_state(ThreadState::number).unwrap_or(0);
                self.set_detail(block_addr, self.detail_now(number));
            }
            self.record(block_addr, trace, old_bytes, state);
        });
    }

    /// Gives a block that is recorded a new record, of what the program told of it; `false` if there is
    /// no record at this address.
    ///
    /// While tracing is sampled there is none afterwards, either: what is in the table then was sampled,
    /// and what the program tells of was not.
    pub(crate) fn replace_block(&self, block_addr: u64, trace: LiveTrace, detail: Detail) -> bool {
        let state = State::now();
        if state.is_sampled() {
            self.releasing(block_addr, state);
            return false;
        }
        let Some(old) = self.live.take(block_addr) else { return false };
        if old.size > trace.size {
            self.shrinking(block_addr, old);
        }
        self.live.recording(|| {
            if control::records().any() {
                self.set_detail(block_addr, detail);
            }
            self.record(block_addr, trace, Some(old.size), state);
        });
        true
    }

    /// Copies all traces, and the block that was taken out of the table but counts for the `bytes`.
    #[cold]
    #[inline(never)]
    fn keep_peak_with_block(&self, bytes: i64, block_addr: u64, trace: LiveTrace) {
        let has_details = control::records().any();
        let detail = if has_details { self.live.detail(block_addr) } else { Detail::UNKNOWN };
        self.keep_peak(bytes, Some(PeakTrace::new(trace, self.told(detail))));
    }

    /// Copies all traces, and the one that was `taken` out of its table but counts for the `bytes`.
    ///
    /// Called for a release of the program's, before the block is given back and without a lock.
    #[cold]
    pub(crate) fn keep_peak(&self, bytes: i64, taken: Option<PeakTrace>) {
        // A signal handler that releases may have interrupted the holder of a lock that is needed here,
        // this very thread: then waiting for it would never end.
        if thread::holds_lock() {
            return;
        }
        // Others who come now are about to release no more than what the one who copies has seen, or
        // will come again.
        let Some(mut peak) = self.peak.try_lock() else { return };
        if !self.totals.is_peak(bytes) {
            return;
        }
        self.totals.set_threshold(i64::MAX);
        let state = State::now();
        let counted = |size| state.counted(size);
        let next = peak.copy(bytes, control::records().any(), &counted, |writer| {
            taken.into_iter().for_each(|trace| writer.push(trace));
            self.write_all(writer);
        });
        self.totals.set_threshold(next);
    }

    fn write_all(&self, writer: &mut Writer<'_>) {
        if control::records().any() {
            self.live.for_each::<true>(|_, trace, detail| {
                writer.push(PeakTrace::new(trace, self.told(detail)));
            });
        } else {
            self.live.for_each::<false>(|_, trace, detail| {
                writer.push(PeakTrace::new(trace, detail));
            });
        }
        self.tracked.lock().iter().for_each(|trace| writer.push(trace.as_peak()));
    }

    /// Returns how many copies of a peak there have been, and how many there was no room for.
    fn n_peak_copies(&self) -> (u64, u64) {
        self.peak.lock().n_copies()
    }

    /// Begins to keep the peak, if copies are wanted. Called under the control lock.
    pub(crate) fn begin_peak(&self, percent: Option<u16>) {
        self.peak.lock().set_percent(percent);
        self.totals.set_shared(percent.is_some());
        self.reset_peak();
    }

    /// Lets no copy be made until [`Self::reset_peak`], and forgets the one there is.
    pub(crate) fn suspend_peak(&self) {
        let mut peak = self.peak.lock();
        peak.forget();
        self.totals.set_threshold(i64::MAX);
    }

    /// Keeps the peak no more.
    pub(crate) fn end_peak(&self) {
        let mut peak = self.peak.lock();
        peak.set_percent(None);
        self.totals.set_threshold(i64::MAX);
        self.totals.set_shared(false);
    }

    /// Makes the peak what is traced now.
    pub(crate) fn reset_peak(&self) {
        // Under the lock, so that no copy of an earlier peak is made meanwhile.
        let mut peak = self.peak.lock();
        peak.forget();
        self.totals.reset_peak();
        self.totals.set_threshold(peak.first_threshold());
    }

    /// Returns the site of the caller of a function of this crate, and the detail of what it does now.
    #[inline(never)]
    pub(crate) fn capture(&self) -> (SiteId, Detail) {
        let here = here();
        thread::guarded(|state| {
            let site = self.site_without(&self.track_frames, here, state);
            (site, self.detail_now(|| self.number_of(state)))
        })
        .unwrap_or((SiteId::UNKNOWN, Detail::UNKNOWN))
    }

    /// Stores the detail of a block that is about to be recorded.
    #[inline]
    fn set_detail(&self, block_addr: u64, detail: Detail) {
        if self.live.set_detail(block_addr, detail).is_err() {
            self.n_blocks_without_detail.fetch_add(1, Relaxed);
        }
    }

    /// Returns the detail of what happens now: the generation always, by which details of earlier
    /// runs are told; the thread if it is wanted.
    #[inline]
    fn detail_now(&self, thread: impl FnOnce() -> u32) -> Detail {
        let thread = if control::records().threads { thread() } else { 0 };
        Detail { thread, birth: self.generations.current() }
    }

    /// Returns the number of a thread, giving it one the first time.
    #[inline]
    fn number_of(&self, state: &ThreadState) -> u32 {
        match state.number() {
            0 => state.set_number(self.threads.register()),
            number => number,
        }
    }

    /// What of a detail is to be told.
    #[inline]
    pub(crate) fn told(&self, detail: Detail) -> Detail {
        let records = control::records();
        if !self.generations.is_of_run(detail.birth) {
            // Of a block of an earlier run at the same address.
            return Detail::UNKNOWN;
        }
        let birth = if records.generations { detail.birth } else { 0 };
        Detail { birth, ..detail }
    }

    /// Renews, in a forked child, what the system tells about its only thread.
    pub(crate) fn renew_thread(&self) {
        if let Some(number @ 1..) = thread::with_state(ThreadState::number) {
            self.threads.renew(number);
        }
    }

    /// Empties the tables of traces, which were recorded in `state`.
    pub(crate) fn forget_all(&self, state: State) {
        self.live.clear(&mut |trace| {
            self.totals.remove(state.counted(trace.size));
        });
        self.tracked.lock().clear(|trace| {
            self.totals.remove(trace.size);
        });
    }

    /// Counts the totals anew from the tables. Called in a forked child, by its only thread, which
    /// holds all locks.
    pub(crate) fn recount(&self) {
        let state = State::now();
        let (mut n_blocks, mut bytes) = (0u64, 0u64);
        let mut count = |size: u64| {
            n_blocks = n_blocks.saturating_add(1);
            bytes = bytes.saturating_add(size);
        };
        self.live.for_each::<false>(|_, trace, _| count(state.counted(trace.size)));
        self.tracked.with_acquired(|table| table.for_each(&mut |trace| count(trace.size)));
        self.totals.set(n_blocks, bytes);
    }

    /// Puts a trace into the table and the totals, as it is recorded in `state`. One that was taken out
    /// before, and counts for `old_bytes`, makes way.
    #[inline(always)]
    fn record(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        if state.sampled().is_some() {
            return self.record_any(block_addr, trace, old_bytes, state);
        }
        match (old_bytes, thread::slot()) {
            (None, Some(slot)) => Self::record_new(slot, block_addr, trace, state),
            (Some(old_bytes), Some(slot)) => {
                Self::record_again(slot, block_addr, trace, old_bytes, state);
            }
            (old_bytes, None) => self.record_any(block_addr, trace, old_bytes, state),
        }
    }

    /// The same for a block that is new, by a thread with a slot. What is not as it is most of the time is left
    /// to others in a jump, not a call, so that no registers need be saved; nor does the one recorder need one.
    // Not inlined into the capture, which needs the registers.
    #[inline(never)]
    fn record_new(slot: &Slot, block_addr: u64, trace: LiveTrace, state: impl Recording) {
        let recorder = &RECORDER;
        if !state.is_plain() && recorder.totals.is_shared() {
            return recorder.record_any(block_addr, trace, None, state);
        }
        // From here on, the word is all that is known of the trace, so that it takes no more than one register.
        let Some(word) = small_live(block_addr, trace) else {
            return recorder.record_any(block_addr, trace, None, state);
        };
        match recorder.live.shadow().insert_at_home(slot, block_addr, word) {
            AtHome::Done(()) => recorder.recorded(slot, block_addr, word, state),
            AtHome::Not(shape) => Self::record_in_line(slot, block_addr, word, shape, state),
            AtHome::Unknown => recorder.record_any(block_addr, trace, None, state),
        }
    }

    /// The same for a block that takes the place of another.
    #[inline(never)]
    fn record_again(
        slot: &Slot,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: u64,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if !state.is_plain() && recorder.totals.is_shared() {
            return recorder.record_any(block_addr, trace, Some(old_bytes), state);
        }
        let Some(word) = small_live(block_addr, trace) else {
            return recorder.record_any(block_addr, trace, Some(old_bytes), state);
        };
        match recorder.live.shadow().insert_at_home(slot, block_addr, word) {
            AtHome::Done(()) => {
                slot.end();
                let bytes = state.counted(trace_of(word).size) as i64;
                let is_much =
                    recorder.totals.resize_own(slot, bytes.wrapping_sub(old_bytes as i64));
                if is_much || !state.is_still() {
                    Self::recorded_last(slot, block_addr, word, state);
                }
            }
            AtHome::Not(_) => {
                slot.end();
                recorder.record_any(block_addr, trace_of(word), Some(old_bytes), state);
            }
            AtHome::Unknown => recorder.record_any(block_addr, trace, Some(old_bytes), state),
        }
    }

    /// The same where there is a trace where this one would be likeliest to be.
    #[inline(never)]
    fn record_in_line(
        slot: &Slot,
        block_addr: u64,
        word: u64,
        shape: Shape,
        state: impl Recording,
    ) {
        let recorder = &RECORDER;
        if recorder.live.shadow().insert_into_line(shape, word) {
            return recorder.recorded(slot, block_addr, word, state);
        }
        slot.end();
        recorder.record_slowly(recorder.live.shadow(), block_addr, trace_of(word), None, state);
    }

    /// Ends the operation in which a trace was put into the table, and adds it to the thread's own sums.
    #[inline(always)]
    fn recorded(&self, slot: &Slot, block_addr: u64, word: u64, state: impl Recording) {
        let bytes = state.counted(trace_of(word).size);
        slot.end_with_block_added();
        let is_much = self.totals.grow_own(slot, bytes as i64);
        if is_much || !state.is_still() {
            Self::recorded_last(slot, block_addr, word, state);
        }
    }

    #[cold]
    #[inline(never)]
    fn recorded_last(slot: &Slot, block_addr: u64, word: u64, state: impl Recording) {
        let (recorder, trace) = (&RECORDER, trace_of(word));
        recorder.totals.flush_if_much(slot);
        if !state.is_still() {
            let bytes = state.counted(trace.size);
            recorder.take_back(recorder.live.shadow(), block_addr, trace, bytes);
        }
    }

    /// Puts any trace into the table and the totals.
    #[inline(never)]
    fn record_any(
        &self,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        if let Some(state) = state.sampled() {
            let table = LiveSamples(&self.live);
            return self.record_slowly(&table, block_addr, trace, old_bytes, state);
        }
        match self.live.beside() {
            None => self.record_in(self.live.shadow(), block_addr, trace, old_bytes, state),
            Some(table) => self.record_beside(table, block_addr, trace, old_bytes, state),
        }
    }

    /// The same where traces stand beside their blocks.
    #[inline(never)]
    fn record_beside(
        &self,
        table: Beside<'_>,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        self.record_in(&table, block_addr, trace, old_bytes, state);
    }

    #[inline(always)]
    fn record_in(
        &self,
        table: &impl LiveTable,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        // Where none was there before, that was tried.
        if old_bytes.is_some() && table.insert_quickly(block_addr, trace) {
            let bytes = state.counted(trace.size);
            self.count(bytes, old_bytes);
            if !state.is_still() {
                self.take_back(table, block_addr, trace, bytes);
            }
        } else {
            self.record_slowly(table, block_addr, trace, old_bytes, state);
        }
    }

    /// Adds the bytes of a trace that was put into the table, in the place of another's if there was one.
    #[inline(always)]
    fn count(&self, bytes: u64, old_bytes: Option<u64>) {
        match old_bytes {
            Some(old_bytes) => self.totals.replace(old_bytes, bytes),
            None => self.totals.add(bytes),
        }
    }

    /// Takes back a trace that was put into the table when tracing had just been stopped.
    #[cold]
    fn take_back(&self, table: &impl LiveTable, block_addr: u64, trace: LiveTrace, bytes: u64) {
        if table.take_if(block_addr, trace) {
            self.totals.remove(bytes);
        }
    }

    /// The same where there is no room where the trace would be likeliest to be.
    #[inline(never)]
    fn record_slowly(
        &self,
        table: &impl LiveTable,
        block_addr: u64,
        trace: LiveTrace,
        old_bytes: Option<u64>,
        state: impl Recording,
    ) {
        match table.insert(block_addr, trace) {
            Ok(forgotten) => {
                let bytes = state.counted(trace.size);
                self.count(bytes, old_bytes);
                // A block at this address was given back unseen.
                if let Some(forgotten) = forgotten {
                    self.totals.remove(state.counted(forgotten.size));
                }
                if !state.is_still() {
                    self.take_back(table, block_addr, trace, bytes);
                }
            }
            Err(_) => {
                self.n_blocks_without_record.fetch_add(1, Relaxed);
                self.forget_resized(old_bytes);
            }
        }
    }

    /// Returns the site of the program's call of the hook, the recorder having been entered at `here`.
    #[inline(always)]
    fn site_from(&self, here: Registers, state: &ThreadState) -> SiteId {
        self.site_without(&self.hook_frames, here, state)
    }

    /// The same if [`thread::recall`] has not told it.
    #[inline(always)]
    fn site_unrecalled(&self, here: Registers, state: &ThreadState) -> SiteId {
        let limit = usize::from(control::limit());
        let sites = SitesWithout { sites: &self.sites, own: &self.hook_frames };
        match state.site_unrecalled(here, limit, &sites) {
            Some(number) => SiteId(number.get()),
            None => self.count_without_site(),
        }
    }

    /// Returns the site of the stack at `here`, without the frames of the recorder's own.
    #[inline(always)]
    fn site_without(&self, own: &HookFrames, here: Registers, state: &ThreadState) -> SiteId {
        let limit = usize::from(control::limit());
        let sites = SitesWithout { sites: &self.sites, own };
        match state.site_from(here, limit, &sites) {
            Some(number) => SiteId(number.get()),
            None => self.count_without_site(),
        }
    }

    #[cold]
    fn count_without_site(&self) -> SiteId {
        self.n_blocks_without_site.fetch_add(1, Relaxed);
        SiteId::UNKNOWN
    }
}

/// The table of sites, as captures that leave own frames out see it.
///
/// One cache serves the hook and `track`, whose own frames differ. What it remembers is by the function
/// that a capture began in, and that is of the one or of the other.
struct SitesWithout<'a> {
    sites: &'a Sites,
    own: &'a HookFrames,
}

impl memtrace_unwind::Sites for SitesWithout<'_> {
    #[inline(always)]
    fn find(&self, hash: StackHash) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.find(hash)?.get())
    }

    #[inline(always)]
    fn find_after(&self, last: u32, hash: StackHash) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.find_after(SiteId(last), hash)?.get())
    }

    fn insert(&self, hash: StackHash, call_addrs: &[u64], end: End) -> Option<NonZeroU32> {
        NonZeroU32::new(self.sites.insert(hash, call_addrs, end)?.get())
    }

    fn with_buffer<R>(&self, len: usize, f: impl FnOnce(&mut [u64]) -> R) -> Option<R> {
        if len <= N_FRAMES_ON_STACK {
            return Some(f(&mut [0; N_FRAMES_ON_STACK]));
        }
        scratch::with_buffer(f)
    }

    #[inline(always)]
    fn is_own(&self, call_addr: u64) -> bool {
        self.own.contains(call_addr)
    }
}

/// Whether tracing is on; starts it if `MEMTRACE` asks for it and nothing has allocated before.
pub fn is_tracing() -> bool {
    control::is_on_or_asked_for()
}

/// Returns the number of frames last given to [`crate::start`]; 1 before.
pub fn traceback_limit() -> u16 {
    control::limit()
}

/// Returns the requested bytes of all live traces, now and at most; zeros while tracing is off.
///
/// While tracing is sampled ([`crate::Options::sample_every`]), estimates of the bytes of all blocks: each
/// recorded one counts for those it stands for.
///
/// **Cost**: two loads. Exact when no other thread is allocating.
pub fn traced_memory() -> TracedMemory {
    if control::is_on() { RECORDER.totals.read() } else { TracedMemory::default() }
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

/// Returns what was lost since the process began.
pub fn losses() -> Losses {
    Losses {
        n_blocks_without_record: RECORDER.n_blocks_without_record.load(Relaxed),
        n_blocks_without_site: RECORDER.n_blocks_without_site.load(Relaxed),
        n_blocks_without_detail: RECORDER.n_blocks_without_detail.load(Relaxed),
        n_nested: RECORDER.n_nested.load(Relaxed),
        n_peaks: RECORDER.n_peak_copies().1,
    }
}

/// Returns the record of the block or the tracked memory (domain 0) that starts at an address.
pub fn trace_at(addr: u64) -> Option<LiveBlock> {
    let block = || {
        // Another block may take this one's place between the two.
        let trace = RECORDER.live.get(addr)?;
        Some(LiveBlock::new(addr, trace, RECORDER.told(RECORDER.live.detail(addr))))
    };
    block().or_else(|| RECORDER.tracked.lock().get(0, addr).map(TrackedTrace::as_block))
}

/// Returns the stack of a site; `None` for [`SiteId::UNKNOWN`].
pub fn site_frames(site: SiteId) -> Option<Site> {
    RECORDER.sites.get(site)
}

/// Visits every site with what was allocated there, and what of that was given back, since tracing began or
/// traces were cleared, if tracing was started with [`crate::Options::site_totals`]; then returns `true`.
///
/// Sites at which nothing was are left out; what was allocated without a known stack is told of as
/// [`SiteId::UNKNOWN`]. While tracing is sampled the figures are estimates.
///
/// **Cost**: up to eight loads of a cache line a site.
pub fn for_each_site_totals(mut visit: impl FnMut(SiteId, SiteTotals)) -> bool {
    if !RECORDER.by_site.is_on() {
        return false;
    }
    for number in 0..=RECORDER.sites.n_sites() {
        let site = SiteId(number);
        let totals = RECORDER.by_site.of_site(site);
        if totals != SiteTotals::default() {
            visit(site, totals);
        }
    }
    true
}

/// Visits every traced block while the program runs on.
///
/// A block that is live throughout is visited exactly once; one that is allocated or given back
/// meanwhile may or may not be. Memory that the program told of is copied by
/// [`crate::copy_tracked`].
///
/// **Cost**: reads 8 to 13 bytes for each block, and 8 more if threads or generations are recorded: 2 to 6 ms
/// for a million blocks of 64 bytes.
pub fn for_each_block(mut visit: impl FnMut(LiveBlock)) {
    RECORDER.live.tend_if_due();
    if control::records().any() {
        RECORDER.live.for_each::<true>(|addr, trace, detail| {
            visit(LiveBlock::new(addr, trace, RECORDER.told(detail)));
        });
    } else {
        RECORDER.live.for_each::<false>(|addr, trace, detail| {
            visit(LiveBlock::new(addr, trace, detail));
        });
    }
}

/// Copies all traces as they were when memory was highest into `buffer`, if tracing was started with
/// [`crate::Options::peak_percent`].
///
/// The copy is forgotten when the peak is reset or traces are cleared, and when tracing stops. A forked
/// child begins with its parent's.
///
/// ```
/// # #[global_allocator]
/// # static ALLOC: memtrace_alloc::Alloc = memtrace_alloc::Alloc::system();
/// use memtrace_alloc::{Options, Peak};
///
/// memtrace_alloc::start_with(Options::new().peak_percent(1)).unwrap();
/// drop(std::hint::black_box(vec![0u8; 1_000_000]));
///
/// let mut buffer = memtrace_alloc::untraced(|| vec![0; 1000]);
/// loop {
///     match memtrace_alloc::copy_peak(&mut buffer) {
///         Peak::NoRoom { n_words } => {
///             memtrace_alloc::untraced(|| buffer.resize(n_words + n_words / 8, 0));
///         }
///         Peak::Copied(copy) => {
///             assert!(copy.traces().any(|trace| trace.size == 1_000_000));
///             break;
///         }
///         Peak::Now | Peak::NotKept => unreachable!("a megabyte was released"),
///     }
/// }
/// ```
///
/// **Cost**: copies 8 bytes a block, or 16; waits for a copy of the peak that is being made. While this
/// runs no other copy is made, so that a peak of this very moment may be missed.
pub fn copy_peak(buffer: &mut [u64]) -> Peak<'_> {
    let now = u64::try_from(RECORDER.totals.bytes()).unwrap_or(0);
    RECORDER.peak.lock().read(now, buffer)
}

/// Returns how many blocks there are, about: to reserve memory for [`for_each_block`].
pub fn n_traces() -> u64 {
    RECORDER.totals.n_blocks().saturating_add(RECORDER.tracked.lock().len() as u64)
}

/// Ends the current generation and returns its number: called just before a snapshot is copied.
///
/// Every block that was recorded before this call was born in the generation that ends, or in an
/// earlier one; every one whose recording begins after it, in a later one. A block that another thread
/// is recording at this very moment may be of the generation that ends and yet be missing from the
/// snapshot.
///
/// Numbers are counted up as long as the process lives, over stops, starts, clears and forks; the first
/// of a run of tracing is greater than the last of the run before. 0 is none.
///
/// **Cost**: one addition.
pub fn advance_generation() -> u32 {
    RECORDER.generations.advance()
}

/// Returns the number of the current generation; 0 before the first [`crate::start`].
pub fn generation() -> u32 {
    RECORDER.generations.current()
}

/// Returns the identity of this run of tracing, from one start to the next; 0 before the first.
///
/// Random: no other run of this process or any other has it, a forked child's included, whose
/// generations go different ways from its parent's.
pub fn run_id() -> u64 {
    RECORDER.generations.run_id()
}

/// Returns what is known of the thread that has a number; `None` if there is none.
pub fn thread_info(number: u32) -> Option<ThreadInfo> {
    RECORDER.threads.get(number)
}

/// Returns the highest number that a thread has: numbers go from 1 to this one.
pub fn n_threads() -> u32 {
    RECORDER.threads.n_threads()
}
