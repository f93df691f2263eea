//! The configurations that are compared.

use memtrace_benches::{Tracing, Workload};
use std::fmt;

/// Mean number of bytes between samples, where every tool samples.
const SAMPLE_BYTES: u64 = 512 << 10;

/// A way to run the workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Configuration {
    /// The system's allocator.
    Untraced,
    /// The same, compiled with frame pointers.
    UntracedFramePointers,
    /// Jemalloc, its profiler off.
    Jemalloc,
    /// The pooled heap with memtrace's hook, not tracing.
    Pooled,
    /// memtrace's hook, not tracing.
    Stopped,
    /// memtrace, a sample of allocations, 25 frames.
    Sampled,
    /// memtrace, every allocation, one frame of each stack.
    Full1,
    /// 25 frames: the configuration that is judged.
    Full25,
    /// 100 frames.
    Full100,
    /// The least that whoever compares 25 return addresses does, and no tracer: [`Self::Full25`] is to be seen beside it.
    Least25,
    /// 25 frames, compiled with frame pointers.
    Full25FramePointers,
    /// Every allocation, 25 frames, over the pooled heap.
    Full25Pooled,
    /// Heapscope, which needs frame pointers.
    Heapscope,
    HeapscopeSampled,
    Heaptrack,
    Dhat,
    JemallocSampled,
    /// Jemalloc's profiler with a sample at every allocation.
    JemallocEvery,
}

/// The program that a configuration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    Untraced,
    Hooked,
    Least,
    UntracedFramePointers,
    HookedFramePointers,
    Pooled,
    Dhat,
    Jemalloc,
    Heapscope,
}

impl Program {
    /// Whether it is compiled with frame pointers.
    pub(super) const fn has_frame_pointers(self) -> bool {
        matches!(self, Self::UntracedFramePointers | Self::HookedFramePointers | Self::Heapscope)
    }
}

impl Configuration {
    /// All of them, in the order of the tables.
    pub(super) const ALL: [Self; 18] = [
        Self::Untraced,
        Self::UntracedFramePointers,
        Self::Jemalloc,
        Self::Pooled,
        Self::Stopped,
        Self::Sampled,
        Self::Full1,
        Self::Full25,
        Self::Full100,
        Self::Least25,
        Self::Full25FramePointers,
        Self::Full25Pooled,
        Self::Heapscope,
        Self::HeapscopeSampled,
        Self::Heaptrack,
        Self::Dhat,
        Self::JemallocSampled,
        Self::JemallocEvery,
    ];

