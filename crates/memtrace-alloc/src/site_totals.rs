//! Totals by site: what was allocated and given back there since tracing began, for ranking lines by how
//! much they allocate, and not only by what they hold.
//!
//! # Mechanism
//!
//! Off unless asked for. A few tables, each with a record for every site; a thread adds to the table that its
//! slot's number points to, so that threads seldom meet in one, and a sum is that of all tables. A release
//! counts for the site that allocated the block.
//!
//! # Invariants
//!
//! - **I1** Record `n` of a table is site `n`'s; record 0 is that of blocks without a stack, and of those whose
//!   own record there was no memory for.
//!
//! # Orderings
//!
//! All sums are `Relaxed`: they publish nothing. When no thread is inside the hook they are exact.
//!
//! # Cost
//!
//! Two additions for each allocation and each release. 32 bytes a site and table in use, of which there are as
//! many as threads, at most 8.
#![expect(unsafe_code, reason = "records in mapped memory")]

use crate::mapped::Part;
use crate::segments::Segments;
use crate::site::SiteId;
use crate::thread;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What was allocated by the calls of one stack, and what of that was given back, since tracing began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SiteTotals {
    /// Blocks that were allocated, or resized, there.
    pub n_allocated: u64,
    /// The bytes that were requested for them.
    pub allocated_bytes: u64,
    /// How many of these blocks were given back, or resized elsewhere.
    pub n_freed: u64,
    /// The bytes that had been requested for them.
    pub freed_bytes: u64,
}

#[derive(Default)]
struct Record {
    n_allocated: AtomicU64,
    allocated_bytes: AtomicU64,
    n_freed: AtomicU64,
    freed_bytes: AtomicU64,
}

const N_TABLES: usize = 8;
const FIRST_LEN: usize = 128;
const N_SEGMENTS: usize = 24;
type Table = Segments<Record, FIRST_LEN, N_SEGMENTS>;

pub(crate) struct TotalsBySite {
    is_on: AtomicBool,
    tables: [Table; N_TABLES],
    /// Record 0 of all tables.
    rest: Record,
}

impl TotalsBySite {
    pub(crate) const fn new() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            tables: [const { Segments::new(Part::Sites) }; N_TABLES],
            rest: Record {
                n_allocated: AtomicU64::new(0),
                allocated_bytes: AtomicU64::new(0),
                n_freed: AtomicU64::new(0),
                freed_bytes: AtomicU64::new(0),
            },
        }
    }

    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        // Relaxed: publishes nothing.
        self.is_on.load(Relaxed)
    }

    /// Begins to count, from nothing, or ends it.
    pub(crate) fn set_on(&self, is_on: bool) {
        if is_on {
            self.reset();
        }
        self.is_on.store(is_on, Relaxed);
    }

    /// Makes all sums zero; what threads add meanwhile is in them or not.
    pub(crate) fn reset(&self) {
        let zero = |record: &Record| {
            let Record { n_allocated, allocated_bytes, n_freed, freed_bytes } = record;
            for sum in [n_allocated, allocated_bytes, n_freed, freed_bytes] {
                // Memory that was never written to stays so.
                if sum.load(Relaxed) != 0 {
                    sum.store(0, Relaxed);
                }
            }
        };
        zero(&self.rest);
        for table in &self.tables {
            // SAFETY: a record of mapped, zeroed memory, which stays mapped; all its fields are atomic.
            table.for_each(|place| zero(unsafe { place.as_ref() }));
        }
    }

    /// Counts so many blocks, of so many bytes together, as allocated at `site`.
    #[cold]
    pub(crate) fn add_allocated(&self, site: SiteId, n_blocks: u64, bytes: u64) {
        let record = self.own(site);
        record.n_allocated.fetch_add(n_blocks, Relaxed);
        record.allocated_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts so many blocks that were allocated at `site` as given back.
    #[cold]
    pub(crate) fn add_freed(&self, site: SiteId, n_blocks: u64, bytes: u64) {
        let record = self.own(site);
        record.n_freed.fetch_add(n_blocks, Relaxed);
        record.freed_bytes.fetch_add(bytes, Relaxed);
    }

    /// The record of a site that the calling thread adds to.
    fn own(&self, site: SiteId) -> &Record {
        let number = thread::slot().map_or(0, |slot| slot.number());
        let table = self.tables.get(number as usize % N_TABLES);
        let place = table
            .filter(|_| site != SiteId::UNKNOWN)
            .and_then(|table| table.place_or_map(site.get()));
        // SAFETY: a record of mapped, zeroed memory, which stays mapped; all its fields are atomic.
        place.map_or(&self.rest, |place| unsafe { place.as_ref() })
    }

    /// Returns the sums of a site.
    pub(crate) fn of_site(&self, site: SiteId) -> SiteTotals {
        let mut totals = SiteTotals::default();
        if site == SiteId::UNKNOWN {
            totals.add(&self.rest);
        } else {
            let records = self.tables.iter().filter_map(|table| record(table, site.get()));
            records.for_each(|record| totals.add(record));
        }
        totals
    }
}

fn record(table: &Table, number: u32) -> Option<&Record> {
    // SAFETY: as above.
    Some(unsafe { table.place(number)?.as_ref() })
}

impl SiteTotals {
    fn add(&mut self, record: &Record) {
        let Self { n_allocated, allocated_bytes, n_freed, freed_bytes } = self;
        for (sum, part) in [
            (n_allocated, &record.n_allocated),
            (allocated_bytes, &record.allocated_bytes),
            (n_freed, &record.n_freed),
            (freed_bytes, &record.freed_bytes),
        ] {
            *sum = sum.wrapping_add(part.load(Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;

    #[test]
    fn sums_of_all_threads_are_those_of_the_site() {
        static TOTALS: TotalsBySite = TotalsBySite::new();
        TOTALS.set_on(true);
        std::thread::scope(|scope| {
            for t in 0..20u64 {
                scope.spawn(move || {
                    if t % 2 == 0 {
                        thread::claim_slot();
                    }
                    for i in 0..1000u32 {
                        TOTALS.add_allocated(SiteId(i % 200), 1, t);
                        TOTALS.add_freed(SiteId(i % 100), 2, 1);
                    }
                });
            }
        });
        for i in 0..200 {
            let n_freed = if i < 100 { 20 * 10 } else { 0 };
            let expected = SiteTotals {
                n_allocated: 20 * 5,
                allocated_bytes: 190 * 5,
                n_freed: 2 * n_freed,
                freed_bytes: n_freed,
            };
            assert_eq!(TOTALS.of_site(SiteId(i)), expected, "{i}");
        }
        assert_eq!(TOTALS.of_site(SiteId(200)), SiteTotals::default());
        assert_eq!(TOTALS.of_site(SiteId((1 << 30) - 1)), SiteTotals::default());
        TOTALS.reset();
        assert!((0..200).all(|i| TOTALS.of_site(SiteId(i)) == SiteTotals::default()));
    }

    #[test]
    fn sums_of_sites_whose_predecessors_nobody_asked_for_are_made_zero_too() {
        static TOTALS: TotalsBySite = TotalsBySite::new();
        TOTALS.add_allocated(SiteId(5000), 1, 10);
        assert_eq!(TOTALS.of_site(SiteId(5000)).n_allocated, 1);
        TOTALS.reset();
        assert_eq!(TOTALS.of_site(SiteId(5000)), SiteTotals::default());
    }
}
