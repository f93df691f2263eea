//! What is new, gone, grown, shrunk and unchanged between two snapshots.

use crate::StatisticDiff;

/// The groups of two snapshots by what became of them, each list with the largest difference first.
///
/// Made by [`Snapshot::diff_sets`](crate::Snapshot::diff_sets). Each group of either snapshot is in
/// one of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiffSets {
    /// Groups of the new snapshot that the old one has not.
    pub new: Vec<StatisticDiff>,
    /// Groups of the old snapshot that the new one has not.
    pub gone: Vec<StatisticDiff>,
    /// Groups of both with more bytes than before.
    pub grown: Vec<StatisticDiff>,
    /// Groups of both with fewer bytes than before.
    pub shrunk: Vec<StatisticDiff>,
    /// Groups of both with as many bytes as before, though their blocks may be more or fewer.
    pub unchanged: Vec<StatisticDiff>,
}

impl DiffSets {
    /// Sorts differences into their lists, in the order in which they come.
    pub(crate) fn of(diffs: impl IntoIterator<Item = StatisticDiff>) -> Self {
        let mut sets = Self::default();
        for diff in diffs {
            let old_count = i128::from(diff.count) - i128::from(diff.count_diff);
            let list = match (diff.count, old_count, diff.size_diff) {
                (0, _, _) => &mut sets.gone,
                (_, 0, _) => &mut sets.new,
                (_, _, 1..) => &mut sets.grown,
                (_, _, ..=-1) => &mut sets.shrunk,
                (_, _, 0) => &mut sets.unchanged,
            };
            list.push(diff);
        }
        sets
    }
}
