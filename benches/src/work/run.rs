//! Doing what a program was asked for.

use super::input::{Input, InputError};
use super::keep::Keep;
use crate::measurement::{Kept, Latency, Measurement, Repeated, TracerFigures};
use crate::request::{Request, Task};
use crate::resident::{peak_resident_bytes, resident_bytes};
use crate::shape::Shape;
use crate::workload::Workload;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Batches that are timed at least, so that slow tools are not judged by the first that they see.
const MIN_BATCHES: usize = 3;
/// So many before that: a tracer may have to find its feet, too.
const MIN_WARM_UP: usize = 3;

/// Why a request could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// What the workload works on could not be had.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The kernel did not tell how much memory the process uses.
    #[error("resident memory could not be read")]
    NoResidentMemory {
        /// Why.
        source: io::Error,
    },
    /// Two batches of the workload computed different things.
    #[error("{workload} computed {second} and not {first} again: its result cannot be trusted")]
    ChecksumChanged {
        /// The workload.
        workload: Workload,
        /// The checksum of the first batch.
        first: u64,
        /// The other one.
        second: u64,
    },
}

impl Request {
    /// Carries it out, and returns the line to print.
    ///
    /// The allocator must be as it is to be measured: the tracer, if wanted, on. `tracer` is asked
    /// what the tracer tells of itself.
    ///
    /// **Errors**: if an input or the resident memory cannot be read, or if a batch does not compute
    /// what the first one did.
    pub fn run(&self, tracer: impl FnOnce() -> Option<TracerFigures>) -> Result<String, RunError> {
        match self.task {
            Task::Time(workload, budget_ms) => {
                let input = Input::read(workload, &self.inputs)?;
                let budget = Duration::from_millis(budget_ms.into());
                let mut measurement = measure(workload, &input, budget)?;
                measurement.tracer = tracer();
                Ok(measurement.to_line())
            }
            Task::Repeat(workload, n_batches) => {
                let input = Input::read(workload, &self.inputs)?;
                let batches = (0..n_batches).map(|_| workload.run_batch(&input));
                let checksum_of_all = batches.fold(0, u64::wrapping_add);
                Ok(Repeated { checksum_of_all }.to_line())
            }
            Task::Keep(shape, n_units) => {
                Ok(keep(shape, n_units as usize, &self.inputs, tracer)?.to_line())
            }
        }
    }
}

/// Keeps what the shape says, and looks at the memory meanwhile.
fn keep(
    shape: Shape,
    n_units: usize,
    inputs: &Path,
    tracer: impl FnOnce() -> Option<TracerFigures>,
) -> Result<Kept, RunError> {
    let input =
        if shape == Shape::Json { Input::read(Workload::Json, inputs)? } else { Input::default() };
    let began = Instant::now();
    let kept = black_box(Keep::build(shape, n_units, input.document()));
    let build_ns = nanoseconds(began.elapsed());
    let resident_bytes = resident_bytes().map_err(no_resident_memory)?;
    let tracer = tracer();
    let checksum = kept.checksum();
    let began = Instant::now();
    drop(kept);
    let free_ns = nanoseconds(began.elapsed());
    let has_frame_pointers = cfg!(frame_pointers);
    Ok(Kept { checksum, build_ns, free_ns, resident_bytes, has_frame_pointers, tracer })
}

/// Warms the workload up with a tenth of the budget and [`MIN_WARM_UP`] batches, or as many as fit the budget, then times
/// batches until it is used up.
///
/// The fastest batch counts. All do the same work, so what another took longer is the machine's
/// doing: other processes, interrupts, the clock. At least [`MIN_BATCHES`] are timed. Of a workload
/// whose batches are long, the first one is timed and no other.
fn measure(workload: Workload, input: &Input, budget: Duration) -> Result<Measurement, RunError> {
    let mut latencies = Vec::new();
    let began = Instant::now();
    let mut measuring = workload.is_long().then_some(began);
    let (mut first, mut other) = (None, None);
    let (mut n_warm, mut fastest, mut n_batches) = (0, Duration::MAX, 0);
    run_batches(workload, input, &mut |checksum, elapsed| {
        if workload == Workload::Service {
            latencies.extend(input.service().latency());
        }
        if *first.get_or_insert(checksum) != checksum {
            other = Some(checksum);
            return false;
        }
        let Some(since) = measuring else {
            n_warm += 1;
            let time = began.elapsed();
            if n_warm >= MIN_WARM_UP && time >= budget / 10 || time >= budget {
                measuring = Some(Instant::now());
            }
            return true;
        };
        fastest = fastest.min(elapsed);
        n_batches += 1;
        !workload.is_long() && (since.elapsed() < budget || n_batches < MIN_BATCHES)
    });
    let checksum = first.unwrap_or_default();
    if let Some(second) = other {
        return Err(RunError::ChecksumChanged { workload, first: checksum, second });
    }
    // Those of the warm-up are the first.
    let n_before = latencies.len().saturating_sub(n_batches);
    Ok(Measurement {
        checksum,
        n_batches: u32::try_from(n_batches).unwrap_or(u32::MAX),
        ns_per_batch: nanoseconds(fastest),
        peak_resident_bytes: peak_resident_bytes().map_err(no_resident_memory)?,
        has_frame_pointers: cfg!(frame_pointers),
        latency: median(latencies.split_off(n_before)),
        tracer: None,
    })
}

