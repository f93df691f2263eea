//! What a run of `heap/`, allocators beside each other, tells `cargo xtask bench heap`.
//!
//! The figures of one process are of one workload under one allocator.

use crate::measurement::{LineError, from_output, to_line};
use serde::{Deserialize, Serialize};

/// What was measured of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the workload.
    pub workload: String,
    /// What one operation is, such as "pair".
    pub unit: String,
    /// Checksum of what was computed: the same under all allocators.
    pub checksum: u64,
    /// Operations that were timed.
    pub n_operations: u64,
    /// Nanoseconds for each operation; absent if the workload asks for memory and not for time.
    pub ns: Option<f64>,
    /// Absent if the workload asks for time.
    pub memory: Option<Memory>,
}

/// What a process has resident beside what it asked for. All without what was resident before
/// anything was allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Requested bytes of the blocks that live.
    pub live_bytes: u64,
    /// Requested bytes at the height of the burst.
    pub peak_live_bytes: u64,
    /// Resident bytes as soon as the burst is over.
    pub resident_bytes: u64,
    /// Resident bytes a second and some allocations later.
    pub resident_later_bytes: u64,
    /// The most resident bytes.
    pub peak_resident_bytes: u64,
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
        from_output(output, "set of an allocator's figures")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_output_as_they_were_printed() {
        let memory = Some(Memory { live_bytes: 1, resident_bytes: 2, ..Memory::default() });
        let workload = String::from("burst");
        let figures = Figures { workload, checksum: u64::MAX, memory, ..Figures::default() };
        let output = format!("warming up\n{}\n", figures.to_line());
        assert_eq!(Figures::from_output(&output).unwrap(), figures);
    }
}
