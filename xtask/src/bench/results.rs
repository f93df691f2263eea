//! What all processes of a benchmark measured, and the figures that follow.

use super::configuration::UNTRACED;
use super::figure::Figure;
use memtrace_benches::{Count, Measurement, Workload};
use std::collections::BTreeMap;

/// All measurements, by workload, configuration and round.
pub(super) struct Results {
    configurations: Vec<&'static str>,
    workloads: BTreeMap<Workload, Rows>,
}

/// What is known of a workload.
struct Rows {
    count: Count,
    /// For each configuration, its measurement of each round.
    measurements: Vec<Vec<Measurement>>,
}

/// A configuration did not compute what the others did.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{configuration} computed {found} for {workload}, not {expected}: its time means nothing")]
pub(super) struct ChecksumDiffers {
    configuration: &'static str,
    workload: Workload,
    expected: u64,
    found: u64,
}

impl Results {
    /// Begins without any, for configurations of these names; the first one is the untraced.
    pub(super) fn new(configurations: Vec<&'static str>) -> Self {
        Self { configurations, workloads: BTreeMap::new() }
    }

    /// Adds how much a workload allocates. Its checksum is the one that all others must have.
    pub(super) fn add_count(&mut self, workload: Workload, count: Count) {
        let measurements = vec![Vec::new(); self.configurations.len()];
        self.workloads.insert(workload, Rows { count, measurements });
    }

    /// Adds the next round's measurement of a workload that has been counted.
    pub(super) fn add(
        &mut self,
        workload: Workload,
        configuration: usize,
        measurement: Measurement,
    ) -> Result<(), ChecksumDiffers> {
        let rows = self.workloads.get_mut(&workload).expect("workloads are counted first");
        let (expected, found) = (rows.count.checksum, measurement.checksum);
        if expected != found {
            let configuration = self.configurations[configuration];
            return Err(ChecksumDiffers { configuration, workload, expected, found });
        }
        rows.measurements[configuration].push(measurement);
        Ok(())
    }

    pub(super) fn configurations(&self) -> &[&'static str] {
        &self.configurations
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = Workload> {
        self.workloads.keys().copied()
    }

    /// Allocations and reallocations of one batch.
    pub(super) fn n_allocations(&self, workload: Workload) -> u64 {
        self.workloads[&workload].count.n_allocations
    }

    /// Nanoseconds for each allocation, all work of the workload included.
    pub(super) fn ns_per_allocation(&self, workload: Workload, configuration: usize) -> Figure {
        let n_allocations = self.n_allocations(workload) as f64;
        self.figure(workload, configuration, |run, _| run.ns_per_batch / n_allocations)
    }

    /// Nanoseconds for each allocation, more than untraced in the same round.
    pub(super) fn added_ns(&self, workload: Workload, configuration: usize) -> Figure {
        let n_allocations = self.n_allocations(workload) as f64;
        self.figure(workload, configuration, |run, untraced| {
            (run.ns_per_batch - untraced.ns_per_batch) / n_allocations
        })
    }

    /// Time as a multiple of untraced in the same round.
    pub(super) fn ratio(&self, workload: Workload, configuration: usize) -> Figure {
        self.figure(workload, configuration, |run, untraced| {
            run.ns_per_batch / untraced.ns_per_batch
        })
    }

    /// Peak of resident bytes.
    pub(super) fn peak_bytes(&self, workload: Workload, configuration: usize) -> Figure {
        self.figure(workload, configuration, |run, _| run.peak_resident_bytes as f64)
    }

    /// Peak of resident bytes, more than untraced in the same round.
    pub(super) fn added_bytes(&self, workload: Workload, configuration: usize) -> Figure {
        self.figure(workload, configuration, |run, untraced| {
            run.peak_resident_bytes as f64 - untraced.peak_resident_bytes as f64
        })
    }

    /// The tracer's own resident bytes, as it says; `None` for what says nothing.
    pub(super) fn tracer_bytes(&self, workload: Workload, configuration: usize) -> Option<Figure> {
        let runs = &self.workloads[&workload].measurements[configuration];
        let tracers = runs.iter().filter_map(|run| run.tracer.as_ref());
        Figure::of(tracers.map(|tracer| tracer.resident_bytes as f64))
    }

    /// Pairs each round with the untraced run of that round.
    fn figure(
        &self,
        workload: Workload,
        configuration: usize,
        value: impl Fn(&Measurement, &Measurement) -> f64,
    ) -> Figure {
        let measurements = &self.workloads[&workload].measurements;
        let rounds = measurements[configuration].iter().zip(&measurements[UNTRACED]);
        let figure = Figure::of(rounds.map(|(run, untraced)| value(run, untraced)));
        figure.expect("there is at least one round")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use memtrace_benches::TracerFigures;

    fn measurement(us_per_batch: u32, mib: u64) -> Measurement {
        Measurement {
            checksum: 7,
            n_batches: 1,
            ns_per_batch: f64::from(us_per_batch) * 1000.0,
            peak_resident_bytes: mib << 20,
            tracer: None,
        }
    }

    /// Three rounds of a workload with 100 allocations; the machine is slow in the second.
    pub(in crate::bench) fn three_rounds(workload: Workload) -> Results {
        let mut results = Results::new(vec!["untraced", "traced"]);
        results.add_count(workload, Count { checksum: 7, n_allocations: 100 });
        for (untraced, traced) in [(10, 20), (30, 60), (10, 25)] {
            results.add(workload, 0, measurement(untraced, 10)).unwrap();
            let tracer = Some(TracerFigures { resident_bytes: 3 << 20, n_sites: 5, n_lost: 0 });
            let run = Measurement { tracer, ..measurement(traced, 14) };
            results.add(workload, 1, run).unwrap();
        }
        results
    }

    #[test]
    fn ratios_and_differences_are_taken_within_a_round() {
        let results = three_rounds(Workload::Json);
        let of = |median, min, max| Figure { median, min, max };
        assert_eq!(results.ratio(Workload::Json, 1), of(2.0, 2.0, 2.5));
        assert_eq!(results.added_ns(Workload::Json, 1), of(150.0, 100.0, 300.0));
        assert_eq!(results.ns_per_allocation(Workload::Json, 0), of(100.0, 100.0, 300.0));
        assert_eq!(results.added_bytes(Workload::Json, 1).median, f64::from(4 << 20));
        assert_eq!(results.ratio(Workload::Json, 0), of(1.0, 1.0, 1.0));
    }

    #[test]
    fn only_a_tracer_that_tells_has_figures_of_its_own() {
        let results = three_rounds(Workload::Json);
        assert_eq!(results.tracer_bytes(Workload::Json, 0), None);
        assert_eq!(results.tracer_bytes(Workload::Json, 1).unwrap().max, f64::from(3 << 20));
    }

    #[test]
    fn a_configuration_that_computes_something_else_is_refused() {
        let mut results = three_rounds(Workload::Json);
        let wrong = Measurement { checksum: 8, ..measurement(1, 1) };
        let error = results.add(Workload::Json, 1, wrong).unwrap_err().to_string();
        assert_eq!(error, "traced computed 8 for json, not 7: its time means nothing");
    }
}