/// Runs batches as long as `is_to_go_on` says so, which is told what each of them summed up to and how long it took.
///
/// All by one call, of which the compiler makes no copies: from another place they would be the work of other stacks.
#[inline(never)]
fn run_batches(
    workload: Workload,
    input: &Input,
    is_to_go_on: &mut dyn FnMut(u64, Duration) -> bool,
) {
    let is_to_go_on = black_box(is_to_go_on);
    loop {
        let began = Instant::now();
        let checksum = workload.run_batch(input);
        if !is_to_go_on(checksum, began.elapsed()) {
            return;
        }
    }
}

/// Takes the median of each figure over the batches: one that other programs made slow counts no
/// more than any other, and what the tracer does now and then is in it if it is often enough.
fn median(latencies: Vec<Latency>) -> Option<Latency> {
    let middle = |of: fn(&Latency) -> f64| {
        let mut values: Vec<f64> = latencies.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Latency {
        n_requests: latencies.first()?.n_requests,
        p50_ns: middle(|latency| latency.p50_ns)?,
        p99_ns: middle(|latency| latency.p99_ns)?,
    })
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn no_resident_memory(source: io::Error) -> RunError {
    RunError::NoResidentMemory { source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Tracing;

    fn run(task: Task) -> Result<String, RunError> {
        let request =
            Request { task, inputs: "/no/such/folder".into(), tracing: Tracing::default() };
        request.run(|| Some(TracerFigures { resident_bytes: 1, n_sites: 2, n_lost: 0 }))
    }

    #[test]
    fn a_measurement_times_at_least_three_batches_and_returns_their_checksum() {
        let line = run(Task::Time(Workload::GrowingVectors, 0)).unwrap();
        let measurement = Measurement::from_output(&line).unwrap();
        assert_eq!(measurement.checksum, Workload::GrowingVectors.run_batch(&Input::default()));
        assert!(measurement.n_batches == 3 && measurement.ns_per_batch > 0.0);
        assert_eq!((measurement.tracer.unwrap().n_sites, measurement.latency), (2, None));
    }

    #[test]
    fn the_latency_of_a_service_is_that_of_the_batches_timed() {
        let line = run(Task::Time(Workload::Service, 0)).unwrap();
        let latency = Measurement::from_output(&line).unwrap().latency.unwrap();
        assert!(latency.n_requests == 1000, "{latency:?}");
        assert!(latency.p50_ns > 0.0 && latency.p50_ns <= latency.p99_ns, "{latency:?}");
    }

    #[test]
    fn batches_that_are_only_repeated_add_up_their_checksums() {
        let line = run(Task::Repeat(Workload::GrowingVectors, 3)).unwrap();
        let once = Workload::GrowingVectors.run_batch(&Input::default());
        assert_eq!(Repeated::from_output(&line).unwrap().checksum_of_all, 3 * once);
    }

    #[test]
    fn what_is_kept_is_resident_when_the_memory_is_looked_at() {
        let line = run(Task::Keep(Shape::Blocks64, 200_000)).unwrap();
        let kept = Kept::from_output(&line).unwrap();
        assert!(kept.resident_bytes > 200_000 * 64, "{kept:?}");
        assert!(kept.build_ns > 0.0 && kept.free_ns > 0.0 && kept.tracer.is_some());
    }

    #[test]
    fn a_document_that_is_not_there_is_named() {
        let error = run(Task::Time(Workload::Json, 0)).unwrap_err().to_string();
        assert_eq!(error, "/no/such/folder/document.json could not be read");
    }

    #[test]
    fn one_slow_batch_does_not_move_the_latency() {
        let of = |ns: f64| Latency { n_requests: 9, p50_ns: ns, p99_ns: 2.0 * ns };
        assert_eq!(median(vec![of(1.0), of(900.0), of(3.0)]), Some(of(3.0)));
        assert_eq!(median(Vec::new()), None);
    }
}
