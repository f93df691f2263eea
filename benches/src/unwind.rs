//! What a run of `unwind/`, from allocation to call site, tells `cargo xtask bench unwind`.
//!
//! A *contender* is a way to get from a point in the program to the number of its stack. The figures
//! of one process are of one workload under all contenders in turn.

use crate::measurement::{LineError, from_output, to_line};
use serde::{Deserialize, Serialize};

/// What was measured of one workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the workload.
    pub workload: String,
    /// Whether this is a whole program that allocates, and not captures in a loop.
    pub is_program: bool,
    /// Whether the build was asked for frame pointers.
    pub has_frame_pointers: bool,
    /// The most frames of a stack that a capture takes.
    pub limit: usize,
    /// Captures of one run of the workload; in a program, one at each allocation.
    pub n_captures: u64,
    /// Frames of a stack in whole, on average over the captures: in a loop, those above the
    /// benchmark's own; in a program, all that the limit leaves.
    pub mean_depth: f64,
    /// Distinct stacks among the captures, by the truth.
    pub n_sites: u64,
    /// Time without captures, in nanoseconds for each capture that there would be; one a round. In a
    /// loop, that of calling a contender that does nothing; in a program, that of the program.
    pub base_ns: Vec<f64>,
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// Contenders that are not there, and why.
    pub absent: Vec<String>,
}

/// What was measured of one contender.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Whether it claims that its stacks are right.
    pub is_exact: bool,
    /// Whether it gives a number to the stack, or captures only.
    pub is_interning: bool,
    /// Time in nanoseconds for each capture, what the base takes included; one a round.
    pub ns: Vec<f64>,
    /// Captures whose stacks were compared with the truth.
    pub n_checked: u64,
    /// Those that were not the same.
    pub n_wrong: u64,
    /// Those of the wrong ones that lack outer frames, and are right as far as they go.
    pub n_cut: u64,
    /// Distinct stacks that it found among those checked.
    pub n_sites: u64,
    /// Distinct stacks that it found while it was timed; absent if chance has a part in them, as
    /// where threads meet.
    pub n_sites_timed: Option<u64>,
    /// Bytes of memory that it takes, if it tells.
    pub memory_bytes: Option<u64>,
    /// The part of the rules for addresses that it found in its own cache, if it tells.
    pub rule_hits: Option<f64>,
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
        from_output(output, "list of contenders' figures")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_output_as_they_were_printed() {
        let contender = Contender { ns: vec![1.5, 2.25], n_checked: 3, ..Contender::default() };
        let workload = String::from("same 25/25");
        let figures = Figures { workload, contenders: vec![contender], ..Figures::default() };
        let output = format!("warming up\n{}\n", figures.to_line());
        assert_eq!(Figures::from_output(&output).unwrap(), figures);
    }
}
