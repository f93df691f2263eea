//! Memory that the hook cannot see: mapped files, device memory, pools of C libraries.
//!
//! The program says what it holds with [`track`] and [`untrack`]; such memory appears in snapshots
//! and totals like any block. A trace is known by its domain and address: the same address in two
//! domains is two traces.
//!
//! # Invariants
//!
//! - **I1** A hash table with linear probing in mapped memory, at most half full; an empty slot ends
//!   every probe.
//! - **I2** Removal moves later entries of the same run back, so that no marks of removed entries
//!   build up.
//!
//! # Cost
//!
//! One leaf lock a call, besides the capture of the stack.
#![expect(unsafe_code, reason = "a table in mapped memory")]

use crate::control;
use crate::live::{Detail, LiveBlock, LiveTrace};
use crate::lock::LeafLock;
use crate::mapped::{self, Part};
use crate::peak::PeakTrace;
use crate::recorder::RECORDER;
use crate::site::SiteId;
use core::fmt;
use core::ptr;

/// A live trace of memory that the program told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrackedTrace {
    /// Kind of memory, chosen by the program; 0 is the domain of the global allocator's blocks.
    pub domain: u32,
    /// The address, or any other number by which the program knows this memory.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// The stack of the call to [`track`].
    pub site: SiteId,
    /// The number of the thread that made this call; 0 if threads are not recorded.
    pub thread: u32,
    /// The generation in which it was made; 0 if generations are not recorded.
    pub birth: u32,
}

/// Why memory could not be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackError {
    /// Tracing is off.
    NotTracing,
    /// There is no memory for the table of tracked memory.
    NoRoom,
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTracing => {
                "tracing is off: call start(25) or set MEMTRACE=25 before tracking memory"
            }
            Self::NoRoom => "no memory could be mapped for the table of tracked memory",
        })
    }
}

impl core::error::Error for TrackError {}

/// Records `size` bytes of memory that the hook cannot see, with the calling stack.
///
/// `domain` is any number that tells kinds of memory apart, such as one for mapped files and one for a
/// GPU; 0 is the domain of the global allocator's blocks. `addr` is the address, or whatever other
/// number the program knows this memory by.
///
/// Memory already tracked at this address in this domain takes the new size and stack. So does, in
/// domain 0, a live block of the global allocator; while tracing is sampled its release does not forget
/// it, but [`untrack`] does.
///
/// **Errors**: if tracing is off, or the table cannot grow.
#[inline(never)]
pub fn track(domain: u32, addr: u64, size: u64) -> Result<(), TrackError> {
    if !control::is_on() {
        return Err(TrackError::NotTracing);
    }
    let (site, detail) = RECORDER.capture();
    if domain == 0 && RECORDER.replace_block(addr, LiveTrace { size, site }, detail) {
        return Ok(());
    }
    let mut table = RECORDER.tracked.lock();
    let is_shrinking = table.get(domain, addr).is_some_and(|old| old.size > size);
    if is_shrinking && RECORDER.totals.is_peak(RECORDER.totals.bytes()) {
        drop(table);
        RECORDER.keep_peak(RECORDER.totals.bytes(), None);
        table = RECORDER.tracked.lock();
    }
    // Looked at again under the lock: `stop` clears this table under it after tracing is off.
    if !control::is_on() {
        return Err(TrackError::NotTracing);
    }
    let Detail { thread, birth } = RECORDER.told(detail);
    let trace = TrackedTrace { domain, addr, size, site, thread, birth };
    match table.insert(trace).ok_or(TrackError::NoRoom)? {
        Some(old) => RECORDER.totals.replace(old.size, size),
        None => RECORDER.totals.add(size),
    }
    Ok(())
}

