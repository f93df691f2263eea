//! Which groups of traces leak: a verdict over three or more snapshots.
//!
//! Two snapshots tell what has grown. Whether it goes on growing takes more: a cache that fills, a
//! buffer that doubled once and a leak all look alike between two of them. A [`LeakSearch`] follows
//! each group of traces through all snapshots and says which of these it is.
//!
//! [`Verdict`] has the rule, and tells how often it is right.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::section::analysis;
use crate::statistic::signed_diff;
use crate::trend::{NullDistribution, Trend};
use crate::{
    KeyType, LeakVerdict, SlopeUnit, Snapshot, Statistic, SuppressionUse, Suppressions, Traceback,
    Verdict,
};

/// A search for groups of traces that leak, through three or more snapshots.
///
/// ```
/// use memtrace_core::{Frame, KeyType, LeakSearch, Snapshot, Trace, Traceback, Verdict};
///
/// let trace = |filename, size| {
///     Trace { domain: 0, size, traceback: Traceback::new([Frame::new(filename, 7)]) }
/// };
/// // The cache fills up to its limit, the sessions are never forgotten.
/// let snapshots = [(10, 0), (20, 64), (30, 128), (30, 192), (30, 256)].map(|(cache, sessions)| {
///     Snapshot::from_traces([trace("cache.rs", cache), trace("session.rs", sessions)], 1)
/// });
///
/// let findings = LeakSearch::new(KeyType::Lineno).run(&snapshots)?;
/// let leaks: Vec<_> = findings.leaks().collect();
/// assert_eq!(leaks.len(), 1);
/// assert_eq!(
///     leaks[0].to_string(),
///     "session.rs:7: leak, +64 B a snapshot: size=256 B (+256 B), count=1 (+0), grew in 4 of 4 \
///      steps, p=0.0083"
/// );
/// assert_eq!(findings.verdicts[1].verdict, Verdict::Plateau);
/// # Ok::<(), memtrace_core::LeakSearchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LeakSearch {
    key_type: KeyType,
    suppressions: Suppressions,
    min_growth: u64,
    seconds: Option<Vec<f64>>,
}

impl LeakSearch {
    /// Starts a search for groups by this key.
    pub fn new(key_type: KeyType) -> Self {
        Self { key_type, suppressions: Suppressions::new(), min_growth: 1, seconds: None }
    }

    /// Leaves out the traces of suppressed stacks, in every snapshot, before anything is grouped.
    #[must_use]
    pub fn suppress(mut self, suppressions: Suppressions) -> Self {
        self.suppressions = suppressions;
        self
    }

    /// Calls nothing a leak whose slope makes for less growth than this over all snapshots, in
    /// bytes; 1 unless told.
    #[must_use]
    pub fn min_growth(mut self, n_bytes: u64) -> Self {
        self.min_growth = n_bytes.max(1);
        self
    }

    /// Says when the snapshots were taken, in seconds from any moment, oldest first. Slopes are
    /// then bytes a second, and uneven distances do no harm. Otherwise slopes are bytes a snapshot.
    #[must_use]
    pub fn at_seconds(mut self, seconds: impl Into<Vec<f64>>) -> Self {
        self.seconds = Some(seconds.into());
        self
    }

    /// Judges every group of the snapshots, which are given oldest first.
    ///
    /// The attribution of the newest snapshot is applied to all. Sizes of sampled snapshots are estimates:
    /// their noise hides slow growth, and does not pass for growth more often than chance does anyway.
    ///
    /// **Cost.** Like [`Snapshot::statistics`] for each snapshot; then, for n snapshots, time
    /// proportional to n² for each group, and to n³ once. Meant for up to some hundred snapshots:
    /// ten of a million traces each took 50 ms by line, three hundred of a thousand traces 1.5 s.
    ///
    /// **Errors.** If there are fewer than three snapshots; if they are of different runs of the
    /// tracer or not in order, as far as they can tell; if times were given which are not one for
    /// each snapshot, each later than the one before.
    pub fn run<S: Borrow<Snapshot>>(
        &self,
        snapshots: &[S],
    ) -> Result<LeakFindings, LeakSearchError> {
        analysis(|| self.found(snapshots))
    }

