//! Totals by site: what was allocated and given back there since tracing began, for ranking lines by how
//! much they allocate, and not only by what they hold; and how long the blocks lived, if that is wanted, too.
//!
//! # Mechanism
//!
//! Off unless asked for. A few tables, each with a record for every site; a thread adds to the table that its
//! slot's number points to, so that threads seldom meet in one, and a sum is that of all tables. A release
//! counts for the site that allocated the block.
//!
//! # Invariants
//!
//! - **I1** Record `n` of a table is site `n`'s; record 0 is that of blocks without a stack, and of totals whose
//!   own record there was no memory for. Lifetimes for which there was none are lost.
//!
//! # Orderings
//!
//! All sums are `Relaxed`: they publish nothing. When no thread is inside the hook they are exact.
//!
//! # Cost
//!
//! Two additions for each allocation and each release, and one more and the clock for a lifetime. 32 bytes a site and
//! table in use, of which there are as many as threads, at most 8; and 256 for lifetimes. Tables double, so that up to
//! as much again is mapped, and counts against the limit.
#![expect(unsafe_code, reason = "records in mapped memory")]

use crate::lifetime::{Birth, Lifetimes};
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

const N_TABLES: usize = 8;
const FIRST_LEN: usize = 128;
const N_SEGMENTS: usize = 24;

/// A record of `N` sums for each site, in several tables.
struct Tables<const N: usize> {
    tables: [Segments<[AtomicU64; N], FIRST_LEN, N_SEGMENTS>; N_TABLES],
    /// Record 0 of all tables.
    rest: [AtomicU64; N],
}

impl<const N: usize> Tables<N> {
    const fn new() -> Self {
        let rest = [const { AtomicU64::new(0) }; N];
        Self { tables: [const { Segments::new(Part::Sites) }; N_TABLES], rest }
    }

    /// Those that go without memory before others do.
    const fn optional() -> Self {
        let rest = [const { AtomicU64::new(0) }; N];
        Self { tables: [const { Segments::optional(Part::Sites) }; N_TABLES], rest }
    }

    /// The record of a site that the calling thread adds to; `None` if there is no memory for it.
    fn own(&self, site: SiteId) -> Option<&[AtomicU64; N]> {
        if site == SiteId::UNKNOWN {
            return Some(&self.rest);
        }
        let number = thread::slot().map_or(0, |slot| slot.number());
        let place = self.tables.get(number as usize % N_TABLES)?.place_or_map(site.get())?;
        // SAFETY: a record of mapped, zeroed memory, which stays mapped; all of it is atomic.
        Some(unsafe { place.as_ref() })
    }

    /// Returns the sums of a site over all tables.
    fn of_site(&self, site: SiteId) -> [u64; N] {
        let mut sums = [0u64; N];
        let mut add = |record: &[AtomicU64; N]| {
            for (sum, part) in sums.iter_mut().zip(record) {
                *sum = sum.wrapping_add(part.load(Relaxed));
            }
        };
        if site == SiteId::UNKNOWN {
            add(&self.rest);
            return sums;
        }
        for place in self.tables.iter().filter_map(|table| table.place(site.get())) {
            // SAFETY: as above.
            add(unsafe { place.as_ref() });
        }
        sums
    }

    /// Makes all sums zero.
    fn reset(&self) {
        let zero = |record: &[AtomicU64; N]| {
            // Memory that was never written to stays so.
            let sums = record.iter().filter(|sum| sum.load(Relaxed) != 0);
            sums.for_each(|sum| sum.store(0, Relaxed));
        };
        zero(&self.rest);
        for table in &self.tables {
            // SAFETY: as above.
            table.for_each(|place| zero(unsafe { place.as_ref() }));
        }
    }
}

pub(crate) struct TotalsBySite {
    is_on: AtomicBool,
    totals: Tables<4>,
    lifetimes: Tables<{ Lifetimes::N_CLASSES }>,
    /// Whoever was born before then was so in another run of tracing.
    begun: AtomicU64,
}

