//! Whether the results of the analysis are those that the plan foretells.

use crate::heap::Heap;
use crate::sites::{module_of, site_at};
use memtrace::{KeyType, Snapshot, Traceback};
use memtrace_benches::analysis::shape::{N_MODULES, N_SITES, N_SITES_PER_MODULE, n_calls};
use memtrace_benches::analysis::{State, Sum};

/// Live blocks of the program itself, at most: buffers, threads, what was measured.
const N_OWN_BLOCKS: usize = 2000;

/// What is expected of both states.
pub(crate) struct Expected {
    n_blocks: usize,
    old: Vec<Sum>,
    new: Vec<Sum>,
}

/// A group of a result.
pub(crate) struct Group<'a> {
    pub(crate) traceback: &'a Traceback,
    pub(crate) size: u64,
    pub(crate) count: u64,
    pub(crate) diff: Option<(i64, i64)>,
}

impl Expected {
    pub(crate) fn new(heap: &Heap) -> Self {
        let plan = heap.plan();
        let (old, new) = (plan.sums(State::Old), plan.sums(State::New));
        Self { n_blocks: plan.n_blocks(), old, new }
    }

    /// Checks that a snapshot has the planned blocks and hardly any others.
    pub(crate) fn check_snapshot(&self, snapshot: &Snapshot) -> Result<(), String> {
        let n_traces = snapshot.n_traces();
        if !(self.n_blocks..self.n_blocks + N_OWN_BLOCKS).contains(&n_traces) {
            return Err(format!("a snapshot has {n_traces} traces of {} blocks", self.n_blocks));
        }
        Ok(())
    }

    /// Checks the groups of a key: all that are call sites or modules against the plan, and the sums
    /// against the snapshots.
    pub(crate) fn check_groups<'a>(
        &self,
        key_type: KeyType,
        groups: impl Iterator<Item = Group<'a>>,
        new: &Snapshot,
        old: Option<&Snapshot>,
    ) -> Result<(), String> {
        let mut total = Sum::default();
        let mut total_diff = (0, 0);
        let mut found = vec![(Sum::default(), (0, 0)); N_SITES];
        let by_file = matches!(key_type, KeyType::Filename | KeyType::CumulativeFilename);
        for group in groups {
            total.size += group.size;
            total.count += group.count;
            let diff = group.diff.unwrap_or_default();
            total_diff.0 += diff.0;
            total_diff.1 += diff.1;
            let Some(newest) = group.traceback.newest() else { continue };
            let place = if by_file {
                module_of(&newest.filename)
            } else {
                newest_site(group.traceback)
            };
            if let Some(place) = place {
                found[place].0.size += group.size;
                found[place].0.count += group.count;
                found[place].1.0 += diff.0;
                found[place].1.1 += diff.1;
            }
        }
        if !key_type.is_cumulative() {
            if (total.size, total.count) != (new.total_size(), new.n_traces() as u64) {
                return Err(format!("groups by {key_type} do not add up to the snapshot: {total:?}"));
            }
            if let Some(old) = old {
                let expected = (
                    new.total_size() as i64 - old.total_size() as i64,
                    new.n_traces() as i64 - old.n_traces() as i64,
                );
                if total_diff != expected {
                    return Err(format!("differences by {key_type} add up to {total_diff:?}"));
                }
            }
        }
        let (mut new_sums, mut old_sums) = (self.new.clone(), self.old.clone());
        if by_file {
            let n_times = |module| {
                let is_each = key_type == KeyType::CumulativeFilename;
                if is_each { n_calls(module) as u64 + 1 } else { 1 }
            };
            new_sums = by_module(&new_sums, n_times);
            old_sums = by_module(&old_sums, n_times);
        }
        for (i, ((found, diff), (new, old_sum))) in
            found.into_iter().zip(new_sums.into_iter().zip(old_sums)).enumerate()
        {
            let expected_diff = match old {
                Some(_) => (
                    new.size as i64 - old_sum.size as i64,
                    new.count as i64 - old_sum.count as i64,
                ),
                None => (0, 0),
            };
            if found != new || diff != expected_diff {
                return Err(format!(
                    "{key_type}: number {i} has {found:?} {diff:?}, not {new:?} {expected_diff:?}"
                ));
            }
        }
        Ok(())
    }
}

/// The site of the newest frame that is one: frames of Rust's own library may be newer.
fn newest_site(traceback: &Traceback) -> Option<usize> {
    let mut newest_first = traceback.iter().rev();
    newest_first.find_map(|frame| site_at(&frame.filename, frame.lineno))
}

fn by_module(sums: &[Sum], n_times: impl Fn(usize) -> u64) -> Vec<Sum> {
    let mut modules = vec![Sum::default(); N_SITES];
    for (module, sums) in sums.chunks(N_SITES_PER_MODULE).enumerate().take(N_MODULES) {
        for sum in sums {
            modules[module].size += sum.size * n_times(module);
            modules[module].count += sum.count * n_times(module);
        }
    }
    modules
}
