//! The peak: a copy of all traces as they were when memory was highest.
//!
//! # Mechanism
//!
//! Memory is at a peak just before it begins to shrink. So growth is left alone, and the work is done
//! by a release: if what is traced, the block included, exceeds a threshold, the thread that releases
//! copies the live table, the tracked memory and the block itself into a buffer, and sets the
//! threshold a given percentage above what it copied. Of several threads that get there at once, one
//! copies and the others pass by.
//!
//! In a program of one thread the copy is exact, and never more than the percentage below the true
//! peak. With more, others allocate and release while the copy is made: it holds what a snapshot would.
//!
//! There are two buffers. A copy is made into the one that does not hold the copy that is kept, and
//! takes its place if it is nearer to the peak: the other stays if memory runs out, or if other threads
//! released so much meanwhile that less is left in the new one.
//!
//! # Invariants
//!
//! - **I1** Buffers, the copy that is kept, and the threshold of [`crate::totals`] change only under the
//!   lock, which a release only ever tries to take.
//! - **I2** `kept` names a complete copy of the present run: of all that were made since the peak was
//!   last reset, the one nearest to the peak.
//! - **I3** While the peak is not wanted, and during a copy, the threshold is `i64::MAX`: nobody comes.
//!
//! # The words of a copy
//!
//! Of each trace: the lower half of the size, the site, and two bits, in one word; then, as those bits
//! say, the upper half of the size and the domain of tracked memory; then the detail, if details are
//! recorded.
//!
//! # Cost
//!
//! One comparison a release. A copy takes as long as a snapshot's pass over the live table, a few
//! milliseconds for a million blocks, during which the releasing thread stands still. From each copy to
//! the next memory grows by the percentage: at 1 %, 232 copies while it grows tenfold, and about a
//! hundred times the work of the last one in all. 8 bytes a block, or 16 with details, in each buffer.
#![expect(unsafe_code, reason = "words in mapped memory")]

use crate::live::{Detail, LiveTrace};
use crate::mapped::Part;
use crate::segments::Segments;
use crate::site::SiteId;

/// A trace of a copy. Addresses are not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeakTrace {
    /// Kind of memory; 0 is the domain of the global allocator's blocks.
    pub domain: u32,
    /// Requested bytes.
    pub size: u64,
    /// The stack of the call that allocated or last resized the block.
    pub site: SiteId,
    /// The number of the thread that made this call; 0 if threads are not recorded.
    pub thread: u32,
    /// The generation in which it was made; 0 if generations are not recorded.
    pub birth: u32,
    /// Whether the program told of it with [`crate::track`], so that it was never left to chance.
    pub is_tracked: bool,
}

impl PeakTrace {
    /// A block of the global allocator.
    pub(crate) const fn new(trace: LiveTrace, detail: Detail) -> Self {
        let LiveTrace { size, site } = trace;
        let Detail { thread, birth } = detail;
        Self { domain: 0, size, site, thread, birth, is_tracked: false }
    }

    /// Memory that the program told of.
    pub(crate) const fn tracked(domain: u32, trace: LiveTrace, detail: Detail) -> Self {
        Self { domain, is_tracked: true, ..Self::new(trace, detail) }
    }
}

/// A copy of all traces as they were at the peak.
#[derive(Clone, Copy, Debug)]
pub struct PeakCopy<'a> {
    words: &'a [u64],
    bytes: u64,
    has_details: bool,
}

impl PeakCopy<'_> {
    /// Returns the bytes that were traced when the copy began; the sum of its traces, unless other
    /// threads were at work.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Visits the traces.
    pub fn traces(&self) -> impl Iterator<Item = PeakTrace> {
        let mut words = self.words.iter().copied();
        let has_details = self.has_details;
        core::iter::from_fn(move || decode(&mut words, has_details))
    }
}

/// What is known of the state at the peak.
#[derive(Clone, Copy, Debug)]
pub enum Peak<'a> {
    /// Nothing: tracing is off, or was not asked to keep it.
    NotKept,
    /// The present state is as near to the peak as any that was copied: take a snapshot of that.
    Now,
    /// The copy takes up more words than the buffer has.
    NoRoom {
        /// Words that would do at this moment.
        n_words: usize,
    },
    /// The copy, in the buffer.
    Copied(PeakCopy<'a>),
}

const IS_LARGE: u64 = 1;
const IS_TRACKED: u64 = 2;