/// Forgets memory that was recorded by [`track`]; memory not known is ignored.
///
/// **Errors**: if tracing is off.
pub fn untrack(domain: u32, addr: u64) -> Result<(), TrackError> {
    if !control::is_on() {
        return Err(TrackError::NotTracing);
    }
    let removed = RECORDER.tracked.lock().remove(domain, addr);
    let Some(removed) = removed else {
        if domain == 0 {
            RECORDER.untracking(addr);
        }
        return Ok(());
    };
    let before = RECORDER.totals.remove(removed.size);
    if RECORDER.totals.is_peak(before) {
        RECORDER.keep_peak(before, Some(removed.as_peak()));
    }
    Ok(())
}

/// Copies all tracked memory into `out` and returns how many there are.
///
/// If that is more than fits `out`, what was copied is not all: call again with more room.
pub fn copy_tracked(out: &mut [TrackedTrace]) -> usize {
    let table = RECORDER.tracked.lock();
    let mut n = 0usize;
    for trace in table.iter() {
        if let Some(slot) = out.get_mut(n) {
            *slot = trace;
        }
        n = n.saturating_add(1);
    }
    n
}

impl TrackedTrace {
    /// A value to fill buffers with.
    pub const EMPTY: Self =
        Self { domain: 0, addr: 0, size: 0, site: SiteId::UNKNOWN, thread: 0, birth: 0 };

    pub(crate) fn as_block(self) -> LiveBlock {
        LiveBlock::new(self.addr, self.live(), Detail { thread: self.thread, birth: self.birth })
    }

    pub(crate) fn as_peak(self) -> PeakTrace {
        let Self { domain, thread, birth, .. } = self;
        PeakTrace::tracked(domain, self.live(), Detail { thread, birth })
    }

    fn live(self) -> LiveTrace {
        LiveTrace { size: self.size, site: self.site }
    }
}

/// A slot: an entry, or empty while `is_used` is false, as in zeroed memory.
#[derive(Clone, Copy)]
struct Slot {
    trace: TrackedTrace,
    is_used: bool,
}

/// The table behind [`track`].
pub(crate) struct TrackedTable {
    slots: *mut Slot,
    /// A power of two, or zero.
    n_slots: usize,
    n_used: usize,
}

// SAFETY: the slots belong to the table alone.
unsafe impl Send for TrackedTable {}

const FIRST_LEN: usize = 256;

impl TrackedTable {
    pub(crate) const fn new() -> Self {
        Self { slots: ptr::null_mut(), n_slots: 0, n_used: 0 }
    }

    /// Records a trace and returns the one it replaces; `None` if there is no room.
    fn insert(&mut self, trace: TrackedTrace) -> Option<Option<LiveTrace>> {
        if self.n_used >= self.n_slots / 2 {
            self.grow()?;
        }
        let slot = self.find(trace.domain, trace.addr)?;
        let slot = self.slots_mut().get_mut(slot)?;
        let replaced = slot.is_used.then(|| slot.trace.live());
        *slot = Slot { trace, is_used: true };
        if replaced.is_none() {
            self.n_used = self.n_used.saturating_add(1);
        }
        Some(replaced)
    }

    fn remove(&mut self, domain: u32, addr: u64) -> Option<TrackedTrace> {
        let mut hole = self.find(domain, addr)?;
        let mask = self.n_slots.wrapping_sub(1);
        let slots = self.slots_mut();
        let removed = slots.get(hole).filter(|slot| slot.is_used)?.trace;
        let mut i = hole;
        loop {
            i = i.wrapping_add(1) & mask;
            let slot = *slots.get(i)?;
            if !slot.is_used {
                break;
            }
            // An entry may move into the hole unless its probe starts after the hole.
            let start = hash(slot.trace.domain, slot.trace.addr) & mask;
            if i.wrapping_sub(start) & mask >= i.wrapping_sub(hole) & mask {
                *slots.get_mut(hole)? = slot;
                hole = i;
            }
        }
        slots.get_mut(hole)?.is_used = false;
        self.n_used = self.n_used.saturating_sub(1);
        Some(removed)
    }