impl TotalsBySite {
    pub(crate) const fn new() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            totals: Tables::new(),
            lifetimes: Tables::optional(),
            begun: AtomicU64::new(0),
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
            self.begun.store(Birth::now().to_word(), Relaxed);
        }
        self.is_on.store(is_on, Relaxed);
    }

    /// Makes all sums zero; what threads add meanwhile is in them or not.
    pub(crate) fn reset(&self) {
        self.totals.reset();
        self.lifetimes.reset();
    }

    /// Counts so many blocks, of so many bytes together, as allocated at `site`.
    #[cold]
    pub(crate) fn add_allocated(&self, site: SiteId, n_blocks: u64, bytes: u64) {
        let [n_allocated, allocated_bytes, ..] = self.own(site);
        n_allocated.fetch_add(n_blocks, Relaxed);
        allocated_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts so many blocks that were allocated at `site` as given back, and how long they have lived if that is
    /// known; `false` if there is no room for that.
    #[cold]
    pub(crate) fn add_freed(&self, site: SiteId, n_blocks: u64, bytes: u64, birth: Birth) -> bool {
        let [.., n_freed, freed_bytes] = self.own(site);
        n_freed.fetch_add(n_blocks, Relaxed);
        freed_bytes.fetch_add(bytes, Relaxed);
        if birth.to_word() < self.begun.load(Relaxed) {
            return true;
        }
        let Some(class) = birth.class_now() else { return true };
        let sum = self.lifetimes.own(site).and_then(|classes| classes.get(class));
        sum.map(|sum| sum.fetch_add(n_blocks, Relaxed)).is_some()
    }

    /// The totals of a site that the calling thread adds to.
    fn own(&self, site: SiteId) -> &[AtomicU64; 4] {
        self.totals.own(site).unwrap_or(&self.totals.rest)
    }

    /// Returns the sums of a site.
    pub(crate) fn of_site(&self, site: SiteId) -> SiteTotals {
        let [n_allocated, allocated_bytes, n_freed, freed_bytes] = self.totals.of_site(site);
        SiteTotals { n_allocated, allocated_bytes, n_freed, freed_bytes }
    }

    /// Returns how long the blocks of a site lived that were given back.
    pub(crate) fn lifetimes_of_site(&self, site: SiteId) -> Lifetimes {
        Lifetimes::of(self.lifetimes.of_site(site))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapped::refusal;
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
                        let birth = if i % 100 < 50 { Birth::now() } else { Birth::UNKNOWN };
                        TOTALS.add_freed(SiteId(i % 100), 2, 1, birth);
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
            let n_known = if i < 50 { 2 * n_freed } else { 0 };
            assert_eq!(TOTALS.lifetimes_of_site(SiteId(i)).n_blocks(), n_known, "{i}");
        }
        assert_eq!(TOTALS.of_site(SiteId(200)), SiteTotals::default());
        assert_eq!(TOTALS.of_site(SiteId((1 << 30) - 1)), SiteTotals::default());
        TOTALS.reset();
        assert!((0..200).all(|i| TOTALS.of_site(SiteId(i)) == SiteTotals::default()));
        assert!((0..200).all(|i| TOTALS.lifetimes_of_site(SiteId(i)) == Lifetimes::default()));
    }

    #[test]
    fn lifetimes_without_room_are_lost_and_no_other_sites() {
        static TOTALS: TotalsBySite = TotalsBySite::new();
        TOTALS.set_on(true);
        // The table of totals is mapped, and that of lifetimes refused.
        let is_refused = refusal::during(1, || {
            assert!(!TOTALS.add_freed(SiteId(1), 2, 8, Birth::now()));
        });
        assert!(is_refused);
        assert_eq!(TOTALS.of_site(SiteId(1)).n_freed, 2);
        let n_known = |site| TOTALS.lifetimes_of_site(site).n_blocks();
        assert_eq!([SiteId(1), SiteId::UNKNOWN].map(n_known), [0, 0]);
        assert!(TOTALS.add_freed(SiteId(1), 2, 8, Birth::now()));
        assert!(TOTALS.add_freed(SiteId::UNKNOWN, 1, 8, Birth::now()));
        assert_eq!([SiteId(1), SiteId::UNKNOWN].map(n_known), [2, 1]);
    }

    #[test]
    fn what_was_born_before_it_was_counted_has_no_lifetime() {
        static TOTALS: TotalsBySite = TotalsBySite::new();
        let earlier = Birth::now();
        std::thread::sleep(core::time::Duration::from_millis(1));
        TOTALS.set_on(true);
        for birth in [earlier, Birth::UNKNOWN, Birth::now()] {
            TOTALS.add_freed(SiteId(1), 1, 8, birth);
        }
        assert_eq!(TOTALS.of_site(SiteId(1)).n_freed, 3);
        assert_eq!(TOTALS.lifetimes_of_site(SiteId(1)).n_blocks(), 1);
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
