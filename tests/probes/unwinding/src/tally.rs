//! How many captures were compared, by kind, and how many differed.

use crate::kind::Kind;
use std::fmt;

#[derive(Clone, Copy, Default)]
struct Count {
    n_comparisons: u64,
    n_differences: u64,
    n_explained: u64,
}

/// The counts of all kinds.
#[derive(Clone)]
pub(crate) struct Tally {
    counts: [Count; Kind::ALL.len()],
    /// Answers that were spoilt on purpose; `None` if none should be.
    pub(crate) n_sabotaged: Option<u64>,
}

impl Tally {
    pub(crate) fn new(is_sabotaged: bool) -> Self {
        Self { counts: [Count::default(); Kind::ALL.len()], n_sabotaged: is_sabotaged.then_some(0) }
    }

    /// Counts captures that were compared.
    pub(crate) fn add_comparison(&mut self, kind: Kind) {
        self.counts[kind as usize].n_comparisons += 1;
    }

    /// Counts one that differed and returns how many did so before, of all kinds.
    pub(crate) fn add_difference(&mut self, kind: Kind) -> u64 {
        let before = self.counts.iter().map(|count| count.n_differences).sum();
        self.counts[kind as usize].n_differences += 1;
        before
    }

    /// Counts one that differed for a reason that is known.
    pub(crate) fn add_explained(&mut self, kind: Kind) {
        self.counts[kind as usize].n_explained += 1;
    }

    /// All comparisons.
    pub(crate) fn n_comparisons(&self) -> u64 {
        self.counts.iter().map(|count| count.n_comparisons).sum()
    }

    /// Adds another tally to this one.
    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            mine.n_comparisons += theirs.n_comparisons;
            mine.n_differences += theirs.n_differences;
            mine.n_explained += theirs.n_explained;
        }
        if let (Some(mine), Some(theirs)) = (&mut self.n_sabotaged, other.n_sabotaged) {
            *mine += theirs;
        }
    }

    /// Whether every possible kind was compared, and nothing differed.
    pub(crate) fn is_good(&self) -> bool {
        self.possible().all(|(_, count)| count.n_comparisons > 0 && count.n_differences == 0)
    }

    fn possible(&self) -> impl Iterator<Item = (Kind, Count)> {
        let counts = Kind::ALL.iter().copied().zip(self.counts);
        counts.filter(|(kind, _)| kind.is_possible())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kind\tcomparisons\tdifferences\texplained")?;
        for (kind, count) in self.possible() {
            let Count { n_comparisons, n_differences, n_explained } = count;
            let name = kind.name();
            writeln!(f, "{name}\t{n_comparisons}\t{n_differences}\t{n_explained}")?;
        }
        if let Some(n_sabotaged) = self.n_sabotaged {
            writeln!(f, "sabotaged\t{n_sabotaged}")?;
        }
        Ok(())
    }
}