    fn found<S: Borrow<Snapshot>>(&self, snapshots: &[S]) -> Result<LeakFindings, LeakSearchError> {
        let [_, _, .., newest] = snapshots else {
            return Err(LeakSearchError::TooFewSnapshots { n_snapshots: snapshots.len() });
        };
        let positions = self.positions(snapshots.len())?;
        check_generations(snapshots)?;
        let attribution = newest.borrow().attribution();
        let thread_names = self.thread_names(snapshots);
        let mut series: HashMap<Traceback, Series> = HashMap::new();
        let mut suppressed = Vec::new();
        for (i, snapshot) in snapshots.iter().enumerate() {
            // An empty list costs next to nothing; clones share everything.
            let (kept, uses) = self.suppressions.filter(snapshot.borrow());
            let kept = kept.with_attribution(attribution.clone());
            let kept = match &thread_names {
                Some(names) => kept.with_thread_names(|thread| {
                    Arc::clone(names.get(&thread.id()).unwrap_or(&thread.name))
                }),
                None => kept,
            };
            for Statistic { traceback, size, count, .. } in kept.statistics(self.key_type) {
                let new = || Series::new(snapshots.len());
                let series = series.entry(traceback).or_insert_with(new);
                series.sizes[i] = size;
                series.counts[i] = count;
            }
            if i + 1 == snapshots.len() {
                suppressed = uses;
                let since = kept.since(snapshots[0].borrow());
                let has_births = since.is_ok();
                series.values_mut().for_each(|series| series.born = has_births.then_some((0, 0)));
                for Statistic { traceback, size, count, .. } in
                    since.iter().flat_map(|since| since.statistics(self.key_type))
                {
                    if let Some(series) = series.get_mut(&traceback) {
                        series.born = Some((size, count));
                    }
                }
            }
        }
        let null = NullDistribution::new(snapshots.len());
        let is_estimate = |snapshot: &S| snapshot.borrow().sample_period().is_some();
        let is_estimate = snapshots.iter().any(is_estimate);
        let judge = |(traceback, series)| LeakVerdict {
            is_estimate,
            ..self.judge(traceback, series, &positions, &null)
        };
        let mut verdicts: Vec<LeakVerdict> = series.into_iter().map(judge).collect();
        verdicts.sort_unstable_by(LeakVerdict::result_order);
        Ok(LeakFindings { verdicts, suppressed })
    }

    /// The last name of each thread, if groups are threads: a thread that was given another name
    /// stays one group.
    fn thread_names<S: Borrow<Snapshot>>(&self, snapshots: &[S]) -> Option<ThreadNames> {
        let threads = || snapshots.iter().flat_map(|snapshot| snapshot.borrow().threads());
        (self.key_type == KeyType::Thread)
            .then(|| threads().map(|thread| (thread.id(), Arc::clone(&thread.name))).collect())
    }

    fn positions(&self, n_snapshots: usize) -> Result<Vec<f64>, LeakSearchError> {
        let Some(seconds) = &self.seconds else {
            return Ok((0..n_snapshots).map(|i| i as f64).collect());
        };
        if seconds.len() != n_snapshots {
            return Err(LeakSearchError::WrongTimes { n_times: seconds.len(), n_snapshots });
        }
        // The comparison also finds what is no number.
        let is_later = |pair: &[f64]| pair[1] > pair[0] && (pair[1] - pair[0]).is_finite();
        match seconds.windows(2).position(|pair| !is_later(pair)) {
            Some(i) => Err(LeakSearchError::NotLater {
                index: i + 1,
                seconds: seconds[i + 1],
                before: seconds[i],
            }),
            None => Ok(seconds.clone()),
        }
    }

    fn judge(
        &self,
        traceback: Traceback,
        Series { sizes, counts, born }: Series,
        positions: &[f64],
        null: &NullDistribution,
    ) -> LeakVerdict {
        let trend = Trend::of(positions, &sizes);
        let n_steps = sizes.len() - 1;
        let n_pairs = sizes.len() * n_steps / 2;
        let p_value = null.chance(trend.s);
        let duration = positions[n_steps] - positions[0];
        let verdict = Verdict::of(&trend, &sizes, duration, p_value, self.min_growth);
        LeakVerdict {
            traceback,
            verdict,
            size_diff: signed_diff(sizes[n_steps], sizes[0]),
            count_diff: signed_diff(counts[n_steps], counts[0]),
            sizes,
            counts,
            born,
            is_estimate: false,
            slope: trend.slope,
            slope_unit: self.seconds.as_ref().map_or(SlopeUnit::Snapshot, |_| SlopeUnit::Second),
            n_grown: trend.n_grown,
            n_shrunk: trend.n_shrunk,
            n_steps,
            tau: trend.s as f64 / n_pairs as f64,
            p_value,
        }
    }
}

