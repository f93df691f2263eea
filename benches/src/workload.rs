//! The workloads and their names.
//!
//! A workload runs in *batches*: every batch does the same work and so returns the same checksum,
//! however many of them a configuration has time for. A batch takes some milliseconds untraced, but
//! for [`Workload::KeptBlocks`].

mod growing_vectors;
mod json;
mod kept_blocks;
mod maps_of_strings;
mod tight_pair;
mod two_threads;

use std::fmt;
use std::str::FromStr;

pub use json::Input;

/// A deterministic piece of work that allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Blocks of 32 to 256 bytes, each given back at once, below 25 frames.
    TightPair,
    /// A JSON document parsed into values, which are then dropped.
    Json,
    /// A map of strings to vectors of strings, built, updated and dropped.
    MapsOfStrings,
    /// Two threads that allocate, give back half and hand the other half over to each other.
    TwoThreads,
    /// Vectors that grow in turn by pushing: reallocations.
    GrowingVectors,
    /// A million small blocks, all live at once, then dropped.
    KeptBlocks,
}

impl Workload {
    /// All workloads, in the order of the table.
    pub const ALL: [Self; 6] = [
        Self::TightPair,
        Self::Json,
        Self::MapsOfStrings,
        Self::TwoThreads,
        Self::GrowingVectors,
        Self::KeptBlocks,
    ];

    /// The blocks that [`Self::KeptBlocks`] holds at once.
    pub const N_KEPT_BLOCKS: u64 = kept_blocks::N_BLOCKS as u64;

    /// Returns the name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TightPair => "tight-pair",
            Self::Json => "json",
            Self::MapsOfStrings => "maps-of-strings",
            Self::TwoThreads => "two-threads",
            Self::GrowingVectors => "growing-vectors",
            Self::KeptBlocks => "kept-blocks",
        }
    }

    /// Does one batch of the work and returns the checksum of its results.
    pub fn run_batch(self, input: &Input) -> u64 {
        match self {
            Self::TightPair => tight_pair::run_batch(),
            Self::Json => json::run_batch(input),
            Self::MapsOfStrings => maps_of_strings::run_batch(),
            Self::TwoThreads => two_threads::run_batch(),
            Self::GrowingVectors => growing_vectors::run_batch(),
            Self::KeptBlocks => kept_blocks::run_batch(),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no workload of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no workload is named {name:?}; there are {}", Workload::ALL.map(Workload::name).join(", "))]
pub struct UnknownWorkload {
    /// The name that was asked for.
    pub name: String,
}

impl FromStr for Workload {
    type Err = UnknownWorkload;

    fn from_str(name: &str) -> Result<Self, UnknownWorkload> {
        let mut all = Self::ALL.into_iter();
        all.find(|workload| workload.name() == name)
            .ok_or_else(|| UnknownWorkload { name: name.to_owned() })
    }
}

/// A fixed sequence of numbers that looks random (Marsaglia's xorshift of 64 bits).
#[derive(Debug)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Returns the next number in `0..end`; `end` is small beside 2^32.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * end as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_of_a_workload_computes_the_same_and_no_two_workloads_do() {
        let input = Input::from_document(br#"{"a": [1, "two", null], "b": {"c": 3.5}}"#.to_vec());
        let mut checksums = Workload::ALL.map(|workload| {
            let checksum = workload.run_batch(&input);
            assert_eq!(workload.run_batch(&input), checksum, "{workload}");
            checksum
        });
        checksums.sort_unstable();
        assert!(checksums.windows(2).all(|pair| pair[0] != pair[1]), "{checksums:?}");
    }

    #[test]
    fn a_workload_is_found_by_its_name_and_an_unknown_name_is_answered_with_those_there_are() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
        }
        let error = "jsno".parse::<Workload>().unwrap_err().to_string();
        assert!(error.contains("\"jsno\"") && error.contains("tight-pair, json, "), "{error}");
    }

    #[test]
    fn the_sequence_stays_below_its_end_and_reaches_every_number() {
        let mut sequence = Sequence::new();
        let mut n_seen = [0; 7];
        for _ in 0..7000 {
            n_seen[sequence.below(7)] += 1;
        }
        assert!(n_seen.iter().all(|n| (800..1200).contains(n)), "{n_seen:?}");
    }
}