    /// Tools of others that record every allocation, as the judged configuration does.
    pub(super) const EXACT_PEERS: [Self; 4] =
        [Self::Heapscope, Self::Heaptrack, Self::Dhat, Self::JemallocEvery];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Untraced => "untraced",
            Self::UntracedFramePointers => "untraced, frame pointers",
            Self::Jemalloc => "jemalloc",
            Self::Pooled => "pooled heap",
            Self::Stopped => "stopped",
            Self::Sampled => "sampled",
            Self::Full1 => "full 1",
            Self::Full25 => "full 25",
            Self::Full100 => "full 100",
            Self::Least25 => "least 25",
            Self::Full25FramePointers => "full 25, frame pointers",
            Self::Full25Pooled => "full 25, pooled heap",
            Self::Heapscope => "heapscope",
            Self::HeapscopeSampled => "heapscope sampled",
            Self::Heaptrack => "heaptrack",
            Self::Dhat => "dhat",
            Self::JemallocSampled => "jemalloc sampled",
            Self::JemallocEvery => "jemalloc every",
        }
    }

    /// What it is compared with: the same program without a tracer, as nearly as can be had. A
    /// baseline is compared with itself.
    pub(super) const fn baseline(self) -> Self {
        match self {
            Self::UntracedFramePointers
            | Self::Full25FramePointers
            | Self::Heapscope
            | Self::HeapscopeSampled => Self::UntracedFramePointers,
            Self::Jemalloc | Self::JemallocSampled | Self::JemallocEvery => Self::Jemalloc,
            Self::Pooled | Self::Full25Pooled => Self::Pooled,
            _ => Self::Untraced,
        }
    }

    pub(super) fn is_baseline(self) -> bool {
        self.baseline() == self
    }

    /// Whether it can run a workload. Of ten million live blocks heapscope, whose own memory ends at
    /// 512 MiB, does not record all, and jemalloc's profiler, where every block is a sample, takes
    /// some 4 KiB for each.
    pub(super) const fn can_run(self, workload: Workload) -> bool {
        !(matches!(self, Self::Heapscope | Self::JemallocEvery) && workload.is_long())
    }

    /// Whether memtrace's hook is in it.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self.program(), Program::Hooked | Program::HookedFramePointers | Program::Pooled)
    }

    /// Whether memtrace traces, and must say what it recorded.
    pub(super) const fn is_traced(self) -> bool {
        self.is_ours() && self.tracing().n_frames.is_some()
    }

    pub(super) const fn program(self) -> Program {
        match self {
            Self::Untraced | Self::Heaptrack => Program::Untraced,
            Self::UntracedFramePointers => Program::UntracedFramePointers,
            Self::Jemalloc | Self::JemallocSampled | Self::JemallocEvery => Program::Jemalloc,
            Self::Stopped | Self::Sampled | Self::Full1 | Self::Full25 | Self::Full100 => {
                Program::Hooked
            }
            Self::Least25 => Program::Least,
            Self::Full25FramePointers => Program::HookedFramePointers,
            Self::Pooled | Self::Full25Pooled => Program::Pooled,
            Self::Heapscope | Self::HeapscopeSampled => Program::Heapscope,
            Self::Dhat => Program::Dhat,
        }
    }

    pub(super) const fn tracing(self) -> Tracing {
        let (n_frames, sample_bytes) = match self {
            Self::Full1 => (Some(1), None),
            Self::Full25
            | Self::Least25
            | Self::Full25FramePointers
            | Self::Full25Pooled
            | Self::Heapscope
            | Self::Dhat => (Some(25), None),
            Self::Full100 => (Some(100), None),
            Self::Sampled | Self::HeapscopeSampled | Self::JemallocSampled => {
                (Some(25), Some(SAMPLE_BYTES))
            }
            Self::JemallocEvery => (Some(25), Some(1)),
            _ => (None, None),
        };
        Tracing { n_frames, sample_bytes, more: None }
    }

    /// What jemalloc is told in the environment: the mean number of bytes as a power of two.
    pub(super) fn jemalloc_conf(self) -> Option<String> {
        let n_bytes = self.tracing().sample_bytes?;
        (self.program() == Program::Jemalloc)
            .then(|| format!("prof:true,prof_active:true,lg_prof_sample:{}", n_bytes.ilog2()))
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_has_a_baseline_of_the_same_allocator_and_build() {
        for configuration in Configuration::ALL {
            let baseline = configuration.baseline();
            assert!(baseline.is_baseline() && !baseline.is_traced(), "{configuration}");
            let has = |configuration: Configuration| configuration.program().has_frame_pointers();
            assert_eq!(has(configuration), has(baseline), "{configuration}");
        }
        assert_eq!(Configuration::ALL.into_iter().filter(|c| c.is_baseline()).count(), 4);
    }

    #[test]
    fn only_peers_are_excused_from_a_workload() {
        for configuration in Configuration::ALL {
            let is_excused = Workload::ALL.into_iter().any(|w| !configuration.can_run(w));
            let is_ours = configuration.is_ours() || configuration.is_baseline();
            assert!(!(is_excused && is_ours), "{configuration}");
        }
    }

    #[test]
    fn jemalloc_is_told_the_logarithm_of_the_sample() {
        let conf = Configuration::jemalloc_conf;
        assert!(conf(Configuration::JemallocSampled).unwrap().ends_with("lg_prof_sample:19"));
        assert!(conf(Configuration::JemallocEvery).unwrap().ends_with("lg_prof_sample:0"));
        assert_eq!(conf(Configuration::Jemalloc), None);
        assert_eq!(conf(Configuration::HeapscopeSampled), None);
    }
}
