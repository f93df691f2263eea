//! What a program that analyses snapshots tells `cargo xtask bench core`.

use crate::measurement::{LineError, from_output, to_line};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Times of one operation, in milliseconds, one for each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// On snapshots that nothing has been asked of before.
    pub first: Vec<f64>,
    /// Once more on the same snapshots.
    pub again: Vec<f64>,
}

/// What a program measured on one heap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The program, with its version.
    pub program: String,
    /// Traces in the snapshots.
    pub n_traces: u64,
    /// Distinct stacks among them.
    pub n_stacks: u64,
    /// Frames of a stack, on average over the stacks.
    pub n_frames_per_stack: f64,
    /// Those that were not inlined.
    pub n_calls_per_stack: f64,
    /// Times by operation.
    pub millis: BTreeMap<String, Millis>,
    /// The same while allocations were being traced, where that was not already so.
    #[serde(default)]
    pub millis_tracing: BTreeMap<String, Millis>,
    /// The same without CPython's collector of cycles, where there is one.
    #[serde(default)]
    pub millis_uncollected: BTreeMap<String, Millis>,
    /// Time of the very first snapshot, in milliseconds.
    pub cold_snapshot_ms: f64,
    /// Time for which the program waited for a CPU, in milliseconds; no other time has it in it.
    pub waited_ms: f64,
    /// Bytes of a snapshot in memory, as it says; absent if it does not.
    pub stated_bytes: Option<u64>,
    /// Resident bytes of a snapshot, as the kernel counts them.
    pub resident_bytes: u64,
    /// Bytes of a saved snapshot.
    pub file_bytes: u64,
}

/// What threads that allocate did while another thread was busy with something else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BesideFigures {
    /// Live traces meanwhile.
    pub n_live_traces: u64,
    /// Bytes of the tracer's table that a snapshot reads.
    pub live_table_bytes: u64,
    /// One for each number of threads and thing that the other thread did.
    pub beside: Vec<Beside>,
}

/// What threads that allocate did while another thread did one thing, for each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Beside {
    /// Threads that allocated.
    pub n_threads: usize,
    /// What the other thread did.
    pub other: String,
    /// Pairs of allocation and release, of all threads, for each second that passed.
    pub pairs_per_second: Vec<f64>,
    /// The same for each second in which the thread did not wait for a CPU, summed over the
    /// threads.
    pub pairs_per_own_second: Vec<f64>,
    /// The longest time from the end of a pair to the end of the next, less waiting for a CPU, in
    /// milliseconds.
    pub longest_gap_ms: Vec<f64>,
    /// How long the other thread took for what it did, on average, in milliseconds.
    pub other_ms: Vec<f64>,
}

impl Figures {
    /// Returns the line to print.
    pub fn to_line(&self) -> String {
        to_line(self)
    }

    /// Finds the line in a program's output.
    ///
    /// **Errors**: if there is none.
    pub fn from_output(output: &str) -> Result<Self, LineError> {
        from_output(output, "figures")
    }
}

impl BesideFigures {
    /// Returns the line to print.
    pub fn to_line(&self) -> String {
        to_line(self)
    }

    /// Finds the line in a program's output.
    ///
    /// **Errors**: if there is none.
    pub fn from_output(output: &str) -> Result<Self, LineError> {
        from_output(output, "list of figures")
    }
}
