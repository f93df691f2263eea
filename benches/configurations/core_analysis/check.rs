//! Whether the results of the analysis are those that the plan foretells.

use crate::sites::{module_of, site_at};
use memtrace::{KeyType, Snapshot, Statistic, StatisticDiff, Traceback};
use memtrace_benches::analysis::shape::{N_SITES_PER_MODULE, n_calls};
use memtrace_benches::analysis::{N_SITES, Plan, State, Sum};

/// Live blocks of the program itself, at most: buffers, threads, what was measured.
const N_OWN_BLOCKS: usize = 2000;

/// What is expected of both states.
pub(crate) struct Expected {
    n_blocks: usize,
    /// For each site, what lives of it in the old and in the new state.
    old: Vec<Sum>,
    new: Vec<Sum>,
}

/// A group of a result; without a difference where only one snapshot was asked.
pub(crate) struct Group<'a> {
    traceback: &'a Traceback,
    found: Found,
}

/// What there is, and by how much that is more than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    size: i128,
    count: i128,
    size_diff: i128,
    count_diff: i128,
}

impl<'a> Group<'a> {
    pub(crate) fn of(group: &'a Statistic) -> Self {
        let found =
            Found { size: group.size.into(), count: group.count.into(), ..Found::default() };
        Self { traceback: &group.traceback, found }
    }

    pub(crate) fn of_diff(group: &'a StatisticDiff) -> Self {
        let found = Found {
            size: group.size.into(),
            count: group.count.into(),
            size_diff: group.size_diff.into(),
            count_diff: group.count_diff.into(),
        };
        Self { traceback: &group.traceback, found }
    }
}

impl Found {
    fn new(new: Sum, old: Option<Sum>) -> Self {
        let [size, count] = [new.size, new.count].map(i128::from);
        let old = old.unwrap_or(new);
        let [size_diff, count_diff] = [size - i128::from(old.size), count - i128::from(old.count)];
        Self { size, count, size_diff, count_diff }
    }

    fn add(&mut self, other: Self) {
        self.size += other.size;
        self.count += other.count;
        self.size_diff += other.size_diff;
        self.count_diff += other.count_diff;
    }

    fn times(self, n: i128) -> Self {
        let Self { size, count, size_diff, count_diff } = self;
        Self {
            size: size * n,
            count: count * n,
            size_diff: size_diff * n,
            count_diff: count_diff * n,
        }
    }
}

impl Expected {
    pub(crate) fn new(plan: &Plan) -> Self {
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

    /// Checks the groups of a key: call sites and modules against the plan, and all together
    /// against the snapshots.
    pub(crate) fn check_groups<'a>(
        &self,
        key_type: KeyType,
        groups: impl Iterator<Item = Group<'a>>,
        new: &Snapshot,
        old: Option<&Snapshot>,
    ) -> Result<(), String> {
        let mut total = Found::default();
        let mut found = vec![Found::default(); N_SITES];
        for group in groups {
            total.add(group.found);
            if let Some(place) = place(key_type, group.traceback) {
                found[place].add(group.found);
            }
        }
        if is_a_partition(key_type) {
            let sum = |of: &Snapshot| Sum { size: of.total_size(), count: of.n_traces() as u64 };
            let expected = Found::new(sum(new), old.map(sum));
            if total != expected {
                return Err(format!("by {key_type} all is {total:?}, not {expected:?}"));
            }
        }
        let Some(expected) = self.places(key_type, old.is_some()) else { return Ok(()) };
        for (place, (found, expected)) in found.into_iter().zip(expected).enumerate() {
            if found != expected {
                return Err(format!("by {key_type}, {place} is {found:?}, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// What is expected of each site, or of each module in the place of its number, for keys that
    /// have either.
    fn places(&self, key_type: KeyType, is_diff: bool) -> Option<Vec<Found>> {
        let sites = self.new.iter().zip(&self.old);
        let sites: Vec<Found> =
            sites.map(|(&new, &old)| Found::new(new, is_diff.then_some(old))).collect();
        let n_times = |module| match key_type {
            // Once for each call in the module, and for the site.
            KeyType::CumulativeFilename => n_calls(module) as i128 + 1,
            _ => 1,
        };
        match kind(key_type) {
            Kind::Site => Some(sites),
            Kind::Module => {
                let mut modules = vec![Found::default(); N_SITES];
                for (site, found) in sites.into_iter().enumerate() {
                    let module = site / N_SITES_PER_MODULE;
                    modules[module].add(found.times(n_times(module)));
                }
                Some(modules)
            }
            Kind::Other => None,
        }
    }
}

/// What the groups of a key are, among others.
enum Kind {
    Site,
    Module,
    Other,
}

fn kind(key_type: KeyType) -> Kind {
    match key_type {
        KeyType::Lineno
        | KeyType::Traceback
        | KeyType::CumulativeLineno
        | KeyType::InclusiveLineno => Kind::Site,
        KeyType::Filename | KeyType::CumulativeFilename | KeyType::InclusiveFilename => {
            Kind::Module
        }
        _ => Kind::Other,
    }
}

/// The number of the site or module that a group is.
fn place(key_type: KeyType, traceback: &Traceback) -> Option<usize> {
    match kind(key_type) {
        // Frames of Rust's own library may be newer.
        Kind::Site => {
            traceback.iter().rev().find_map(|frame| site_at(&frame.filename, frame.lineno))
        }
        Kind::Module => module_of(&traceback.newest()?.filename),
        Kind::Other => None,
    }
}

/// Whether each trace counts in one group.
fn is_a_partition(key_type: KeyType) -> bool {
    matches!(
        key_type,
        KeyType::Filename
            | KeyType::Lineno
            | KeyType::Traceback
            | KeyType::Function
            | KeyType::Module
            | KeyType::Thread
            | KeyType::Domain
    )
}
