//! The workloads and their names.
//!
//! A workload runs in *batches*: every batch does the same work and so returns the same checksum,
//! however many of them a configuration has time for. A batch takes some milliseconds untraced, but
//! for [`Workload::KeptBlocks`], [`Workload::ManyKeptBlocks`] and [`Workload::Service`].

use std::fmt;
use std::str::FromStr;

/// A deterministic piece of work that allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Blocks of 32 to 256 bytes, each given back at once, below 5 frames.
    ShallowPair,
    /// The same below 25 frames.
    TightPair,
    /// The same below 50 frames.
    DeepPair,
    /// A JSON document parsed into values, which are then dropped.
    Json,
    /// A map of strings to vectors of strings, built, updated and dropped.
    MapsOfStrings,
    /// Vectors that grow in turn by pushing: reallocations.
    GrowingVectors,
    /// Buffers of 4 to 64 KiB, a few hundred at a time, replaced one after the other.
    Buffers,
    /// One thread that replaces blocks: what [`Self::TwoThreads`] is compared with.
    OneThread,
    /// Two threads that each do that work, and share nothing.
    TwoThreads,
    /// Two threads that allocate, give back half and hand the other half over to each other.
    HandOver,
    /// A million small blocks, all live at once, then dropped.
    KeptBlocks,
    /// Ten million of them.
    ManyKeptBlocks,
    /// An HTTP service, axum on tokio, asked by two clients over loopback.
    Service,
    /// A large Rust source parsed by `syn` into a syntax tree, which is cloned, visited and dropped.
    Syn,
}

/// What a workload's figures are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but allocations: the cost of one and of its release, bare.
    Pair,
    /// Work as programs do it: what a mean is taken over.
    Program,
    /// What another workload is compared with.
    Reference,
}

impl Workload {
    /// All workloads, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::ShallowPair,
        Self::TightPair,
        Self::DeepPair,
        Self::Json,
        Self::MapsOfStrings,
        Self::GrowingVectors,
        Self::Buffers,
        Self::OneThread,
        Self::TwoThreads,
        Self::HandOver,
        Self::KeptBlocks,
        Self::ManyKeptBlocks,
        Self::Service,
        Self::Syn,
    ];

    /// Returns the name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ShallowPair => "tight-pair-5",
            Self::TightPair => "tight-pair-25",
            Self::DeepPair => "tight-pair-50",
            Self::Json => "json",
            Self::MapsOfStrings => "maps-of-strings",
            Self::GrowingVectors => "growing-vectors",
            Self::Buffers => "buffers",
            Self::OneThread => "one-thread",
            Self::TwoThreads => "two-threads",
            Self::HandOver => "hand-over",
            Self::KeptBlocks => "kept-blocks",
            Self::ManyKeptBlocks => "ten-million-kept",
            Self::Service => "service",
            Self::Syn => "syn",
        }
    }

    /// Returns what its figures are good for.
    pub const fn kind(self) -> Kind {
        match self {
            Self::ShallowPair | Self::TightPair | Self::DeepPair | Self::Buffers => Kind::Pair,
            Self::OneThread => Kind::Reference,
            _ => Kind::Program,
        }
    }

    /// Tells whether a batch takes so long, minutes under some tools, that the first one of the
    /// process is timed and no other.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::ManyKeptBlocks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_found_by_its_name_and_an_unknown_name_is_answered_with_those_there_are() {
        for workload in Workload::ALL {
            assert_eq!(workload.name().parse(), Ok(workload));
        }
        let error = "jsno".parse::<Workload>().unwrap_err().to_string();
        assert!(error.contains("\"jsno\"") && error.contains("tight-pair-50, json, "), "{error}");
    }
}
