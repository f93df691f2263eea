//! What the workloads do, and doing what a program was asked for.

mod buffers;
mod growing_vectors;
mod hand_over;
mod independent_threads;
mod input;
mod json;
mod keep;
mod kept_blocks;
mod maps_of_strings;
mod run;
mod rust_source;
mod service;
mod tight_pair;

use crate::sequence::Sequence;
use crate::workload::Workload;

pub use input::{Input, InputError};
pub use run::RunError;

impl Workload {
    /// Does one batch of the work and returns the checksum of its results.
    pub fn run_batch(self, input: &Input) -> u64 {
        match self {
            Self::ShallowPair => tight_pair::run_batch_below_5(),
            Self::TightPair => tight_pair::run_batch_below_25(),
            Self::DeepPair => tight_pair::run_batch_below_50(),
            Self::Json => json::run_batch(input.document()),
            Self::MapsOfStrings => maps_of_strings::run_batch(),
            Self::GrowingVectors => growing_vectors::run_batch(),
            Self::Buffers => buffers::run_batch(),
            Self::OneThread => independent_threads::run_batch(1),
            Self::TwoThreads => independent_threads::run_batch(2),
            Self::HandOver => hand_over::run_batch(),
            Self::KeptBlocks => kept_blocks::run_batch(1_000_000),
            Self::ManyKeptBlocks => kept_blocks::run_batch(10_000_000),
            Self::Service => input.service().run_batch(),
            Self::Syn => rust_source::run_batch(input.source()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_of_a_workload_computes_the_same_and_no_two_workloads_do() {
        let document = br#"{"a": [1, "two", null], "b": {"c": 3.5}}"#;
        let source = "fn main() { let greeting = String::from(\"hello\"); }";
        // The one that is left out is another only in how much it does.
        let workloads = Workload::ALL.into_iter().filter(|workload| !workload.is_long());
        let mut checksums: Vec<u64> = workloads
            .map(|workload| {
                let input = Input::of(workload, document.to_vec(), source.to_owned()).unwrap();
                let checksum = workload.run_batch(&input);
                assert_eq!(workload.run_batch(&input), checksum, "{workload}");
                checksum
            })
            .collect();
        checksums.sort_unstable();
        assert!(checksums.windows(2).all(|pair| pair[0] != pair[1]), "{checksums:?}");
    }
}