fn encode(trace: PeakTrace, has_details: bool, mut push: impl FnMut(u64)) {
    let high = trace.size >> 32;
    let is_large = if high == 0 { 0 } else { IS_LARGE };
    let is_tracked = if trace.is_tracked { IS_TRACKED } else { 0 };
    push(trace.size << 32 | u64::from(trace.site.0) << 2 | is_large | is_tracked);
    if is_large != 0 {
        push(high);
    }
    if is_tracked != 0 {
        push(trace.domain.into());
    }
    if has_details {
        push(Detail { thread: trace.thread, birth: trace.birth }.to_word());
    }
}

fn decode(words: &mut impl Iterator<Item = u64>, has_details: bool) -> Option<PeakTrace> {
    let first = words.next()?;
    let high = if first & IS_LARGE != 0 { words.next()? } else { 0 };
    let is_tracked = first & IS_TRACKED != 0;
    let domain = if is_tracked { words.next()? as u32 } else { 0 };
    let detail = if has_details { Detail::from_word(words.next()?) } else { Detail::UNKNOWN };
    let trace = LiveTrace { size: high << 32 | first >> 32, site: SiteId(first as u32 >> 2) };
    Some(PeakTrace { domain, is_tracked, ..PeakTrace::new(trace, detail) })
}

const FIRST_LEN: usize = 1 << 13;
const N_SEGMENTS: usize = 28;

/// Words that were written, in segments that stay for the next copy.
struct Buffer {
    segments: Segments<u64, FIRST_LEN, N_SEGMENTS>,
    n_words: usize,
    /// What was traced when the copy began, in bytes.
    bytes: u64,
    /// The sum over the copy.
    sum: u64,
    has_details: bool,
}

impl Buffer {
    const fn new() -> Self {
        let segments = Segments::new(Part::Peak);
        Self { segments, n_words: 0, bytes: 0, sum: 0, has_details: false }
    }

    /// How high a peak the copy shows: less if traces are missing from it, or there twice over.
    fn height(&self) -> u64 {
        self.bytes.saturating_sub(self.bytes.abs_diff(self.sum))
    }

    /// Copies the words to the beginning of `out`, which has room for them.
    fn copy_to(&self, out: &mut [u64]) {
        let mut n_left = self.n_words;
        let mut out = out;
        for k in 0..N_SEGMENTS {
            let (segment, len) = self.segments.segment_or_map(k);
            let n = n_left.min(len);
            let Some((place, rest)) = out.split_at_mut_checked(n) else { return };
            if n == 0 || segment.is_null() {
                return;
            }
            // SAFETY: a mapped segment of this length, of which nobody writes to the kept buffer's.
            place.copy_from_slice(unsafe { core::slice::from_raw_parts(segment, n) });
            n_left = n_left.saturating_sub(n);
            out = rest;
        }
    }
}

/// Writes traces to a buffer, one after the other.
pub(crate) struct Writer<'a> {
    buffer: &'a mut Buffer,
    /// The segment that is written to, with its length, and how much of it is written.
    segment: *mut u64,
    len: usize,
    n_written: usize,
    n_segments: usize,
    has_room: bool,
    /// What a block of a size counts for.
    counted: &'a dyn Fn(u64) -> u64,
}

impl<'a> Writer<'a> {
    fn new(buffer: &'a mut Buffer, counted: &'a dyn Fn(u64) -> u64) -> Self {
        buffer.n_words = 0;
        buffer.sum = 0;
        let segment = core::ptr::null_mut();
        Self { buffer, segment, len: 0, n_written: 0, n_segments: 0, has_room: true, counted }
    }

    pub(crate) fn push(&mut self, trace: PeakTrace) {
        let bytes = if trace.is_tracked { trace.size } else { (self.counted)(trace.size) };
        self.buffer.sum = self.buffer.sum.saturating_add(bytes);
        encode(trace, self.buffer.has_details, |word| self.push_word(word));
    }

    #[inline(always)]
    fn push_word(&mut self, word: u64) {
        if self.n_written == self.len && !self.begin_segment() {
            return;
        }
        // SAFETY: within the segment, whose length is not reached.
        let place = unsafe { self.segment.add(self.n_written) };
        // SAFETY: mapped, and used by nobody else: the buffer is borrowed exclusively.
        unsafe { place.write(word) };
        self.n_written = self.n_written.wrapping_add(1);
        self.buffer.n_words = self.buffer.n_words.wrapping_add(1);
    }

