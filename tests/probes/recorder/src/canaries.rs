//! Blocks that are live throughout a round, and scans that must see each of them once.

use crate::held::{self, Held};
use crate::report::{FIGURES, count, ensure};
use crate::rng::Rng;
use crate::truth;
use memtrace_alloc::{LiveBlock, Peak, SiteId};
use std::alloc::Layout;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

const N_CANARIES: usize = 2000;
/// Traces from here on are kept apart.
const APART_SIZE: u64 = (16 << 20) - 1;
/// Blocks that a scan has room for.
pub(crate) const N_ROOM: usize = 1 << 18;

/// A block as it must be seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Canary {
    addr: u64,
    size: u64,
    site: SiteId,
}

/// Allocates blocks that stay, among others that do not: so the pages that they lie in change.
pub(crate) fn allocate(rng: &mut Rng) -> Vec<Held> {
    let mut canaries = held::list(N_CANARIES);
    let mut others = held::list(2 * N_CANARIES);
    while canaries.len() < N_CANARIES {
        for _ in 0..rng.below(4) {
            if others.len() < others.capacity() {
                others.push(Held::random(rng, false));
            }
        }
        let canary = match canaries.len() {
            0 | 1 => Held::new(rng, Layout::new::<[u8; 17 << 20]>()),
            _ => Held::random(rng, false),
        };
        canaries.push(canary);
    }
    others.drain(..).for_each(drop);
    truth::untraced(|| drop(others));
    canaries
}

/// Those of the blocks that are recorded, by address.
pub(crate) fn recorded(canaries: &[Held]) -> Vec<Canary> {
    truth::untraced(|| {
        let record = |held: &Held| {
            let block = memtrace_alloc::trace_at(held.addr())?;
            Some(Canary { addr: held.addr(), size: block.size, site: block.site })
        };
        let mut recorded: Vec<_> = canaries.iter().filter_map(record).collect();
        recorded.sort_unstable_by_key(|canary| canary.addr);
        recorded
    })
}

/// What scans write into, for the time of a round.
pub(crate) struct Scans {
    seen: Vec<LiveBlock>,
    peak: Vec<u64>,
}

impl Scans {
    pub(crate) fn new() -> Self {
        truth::untraced(|| Self { seen: Vec::with_capacity(N_ROOM), peak: vec![0; 1000] })
    }

    /// Visits all blocks: each of the canaries must be there, as it is, and no address twice.
    pub(crate) fn scan(&mut self, canaries: &[Canary]) {
        let Self { seen, .. } = self;
        seen.clear();
        let mut n_more = 0_usize;
        memtrace_alloc::for_each_block(|block| {
            if seen.len() < seen.capacity() { seen.push(block) } else { n_more += 1 }
        });
        ensure!(n_more == 0, "a scan saw {} blocks, more than there can be", seen.len() + n_more);
        // Stable, it would allocate.
        seen.sort_unstable_by_key(|block| block.block_addr);
        for pair in seen.windows(2) {
            let [one, other] = pair else { continue };
            // A block may be followed, at its address, by one that is kept apart.
            let is_alike = (one.size >= APART_SIZE) == (other.size >= APART_SIZE);
            ensure!(
                one.block_addr != other.block_addr || !is_alike,
                "a scan saw an address twice: {pair:x?}"
            );
        }
        for canary in canaries {
            let found = seen.binary_search_by_key(&canary.addr, |block| block.block_addr);
            let Some(block) = found.ok().and_then(|i| seen.get(i)) else {
                crate::report::differs(format_args!(
                    "a scan of {} blocks did not see a block that was live throughout: {canary:x?}; \
                     recorded is {:x?}",
                    seen.len(),
                    memtrace_alloc::trace_at(canary.addr)
                ))
            };
            ensure!(
                (block.size, block.site) == (canary.size, canary.site),
                "a scan saw {block:x?} and not {canary:x?}"
            );
        }
        count(&FIGURES.n_scans);
        FIGURES.n_scanned.fetch_add(seen.len() as u64, Relaxed);
    }

    /// Asks whatever else can be asked while others work.
    pub(crate) fn ask_more(&mut self) {
        let memory = memtrace_alloc::traced_memory();
        ensure!(memory.peak >= memory.current, "the peak is lower than what there is: {memory:?}");
        black_box(memtrace_alloc::tracer_memory());
        let n_words = match memtrace_alloc::copy_peak(&mut self.peak) {
            Peak::NoRoom { n_words } => n_words,
            Peak::Copied(copy) => {
                black_box(copy.traces().count());
                return;
            }
            Peak::Now | Peak::NotKept => return,
        };
        truth::untraced(|| self.peak.resize(n_words + n_words / 8, 0));
    }
}