    /// Returns what is tracked at an address.
    pub(crate) fn get(&self, domain: u32, addr: u64) -> Option<TrackedTrace> {
        let slot = self.slots().get(self.find(domain, addr)?)?;
        slot.is_used.then_some(slot.trace)
    }

    /// Forgets everything and tells of each trace it forgot.
    pub(crate) fn clear(&mut self, mut forgotten: impl FnMut(LiveTrace)) {
        for slot in self.slots_mut() {
            if core::mem::replace(&mut slot.is_used, false) {
                forgotten(slot.trace.live());
            }
        }
        self.n_used = 0;
    }

    /// Visits everything.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(LiveTrace)) {
        self.iter().for_each(|trace| visit(trace.live()));
    }

    pub(crate) fn len(&self) -> usize {
        self.n_used
    }

    /// Returns everything, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = TrackedTrace> {
        self.slots().iter().filter(|slot| slot.is_used).map(|slot| slot.trace)
    }

    /// The slot of a trace, or the empty slot where it would go.
    fn find(&self, domain: u32, addr: u64) -> Option<usize> {
        let mask = self.n_slots.checked_sub(1)?;
        let mut i = hash(domain, addr) & mask;
        loop {
            let slot = self.slots().get(i)?;
            if !slot.is_used || slot.trace.domain == domain && slot.trace.addr == addr {
                return Some(i);
            }
            i = i.wrapping_add(1) & mask;
        }
    }

    fn grow(&mut self) -> Option<()> {
        let n_slots = self.n_slots.saturating_mul(2).max(FIRST_LEN);
        let slots = mapped::map::<Slot>(n_slots, Part::Tracked);
        if slots.is_null() {
            return None;
        }
        let old = core::mem::replace(self, Self { slots, n_slots, n_used: 0 });
        for trace in old.iter() {
            self.insert(trace);
        }
        Some(())
    }

    fn slots(&self) -> &[Slot] {
        if self.slots.is_null() {
            return &[];
        }
        // SAFETY: mapped with this length; zeroed memory is a valid, empty slot.
        unsafe { core::slice::from_raw_parts(self.slots, self.n_slots) }
    }

    fn slots_mut(&mut self) -> &mut [Slot] {
        if self.slots.is_null() {
            return &mut [];
        }
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.slots, self.n_slots) }
    }
}

/// The lock around the table, in the recorder.
pub(crate) type Tracked = LeafLock<TrackedTable>;

fn hash(domain: u32, addr: u64) -> usize {
    let mixed = (addr ^ u64::from(domain) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 20) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_table_holds_what_a_map_would(
            ops in prop::collection::vec((any::<bool>(), 0..3u32, 0..400u64, any::<u64>()), 1..1500),
        ) {
            let mut table = TrackedTable::new();
            let mut oracle = BTreeMap::new();
            for (is_insert, domain, addr, size) in ops {
                let trace =
                    TrackedTrace { domain, addr, size, site: SiteId(1), ..TrackedTrace::EMPTY };
                if is_insert {
                    let replaced = oracle.insert((domain, addr), trace.live());
                    prop_assert_eq!(table.insert(trace), Some(replaced));
                } else {
                    let removed = table.remove(domain, addr).map(TrackedTrace::live);
                    prop_assert_eq!(removed, oracle.remove(&(domain, addr)));
                }
                prop_assert_eq!(table.len(), oracle.len());
                let got = table.get(domain, addr).map(TrackedTrace::live);
                prop_assert_eq!(got, oracle.get(&(domain, addr)).copied());
            }
            let all: BTreeMap<_, _> =
                table.iter().map(|trace| ((trace.domain, trace.addr), trace.live())).collect();
            prop_assert_eq!(&all, &oracle);
            let mut n_forgotten = 0;
            table.clear(|_| n_forgotten += 1);
            prop_assert_eq!((n_forgotten, table.iter().count()), (oracle.len(), 0));
        }
    }
}