    #[cold]
    fn begin_segment(&mut self) -> bool {
        let (segment, len) = self.buffer.segments.segment_or_map(self.n_segments);
        self.has_room &= !segment.is_null();
        if self.has_room {
            (self.segment, self.len, self.n_written) = (segment, len, 0);
            self.n_segments = self.n_segments.wrapping_add(1);
        }
        self.has_room
    }
}

/// The copy that is kept, and the room for the next.
pub(crate) struct PeakKeeper {
    buffers: [Buffer; 2],
    /// The buffer with the last complete copy.
    kept: Option<usize>,
    /// How much higher memory must be for another copy; `None` while none are wanted.
    percent: Option<u16>,
    n_copies: u64,
    n_lost: u64,
}

// SAFETY: the segments behind the buffers belong to the keeper alone.
unsafe impl Send for PeakKeeper {}

impl PeakKeeper {
    pub(crate) const fn new() -> Self {
        let buffers = [Buffer::new(), Buffer::new()];
        Self { buffers, kept: None, percent: None, n_copies: 0, n_lost: 0 }
    }

    /// Sets whether copies are wanted, and how much higher memory must be for another one.
    pub(crate) fn set_percent(&mut self, percent: Option<u16>) {
        self.percent = percent;
        self.forget();
    }

    /// Forgets the copy.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    /// Returns the threshold at which a copy is wanted when there is none.
    pub(crate) fn first_threshold(&self) -> i64 {
        if self.percent.is_some() { 0 } else { i64::MAX }
    }

