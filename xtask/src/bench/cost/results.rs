//! What all processes measured of the workloads, and the figures that follow.

use super::configuration::Configuration;
use crate::bench::figure::Figure;
use memtrace_benches::{Count, Kind, Latency, Measurement, Workload};
use std::collections::BTreeMap;

/// All measurements, by workload, configuration and round.
pub(super) struct Results {
    configurations: Vec<Configuration>,
    workloads: BTreeMap<Workload, Rows>,
}

/// What is known of a workload.
struct Rows {
    count: Count,
    /// For each configuration, its measurement of each round.
    measurements: BTreeMap<Configuration, Vec<Measurement>>,
}

/// A configuration did not compute what the others did.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{configuration} computed {found} for {workload}, not {expected}: its time means nothing")]
pub(super) struct ChecksumDiffers {
    configuration: Configuration,
    workload: Workload,
    expected: u64,
    found: u64,
}

impl Results {
    /// Begins without any.
    pub(super) fn new(configurations: Vec<Configuration>) -> Self {
        Self { configurations, workloads: BTreeMap::new() }
    }

    /// Adds how much a workload allocates. Its checksum is the one that all others must have.
    pub(super) fn add_count(&mut self, workload: Workload, count: Count) {
        self.workloads.insert(workload, Rows { count, measurements: BTreeMap::new() });
    }

    /// Adds the next round's measurement of a workload that has been counted.
    pub(super) fn add(
        &mut self,
        workload: Workload,
        configuration: Configuration,
        measurement: Measurement,
    ) -> Result<(), ChecksumDiffers> {
        let rows = self.workloads.get_mut(&workload).expect("workloads are counted first");
        let (expected, found) = (rows.count.checksum, measurement.checksum);
        if expected != found {
            return Err(ChecksumDiffers { configuration, workload, expected, found });
        }
        rows.measurements.entry(configuration).or_default().push(measurement);
        Ok(())
    }

