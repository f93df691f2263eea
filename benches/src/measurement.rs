//! What a configuration's program tells `cargo xtask bench`: lines of JSON on its standard output.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One process's timing of one workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Checksum of one batch.
    pub checksum: u64,
    /// Batches timed, after the warm-up.
    pub n_batches: u32,
    /// Time of the fastest batch, in nanoseconds.
    pub ns_per_batch: f64,
    /// The most bytes the process had resident.
    pub peak_resident_bytes: u64,
    /// Whether the program was compiled with frame pointers, and told so.
    pub has_frame_pointers: bool,
    /// How long the requests of a service took; absent for other workloads.
    pub latency: Option<Latency>,
    /// What the tracer tells of itself; absent if nothing was traced, or by a peer.
    pub tracer: Option<TracerFigures>,
}

/// How long the requests of a service took: medians over the batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Requests of a batch.
    pub n_requests: u64,
    /// The time that half of the requests took at most, in nanoseconds.
    pub p50_ns: f64,
    /// The time that 99 of 100 requests took at most, in nanoseconds.
    pub p99_ns: f64,
}

/// What one process found while blocks were live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Checksum of what was kept.
    pub checksum: u64,
    /// Time to allocate and fill it, in nanoseconds.
    pub build_ns: f64,
    /// Time to drop it, in nanoseconds.
    pub free_ns: f64,
    /// Resident bytes of the process while it was live.
    pub resident_bytes: u64,
    /// Whether the program was compiled with frame pointers, and told so.
    pub has_frame_pointers: bool,
    /// What the tracer told of itself meanwhile; absent if nothing was traced, or by a peer.
    pub tracer: Option<TracerFigures>,
}

/// What a program says that did batches and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// Checksums of all batches, added up.
    pub checksum_of_all: u64,
}

/// What the tracer tells of itself at the end of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracerFigures {
    /// Resident bytes of the tracer's tables.
    pub resident_bytes: u64,
    /// Distinct stacks.
    pub n_sites: u32,
    /// Traces, or stacks of traces, that were lost.
    pub n_lost: u64,
}

/// How much one batch of a workload allocates, or how much is live while a shape is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Checksum of one batch.
    pub checksum: u64,
    /// Allocations and reallocations of one batch; of a shape, blocks that it added to those live.
    pub n_allocations: u64,
}

/// The output of a configuration's program has no line that says what was expected.
#[derive(Debug, thiserror::Error)]
#[error("no line of the program's output is a {expected}; it wrote: {output:?}")]
pub struct LineError {
    /// The name of the type that was expected.
    pub expected: &'static str,
    /// All that the program wrote.
    pub output: String,
}

/// Gives a type its line.
macro_rules! lines {
    ($($figures:ident: $name:literal)*) => {$(
        impl $figures {
            /// Returns the line to print.
            pub fn to_line(&self) -> String {
                to_line(self)
            }

            /// Finds the line in a program's output, in which other tools may write, too.
            ///
            /// **Errors**: if there is none.
            pub fn from_output(output: &str) -> Result<Self, LineError> {
                from_output(output, $name)
            }
        }
    )*};
}

lines! { Measurement: "measurement" Kept: "report on what was kept" Count: "count" Repeated: "sum" }

pub(crate) fn to_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers in fields can be written as JSON")
}

pub(crate) fn from_output<T: DeserializeOwned>(
    output: &str,
    expected: &'static str,
) -> Result<T, LineError> {
    let mut lines = output.lines();
    lines
        .find_map(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| LineError { expected, output: output.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_found_among_what_other_tools_write() {
        let measurement = Measurement {
            checksum: u64::MAX,
            n_batches: 3,
            ns_per_batch: 1234.5,
            peak_resident_bytes: 4096,
            has_frame_pointers: false,
            latency: Some(Latency { n_requests: 1, p50_ns: 2.0, p99_ns: 3.5 }),
            tracer: Some(TracerFigures { resident_bytes: 1, n_sites: 2, n_lost: 0 }),
        };
        let output = format!("recording\n{}\n{{}}\ndone\n", measurement.to_line());
        assert_eq!(Measurement::from_output(&output).unwrap(), measurement);
    }

    #[test]
    fn output_without_a_count_is_shown_in_the_error() {
        let error = Count::from_output("thread 'main' panicked\n").unwrap_err().to_string();
        assert!(error.contains("is a count") && error.contains("panicked"), "{error}");
    }
}
