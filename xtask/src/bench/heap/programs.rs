//! Building and running the benchmark's programs, one for each allocator.

use crate::bench::program::{RunError, measure, run};
use crate::cargo::{self, CargoError, Workspace};
use memtrace_benches::heap::Figures;
use std::path::PathBuf;
use std::process::Command;

/// A global allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allocator {
    Memtrace,
    Glibc,
    Mimalloc,
    Jemalloc,
}

/// The programs, built.
pub(super) struct Programs {
    /// In the order of [`Allocator::ALL`].
    paths: Vec<PathBuf>,
}

impl Allocator {
    pub(super) const ALL: [Self; 4] = [Self::Memtrace, Self::Glibc, Self::Mimalloc, Self::Jemalloc];

    /// Its name, and that of its program.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memtrace => "memtrace",
            Self::Glibc => "glibc",
            Self::Mimalloc => "mimalloc",
            Self::Jemalloc => "jemalloc",
        }
    }

    /// All of them, beginning with another one at each turn.
    pub(super) fn in_turn(turn: usize) -> impl Iterator<Item = Self> {
        (0..Self::ALL.len()).map(move |i| Self::ALL[(turn + i) % Self::ALL.len()])
    }
}

impl Programs {
    /// Builds them in a workspace and a target directory of their own.
    pub(super) fn build(workspace: &Workspace) -> Result<Self, CargoError> {
        let built = cargo::Programs::build(&[
            "--locked".into(),
            "--manifest-path".into(),
            Workspace::root().join("benches/heap/Cargo.toml").into(),
            "--target-dir".into(),
            workspace.target_dir.join("heap").into(),
        ])?;
        let path = |allocator: Allocator| Ok(built.path(allocator.name())?.to_owned());
        Ok(Self { paths: Allocator::ALL.into_iter().map(path).collect::<Result<_, CargoError>>()? })
    }

    /// Returns the names of the workloads.
    pub(super) fn workloads(&self) -> Result<Vec<String>, RunError> {
        let output = run(self.command(Allocator::Memtrace).arg("names"))?;
        Ok(output.lines().map(str::to_owned).collect())
    }

    /// Checks and measures a workload in a process of its own.
    pub(super) fn run(&self, allocator: Allocator, workload: &str) -> Result<Figures, RunError> {
        measure(self.command(allocator).args(["run", workload]), Figures::from_output)
    }

    fn command(&self, allocator: Allocator) -> Command {
        Command::new(&self.paths[allocator as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    #[test]
    fn each_allocator_has_a_program_that_names_it() {
        for allocator in Allocator::ALL {
            let path = format!("benches/heap/src/bin/{}.rs", allocator.name());
            let text = fs::read_to_string(Workspace::root().join(path)).unwrap();
            let said = match allocator {
                Allocator::Memtrace => "memtrace_heap::Heap",
                Allocator::Glibc => "std::alloc::System",
                Allocator::Mimalloc => "mimalloc::MiMalloc",
                Allocator::Jemalloc => "tikv_jemallocator::Jemalloc",
            };
            assert!(text.contains(&format!("static ALLOC: {said} =")), "{text}");
        }
    }

    #[test]
    fn each_allocator_has_every_place_in_some_turn() {
        for place in 0..4 {
            let at: BTreeSet<_> =
                (0..4).filter_map(|turn| Allocator::in_turn(turn).nth(place)).collect();
            assert_eq!(at.len(), 4);
        }
    }
}