    pub(super) fn configurations(&self) -> impl Iterator<Item = Configuration> + Clone {
        self.configurations.iter().copied()
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = Workload> {
        self.workloads.keys().copied()
    }

    /// Allocations and reallocations of one batch.
    pub(super) fn n_allocations(&self, workload: Workload) -> Option<u64> {
        Some(self.workloads.get(&workload)?.count.n_allocations)
    }

    /// Nanoseconds for each allocation, all work of the workload included.
    pub(super) fn ns_per_allocation(&self, w: Workload, c: Configuration) -> Option<Figure> {
        let n_allocations = self.n_allocations(w)? as f64;
        self.figure(w, c, |run, _| Some(run.ns_per_batch / n_allocations))
    }

    /// Nanoseconds for each allocation, more than the baseline in the same round.
    pub(super) fn added_ns(&self, w: Workload, c: Configuration) -> Option<Figure> {
        let n_allocations = self.n_allocations(w)? as f64;
        self.figure(w, c, |run, baseline| {
            Some((run.ns_per_batch - baseline.ns_per_batch) / n_allocations)
        })
    }

    /// Time as a multiple of the baseline's in the same round.
    pub(super) fn ratio(&self, w: Workload, c: Configuration) -> Option<Figure> {
        self.figure(w, c, |run, baseline| Some(run.ns_per_batch / baseline.ns_per_batch))
    }

    /// The geometric mean of the ratios of workloads that work as programs do, but for those that the
    /// configuration cannot run; `None` if one was not measured, or none was asked for.
    pub(super) fn mean_ratio(&self, c: Configuration) -> Option<f64> {
        let programs = self.workloads().filter(|w| w.kind() == Kind::Program && c.can_run(*w));
        let logarithms: Option<Vec<f64>> =
            programs.map(|workload| Some(self.ratio(workload, c)?.median.ln())).collect();
        let logarithms = logarithms.filter(|all| !all.is_empty())?;
        Some((logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    }

    /// How many times the time that a peer adds is what `ours` adds: infinite if that adds none.
    pub(super) fn times_less(
        &self,
        w: Workload,
        ours: Configuration,
        peer: Configuration,
    ) -> Option<f64> {
        let [ours, peer] = [ours, peer].map(|c| Some(self.added_ns(w, c)?.median));
        let (ours, peer) = (ours?, peer?);
        Some(if ours > 0.0 { (peer / ours).max(0.0) } else { f64::INFINITY })
    }

    /// How well two threads do beside one: throughput of both as a multiple of the throughput of one.
    pub(super) fn scaling(&self, c: Configuration) -> Option<f64> {
        let ns = |workload| Some(self.figure(workload, c, |run, _| Some(run.ns_per_batch))?.median);
        Some(2.0 * ns(Workload::OneThread)? / ns(Workload::TwoThreads)?)
    }

    /// A figure of the latency of requests.
    pub(super) fn latency(&self, c: Configuration, of: impl Fn(&Latency) -> f64) -> Option<Figure> {
        self.figure(Workload::Service, c, |run, _| run.latency.as_ref().map(&of))
    }

    /// A figure of the latency of requests as a multiple of the baseline's in the same round.
    pub(super) fn latency_ratio(
        &self,
        c: Configuration,
        of: impl Fn(&Latency) -> f64,
    ) -> Option<Figure> {
        self.figure(Workload::Service, c, |run, baseline| {
            Some(of(run.latency.as_ref()?) / of(baseline.latency.as_ref()?))
        })
    }

    /// Requests answered in a second.
    pub(super) fn requests_per_second(&self, c: Configuration) -> Option<Figure> {
        self.figure(Workload::Service, c, |run, _| {
            Some(run.latency.as_ref()?.n_requests as f64 * 1e9 / run.ns_per_batch)
        })
    }

    /// Peak of resident bytes, more than the baseline's in the same round.
    pub(super) fn added_bytes(&self, w: Workload, c: Configuration) -> Option<Figure> {
        self.figure(w, c, |run, baseline| {
            Some(run.peak_resident_bytes as f64 - baseline.peak_resident_bytes as f64)
        })
    }

    /// Pairs each round with the baseline's run of that round; `None` if there is no round.
    fn figure(
        &self,
        workload: Workload,
        configuration: Configuration,
        value: impl Fn(&Measurement, &Measurement) -> Option<f64>,
    ) -> Option<Figure> {
        let measurements = &self.workloads.get(&workload)?.measurements;
        let runs = measurements.get(&configuration)?;
        let rounds = runs.iter().zip(measurements.get(&configuration.baseline())?);
        Figure::of(rounds.filter_map(|(run, baseline)| value(run, baseline)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use Configuration::{Dhat, Full25, Jemalloc, Untraced};

    pub(in crate::bench::cost) fn measurement(us_per_batch: u32, mib: u64) -> Measurement {
        Measurement {
            checksum: 7,
            n_batches: 1,
            ns_per_batch: f64::from(us_per_batch) * 1000.0,
            peak_resident_bytes: mib << 20,
            has_frame_pointers: false,
            latency: None,
            tracer: None,
        }
    }

    /// Three rounds of workloads with 100 allocations; the machine is slow in the second.
    pub(in crate::bench::cost) fn three_rounds(workloads: &[Workload]) -> Results {
        let mut results = Results::new(vec![Untraced, Full25, Dhat]);
        for &workload in workloads {
            results.add_count(workload, Count { checksum: 7, n_allocations: 100 });
            for (untraced, traced) in [(10, 20), (30, 60), (10, 25)] {
                let of = |us: u32, mib: u64| {
                    let ns = f64::from(us);
                    let latency = Latency { n_requests: 10, p50_ns: ns, p99_ns: 2.0 * ns };
                    Measurement { latency: Some(latency), ..measurement(us, mib) }
                };
                results.add(workload, Untraced, of(untraced, 10)).unwrap();
                results.add(workload, Full25, of(traced, 14)).unwrap();
                results.add(workload, Dhat, of(untraced + 1500, 110)).unwrap();
            }
        }
        results
    }

    #[test]
    fn ratios_and_differences_are_taken_within_a_round() {
        let results = three_rounds(&[Workload::Json]);
        let of = |median, min, max| Some(Figure { median, min, max });
        assert_eq!(results.ratio(Workload::Json, Full25), of(2.0, 2.0, 2.5));
        assert_eq!(results.added_ns(Workload::Json, Full25), of(150.0, 100.0, 300.0));
        assert_eq!(results.ns_per_allocation(Workload::Json, Untraced), of(100.0, 100.0, 300.0));
        assert_eq!(results.added_bytes(Workload::Json, Full25).unwrap().median, f64::from(4 << 20));
        assert_eq!(results.ratio(Workload::Json, Untraced), of(1.0, 1.0, 1.0));
        assert_eq!(results.ratio(Workload::Json, Jemalloc), None);
        assert_eq!(results.ratio(Workload::Syn, Full25), None);
    }

    #[test]
    fn the_mean_is_geometric_and_leaves_pairs_and_references_out() {
        let workloads = [Workload::TightPair, Workload::OneThread, Workload::Json, Workload::Syn];
        let mut results = three_rounds(&workloads);
        assert!((results.mean_ratio(Full25).unwrap() - 2.0).abs() < 1e-9);
        results.add_count(Workload::Service, Count { checksum: 7, n_allocations: 1 });
        results.add(Workload::Service, Untraced, measurement(1, 1)).unwrap();
        results.add(Workload::Service, Full25, measurement(16, 1)).unwrap();
        // The cube root of 2 × 2 × 16.
        assert!((results.mean_ratio(Full25).unwrap() - 4.0).abs() < 1e-9);
        // One of the three was not measured.
        assert_eq!(results.mean_ratio(Dhat), None);
        assert_eq!(three_rounds(&[Workload::TightPair]).mean_ratio(Full25), None);
    }

    #[test]
    fn a_peer_adds_many_times_what_is_added_and_infinitely_many_times_nothing() {
        let results = three_rounds(&[Workload::Json]);
        // 1500 µs beside 15 µs, in the median.
        assert_eq!(results.times_less(Workload::Json, Full25, Dhat), Some(100.0));
        assert_eq!(results.times_less(Workload::Json, Untraced, Dhat), Some(f64::INFINITY));
        assert_eq!(results.times_less(Workload::Json, Full25, Jemalloc), None);
    }

    #[test]
    fn two_threads_that_take_as_long_as_one_do_twice_as_much() {
        let results = three_rounds(&[Workload::OneThread, Workload::TwoThreads]);
        assert_eq!(results.scaling(Full25), Some(2.0));
        assert_eq!(three_rounds(&[Workload::TwoThreads]).scaling(Full25), None);
    }

    #[test]
    fn latency_is_compared_within_a_round() {
        let results = three_rounds(&[Workload::Service]);
        assert_eq!(results.latency(Untraced, |latency| latency.p99_ns).unwrap().max, 60.0);
        assert_eq!(results.latency_ratio(Full25, |latency| latency.p50_ns).unwrap().median, 2.0);
        assert_eq!(results.requests_per_second(Full25).unwrap().median, 400_000.0);
    }

    #[test]
    fn a_configuration_that_computes_something_else_is_refused() {
        let mut results = three_rounds(&[Workload::Json]);
        let wrong = Measurement { checksum: 8, ..measurement(1, 1) };
        let error = results.add(Workload::Json, Full25, wrong).unwrap_err().to_string();
        assert_eq!(error, "full 25 computed 8 for json, not 7: its time means nothing");
    }
}