    /// Makes a copy, of what `write` writes, and returns the threshold for the next one.
    ///
    /// If there is no room for it the last copy stays, and the loss is counted: the threshold is the
    /// same, so that not every release tries again. `counted` says how many of the `bytes` are a block's.
    pub(crate) fn copy(
        &mut self,
        bytes: i64,
        has_details: bool,
        counted: &dyn Fn(u64) -> u64,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> i64 {
        let Some(percent) = self.percent else { return i64::MAX };
        let free = usize::from(self.kept == Some(0));
        let kept = self.kept.and_then(|kept| self.buffers.get(kept));
        let height = kept.map_or(0, Buffer::height);
        if let Some(buffer) = self.buffers.get_mut(free) {
            buffer.has_details = has_details;
            buffer.bytes = bytes.unsigned_abs();
            let mut writer = Writer::new(buffer, counted);
            write(&mut writer);
            if writer.has_room {
                if self.kept.is_none() || buffer.height() > height {
                    self.kept = Some(free);
                }
                self.n_copies = self.n_copies.saturating_add(1);
            } else {
                self.n_lost = self.n_lost.saturating_add(1);
            }
        }
        let growth = i128::from(bytes).saturating_mul(percent.into()).wrapping_div(100);
        i64::try_from(growth).unwrap_or(i64::MAX).saturating_add(bytes)
    }

    /// Copies the copy to `out`, unless the present state, of `now` bytes, is nearer to the peak.
    pub(crate) fn read<'a>(&self, now: u64, out: &'a mut [u64]) -> Peak<'a> {
        if self.percent.is_none() {
            return Peak::NotKept;
        }
        let kept = self.kept.and_then(|kept| self.buffers.get(kept));
        let Some(buffer) = kept.filter(|buffer| buffer.height() > now) else { return Peak::Now };
        let Some(words) = out.get_mut(..buffer.n_words) else {
            return Peak::NoRoom { n_words: buffer.n_words };
        };
        buffer.copy_to(words);
        let Buffer { bytes, has_details, .. } = *buffer;
        Peak::Copied(PeakCopy { words, bytes, has_details })
    }

    /// Returns how many copies have been made, and how many there was no room for.
    pub(crate) fn n_copies(&self) -> (u64, u64) {
        (self.n_copies, self.n_lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn traces() -> impl Strategy<Value = Vec<PeakTrace>> {
        let size = prop_oneof![0..100u64, Just(u64::from(u32::MAX)), 0..1u64 << 45];
        let domain = prop_oneof![Just(0), any::<u32>()];
        let trace = (domain, size, 0..1u32 << 30, any::<(u32, u32)>());
        let trace = trace.prop_map(|(domain, size, site, (thread, birth))| {
            let trace = LiveTrace { size, site: SiteId(site) };
            let detail = Detail { thread, birth };
            match domain {
                0 => PeakTrace::new(trace, detail),
                domain => PeakTrace::tracked(domain.wrapping_add(1), trace, detail),
            }
        });
        prop::collection::vec(trace, 0..20_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn what_was_written_is_read_again(
            copies in prop::collection::vec((any::<bool>(), traces()), 1..4),
        ) {
            let mut keeper = PeakKeeper::new();
            keeper.set_percent(Some(1));
            let mut copies = copies;
            copies.sort_by_key(|(_, traces)| sum(traces));
            for (has_details, traces) in copies {
                keeper.copy(sum(&traces) as i64, has_details, &|size| size, |writer| {
                    traces.iter().for_each(|trace| writer.push(*trace));
                });
                let Peak::NoRoom { n_words } = keeper.read(0, &mut []) else {
                    prop_assert_eq!(sum(&traces), 0);
                    continue;
                };
                let mut out = std::vec![0; n_words + 5];
                let Peak::Copied(copy) = keeper.read(0, &mut out) else { panic!("not copied") };
                let expected = traces.iter().map(|trace| match has_details {
                    true => *trace,
                    false => PeakTrace { thread: 0, birth: 0, ..*trace },
                });
                prop_assert!(copy.traces().eq(expected));
                prop_assert_eq!(copy.bytes(), sum(&traces));
            }
        }
    }

    fn sum(traces: &[PeakTrace]) -> u64 {
        traces.iter().map(|trace| trace.size).sum()
    }

    /// Makes a copy when `bytes` are traced, which finds one trace.
    fn copy(keeper: &mut PeakKeeper, bytes: i64, size: u64) {
        let trace = LiveTrace { size, site: SiteId::UNKNOWN };
        let trace = PeakTrace::new(trace, Detail::UNKNOWN);
        keeper.copy(bytes, false, &|size| size, |writer| writer.push(trace));
    }

    fn bytes_kept(keeper: &PeakKeeper) -> u64 {
        match keeper.read(0, &mut [0; 100]) {
            Peak::Copied(copy) => copy.bytes(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_two_copies_the_one_nearer_to_the_peak_is_kept() {
        let mut keeper = PeakKeeper::new();
        keeper.set_percent(Some(1));
        for (bytes, size, kept) in [
            (100, 100, 100),
            (102, 90, 100),
            (110, 105, 110),
            (120, 140, 110),
            (130, 131, 130),
            (140, 0, 130),
            (132, 132, 132),
        ] {
            copy(&mut keeper, bytes, size);
            assert_eq!(bytes_kept(&keeper), kept, "after {size} of {bytes}");
        }
    }

    #[test]
    fn the_next_copy_is_due_a_percentage_higher_and_never_by_overflow() {
        let mut keeper = PeakKeeper::new();
        assert_eq!(
            (keeper.first_threshold(), keeper.copy(100, false, &|size| size, |_| ())),
            (i64::MAX, i64::MAX)
        );
        for (percent, bytes, next) in [
            (0, 1000, 1000),
            (1, 1000, 1010),
            (1, 99, 99),
            (50, 3, 4),
            (u16::MAX, 10, 6563),
            (u16::MAX, i64::MAX / 2, i64::MAX),
        ] {
            keeper.set_percent(Some(percent));
            assert_eq!(keeper.first_threshold(), 0);
            assert_eq!(keeper.copy(bytes, false, &|size| size, |_| ()), next);
        }
    }

    #[test]
    fn the_present_is_preferred_when_it_is_higher_and_a_forgotten_copy_is_gone() {
        let mut keeper = PeakKeeper::new();
        assert!(matches!(keeper.read(0, &mut []), Peak::NotKept));
        keeper.set_percent(Some(1));
        assert!(matches!(keeper.read(0, &mut []), Peak::Now));
        copy(&mut keeper, 100, 100);
        assert!(matches!(keeper.read(99, &mut [0]), Peak::Copied(copy) if copy.bytes() == 100));
        assert!(matches!(keeper.read(100, &mut []), Peak::Now));
        keeper.forget();
        assert!(matches!(keeper.read(0, &mut []), Peak::Now));
        keeper.set_percent(None);
        assert!(matches!(keeper.read(0, &mut []), Peak::NotKept));
    }
}