/// Checks that the snapshots are of one run and in order, as far as they can tell.
fn check_generations<S: Borrow<Snapshot>>(snapshots: &[S]) -> Result<(), LeakSearchError> {
    let generations = || snapshots.iter().map(|snapshot| snapshot.borrow().generation());
    for (index, (before, after)) in generations().zip(generations().skip(1)).enumerate() {
        let (Some(before), Some(after)) = (before, after) else { continue };
        let index = index + 1;
        if before.run != after.run {
            return Err(LeakSearchError::OtherRun { index });
        }
        if before.number >= after.number {
            return Err(LeakSearchError::NotInOrder { index });
        }
    }
    Ok(())
}

/// Names by [`Thread::id`](crate::Thread).
type ThreadNames = HashMap<(u32, u32), Arc<str>>;

/// The figures of one group in each snapshot.
struct Series {
    sizes: Vec<u64>,
    counts: Vec<u64>,
    /// Bytes and blocks allocated after the first snapshot and alive in the last; `None` if that
    /// was not recorded.
    born: Option<(u64, u64)>,
}

impl Series {
    fn new(n_snapshots: usize) -> Self {
        Self { sizes: vec![0; n_snapshots], counts: vec![0; n_snapshots], born: None }
    }
}

/// What a [`LeakSearch`] has found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LeakFindings {
    /// Every group that any snapshot has: by verdict, in the order of [`Verdict`]; those of one
    /// verdict by slope, steepest growth first; then by size and traceback, each descending.
    pub verdicts: Vec<LeakVerdict>,
    /// What each suppression has left out of the newest snapshot, in the order of the rules. A
    /// stack counts for the first rule that matches it.
    pub suppressed: Vec<SuppressionUse>,
}

impl LeakFindings {
    /// The groups that leak, steepest first.
    pub fn leaks(&self) -> impl Iterator<Item = &LeakVerdict> {
        self.verdicts.iter().take_while(|verdict| verdict.verdict == Verdict::Leak)
    }
}

/// Writes a line for each leak, and one for each suppression that was used.
impl fmt::Display for LeakFindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.leaks().next().is_none() {
            writeln!(f, "no leak among {} groups", self.verdicts.len())?;
        }
        self.leaks().try_for_each(|leak| writeln!(f, "{leak}"))?;
        let mut used = self.suppressed.iter().filter(|used| used.count > 0);
        used.try_for_each(|used| writeln!(f, "suppressed: {used}"))
    }
}

/// Why a [`LeakSearch`] cannot be carried out.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum LeakSearchError {
    /// There are not enough snapshots.
    #[error(
        "too few snapshots to tell a leak from other growth, {n_snapshots}: take three or more, with \
         work in between"
    )]
    TooFewSnapshots {
        /// How many there are.
        n_snapshots: usize,
    },
    /// Snapshots are of different runs of the tracer, which forgets all blocks in between.
    #[error("snapshot number {} is of another run of the tracer than the one before it", index + 1)]
    OtherRun {
        /// The index of the snapshot, from 0.
        index: usize,
    },
    /// A snapshot was taken before the one in front of it, or is the same.
    #[error(
        "snapshot number {} is not newer than the one before it: give snapshots oldest first",
        index + 1
    )]
    NotInOrder {
        /// The index of the snapshot, from 0.
        index: usize,
    },
    /// The times are not one for each snapshot.
    #[error("{n_times} times were given for {n_snapshots} snapshots: give one for each")]
    WrongTimes {
        /// The number of times.
        n_times: usize,
        /// The number of snapshots.
        n_snapshots: usize,
    },
    /// A snapshot is not later than the one before it.
    #[error(
        "snapshot number {} was taken at {seconds} s, which is not after {before} s: give snapshots \
         and times oldest first", index + 1
    )]
    NotLater {
        /// The index of the snapshot, from 0.
        index: usize,
        /// Its time.
        seconds: f64,
        /// The time of the one before it.
        before: f64,
    },
}
