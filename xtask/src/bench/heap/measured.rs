//! What the processes measured, put together.

use super::programs::Allocator;
use crate::bench::figure::Figure;
use memtrace_benches::heap::{Figures, Memory};

/// All that was measured.
#[derive(Default)]
pub(super) struct Measured {
    /// In the order in which they were first run.
    pub(super) workloads: Vec<Workload>,
    /// Load averages of the last minute, before and after.
    pub(super) load_averages: [Option<f64>; 2],
}

/// One workload under all allocators.
pub(super) struct Workload {
    pub(super) name: String,
    /// What one operation is.
    pub(super) unit: String,
    checksum: u64,
    /// By allocator, in the order of [`Allocator::ALL`]; one a round.
    rounds: [Vec<Figures>; 4],
}

/// An allocator made a workload compute something else.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("under {allocator}, {workload} computed {found}, and {expected} before")]
pub(super) struct WrongChecksum {
    allocator: &'static str,
    workload: String,
    found: u64,
    expected: u64,
}

impl Measured {
    /// Adds what a process measured.
    ///
    /// **Errors**: if the workload computed something else than before.
    pub(super) fn add(
        &mut self,
        allocator: Allocator,
        figures: Figures,
    ) -> Result<(), WrongChecksum> {
        let at = self.workloads.iter().position(|workload| workload.name == figures.workload);
        let at = at.unwrap_or_else(|| {
            self.workloads.push(Workload {
                name: figures.workload.clone(),
                unit: figures.unit.clone(),
                checksum: figures.checksum,
                rounds: Default::default(),
            });
            self.workloads.len() - 1
        });
        let workload = &mut self.workloads[at];
        if figures.checksum != workload.checksum {
            return Err(WrongChecksum {
                allocator: allocator.name(),
                workload: figures.workload,
                found: figures.checksum,
                expected: workload.checksum,
            });
        }
        workload.rounds[allocator as usize].push(figures);
        Ok(())
    }

    /// The workloads that ask for time.
    pub(super) fn timed(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(|workload| workload.ns(Allocator::Memtrace).is_some())
    }

    /// The workloads that ask for memory.
    pub(super) fn bursts(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(|workload| workload.memory(Allocator::Memtrace).is_some())
    }

    /// Geometric mean of an allocator's [ratios](Workload::ratio) over the timed workloads.
    pub(super) fn mean_ratio(&self, allocator: Allocator, base: Allocator) -> Option<f64> {
        let ratios: Vec<f64> = self
            .timed()
            .filter_map(|workload| Some(workload.ratio(allocator, base)?.median))
            .collect();
        let sum: f64 = ratios.iter().map(|ratio| ratio.ln()).sum();
        (!ratios.is_empty()).then(|| (sum / ratios.len() as f64).exp())
    }
}

impl Workload {
    /// Nanoseconds for each operation.
    pub(super) fn ns(&self, allocator: Allocator) -> Option<Figure> {
        Figure::of(self.rounds(allocator).iter().filter_map(|figures| figures.ns))
    }

    /// How many times as long as under another allocator it takes: 2 is half as fast. Taken within
    /// a round.
    pub(super) fn ratio(&self, allocator: Allocator, base: Allocator) -> Option<Figure> {
        let rounds = self.rounds(allocator).iter().zip(self.rounds(base));
        Figure::of(rounds.filter_map(|(figures, base)| Some(figures.ns? / base.ns?)))
    }

    /// Some bytes of memory for each live byte.
    pub(super) fn per_live_byte(
        &self,
        allocator: Allocator,
        bytes: impl Fn(&Memory) -> u64,
    ) -> Option<Figure> {
        let memories = self.rounds(allocator).iter().filter_map(|figures| figures.memory.as_ref());
        Figure::of(memories.map(|memory| bytes(memory) as f64 / memory.live_bytes as f64))
    }

    /// What was resident in the first round.
    pub(super) fn memory(&self, allocator: Allocator) -> Option<&Memory> {
        self.rounds(allocator).first()?.memory.as_ref()
    }

    fn rounds(&self, allocator: Allocator) -> &[Figures] {
        &self.rounds[allocator as usize]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Adds a workload of three rounds with times in the order of [`Allocator::ALL`]; the second
    /// round is twice as slow for all.
    pub(in crate::bench::heap) fn add_times(measured: &mut Measured, name: &str, ns: [f64; 4]) {
        for slow in [1.0, 2.0, 1.1] {
            for (allocator, ns) in Allocator::ALL.into_iter().zip(ns) {
                let ns = Some(ns * slow);
                let (workload, unit) = (name.to_owned(), String::from("pair"));
                let figures = Figures { workload, unit, ns, ..Figures::default() };
                measured.add(allocator, figures).unwrap();
            }
        }
    }

    /// Adds a burst that leaves so many resident bytes for a hundred live ones, and ten fewer later.
    pub(in crate::bench::heap) fn add_burst(measured: &mut Measured, name: &str, resident: u64) {
        for allocator in Allocator::ALL {
            let memory = Some(Memory {
                live_bytes: 100,
                peak_live_bytes: 1000,
                resident_bytes: resident,
                resident_later_bytes: resident - 10,
                peak_resident_bytes: 1250,
            });
            let figures = Figures { workload: name.to_owned(), memory, ..Figures::default() };
            measured.add(allocator, figures).unwrap();
        }
    }

    #[test]
    fn a_slow_round_moves_no_ratio() {
        let mut measured = Measured::default();
        add_times(&mut measured, "pair-16", [10.0, 20.0, 5.0, 8.0]);
        let workload = &measured.workloads[0];
        let ratio = workload.ratio(Allocator::Memtrace, Allocator::Glibc).unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 0.5, 0.5));
        assert_eq!(workload.ns(Allocator::Mimalloc).unwrap().median, 5.5);
    }

    #[test]
    fn the_mean_over_workloads_is_geometric_and_without_bursts() {
        let mut measured = Measured::default();
        assert_eq!(measured.mean_ratio(Allocator::Memtrace, Allocator::Mimalloc), None);
        add_times(&mut measured, "pair-16", [20.0, 1.0, 10.0, 1.0]);
        add_times(&mut measured, "pair-32", [5.0, 1.0, 10.0, 1.0]);
        add_burst(&mut measured, "burst", 120);
        let mean = measured.mean_ratio(Allocator::Memtrace, Allocator::Mimalloc).unwrap();
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        assert_eq!((measured.timed().count(), measured.bursts().count()), (2, 1));
    }

    #[test]
    fn an_allocator_under_which_something_else_is_computed_is_named() {
        let mut measured = Measured::default();
        add_times(&mut measured, "json", [1.0; 4]);
        let workload = String::from("json");
        let wrong = Figures { workload, checksum: 7, ..Figures::default() };
        let error = measured.add(Allocator::Jemalloc, wrong).unwrap_err().to_string();
        assert_eq!(error, "under jemalloc, json computed 7, and 0 before");
    }
}
