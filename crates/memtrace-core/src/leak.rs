//! Which groups of traces leak: a verdict over three or more snapshots.
//!
//! Two snapshots tell what has grown. Whether it goes on growing takes more: a cache that fills, a
//! buffer that doubled once and a leak all look alike between two of them. A [`LeakSearch`] follows
//! each group of traces through all snapshots and says which of these it is.
//!
//! # The rule
//!
//! For each group, over its sizes in all snapshots, oldest first (a group that a snapshot lacks has
//! size 0 there):
//!
//! - `slope`: the median of the slopes between all pairs of snapshots; `early` and `late`: the same
//!   over the first and the last half of the steps between snapshots (of an odd number the middle
//!   one is in both halves; of three steps in none);
//! - `growth`: what the slope makes for from the first snapshot to the last;
//! - `p`: the chance that a group which only fluctuates, in whatever way but independently from
//!   snapshot to snapshot, would rise as steadily as this one (Mann and Kendall's test, one sided);
//! - `rise` and `fall`: the most it gained, and lost, from any snapshot to any later one.
//!
//! The first line that holds is the verdict:
//!
//! | verdict | rule |
//! | --- | --- |
//! | [Leak](Verdict::Leak) | all of: `growth` > 0, and not less than the minimal growth; p ≤ 0.05, or it grew in every step; `fall` ≤ `growth` / 3; `late` ≥ `slope` / 2; `early` ≥ `slope` / 2, or p ≤ 0.05 and it grew in every step |
//! | [Steady](Verdict::Steady) | largest less smallest size is below a tenth of the largest, or below the minimal growth |
//! | [Shrinking](Verdict::Shrinking) | `rise` ≤ `fall` / 2 |
//! | [Fluctuating](Verdict::Fluctuating) | `fall` > `rise` / 2 |
//! | [Jump](Verdict::Jump) | one step, not the last, makes nine tenths of `rise` |
//! | [Plateau](Verdict::Plateau) | `late` is 0, or < `slope` / 2 |
//! | [Growth](Verdict::Growth) | whatever else |
//!
//! So a leak is what grows more steadily than chance explains, gives back no more than a third of
//! that, and did so early and does so still. Each of these turns away something else: chance what
//! fluctuates; giving back the sawtooth and the random walk; the halves what fills up and what
//! jumps. The median keeps a warm-up out of the slope.
//!
//! # How sure
//!
//! Shares of the series called a leak, in 100, for a thousand random series of each kind; the test
//! `leaks_are_found_and_caches_are_not` makes them and prints all of them:
//!
//! | series | 3 snapshots | 5 | 10 | 20 |
//! | --- | --- | --- | --- | --- |
//! RATES
//!
//! Three snapshots that only grow are called a leak, although what merely fluctuates grows in both
//! steps in one case of six; [`LeakVerdict::p_value`] is 0.17 then. Take five or more. Take the first
//! after the program has warmed up, and let more time lie between two than a request, a batch, or
//! whatever the program does over and over.
//!
//! No rule tells a leak from a cache that still fills at an even rate, or from a service with ever
//! more users, except by waiting. And one leak is often missed: that of a single buffer which
//! doubles when it is full, for it grows in few and ever rarer jumps.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::fmt;

use thiserror::Error;

use crate::size_text::format_size_rate;
use crate::statistic::signed_diff;
use crate::trend::{NullDistribution, Trend};
use crate::{
    Attribution, KeyType, Snapshot, Statistic, SuppressionUse, Suppressions, Traceback,
    format_size, format_size_diff,
};

/// The chance at which steady growth is no longer put down to it.
const SIGNIFICANCE: f64 = 0.05;

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
    /// The attribution of the newest snapshot is applied to all.
    ///
    /// **Cost.** Like [`Snapshot::statistics`] for each snapshot; then, for n snapshots, time
    /// proportional to n² for each group, and to n³ once. Meant for up to some hundred snapshots.
    ///
    /// **Errors.** If there are fewer than three snapshots, or if times were given which are not
    /// one for each snapshot, each later than the one before.
    pub fn run<S: Borrow<Snapshot>>(
        &self,
        snapshots: &[S],
    ) -> Result<LeakFindings, LeakSearchError> {
        let [_, _, .., newest] = snapshots else {
            return Err(LeakSearchError::TooFewSnapshots { n_snapshots: snapshots.len() });
        };
        let positions = self.positions(snapshots.len())?;
        let attribution = newest.borrow().attribution();
        let mut series: HashMap<Traceback, Series> = HashMap::new();
        let mut suppressed = Vec::new();
        for (i, snapshot) in snapshots.iter().enumerate() {
            let kept;
            let mut snapshot = snapshot.borrow();
            if !self.suppressions.is_empty() {
                (kept, suppressed) = self.suppressions.filter(snapshot);
                snapshot = &kept;
            }
            for group in groups(snapshot, attribution, self.key_type) {
                let Statistic { traceback, size, count } = group;
                let series =
                    series.entry(traceback).or_insert_with(|| Series::new(snapshots.len()));
                series.sizes[i] = size;
                series.counts[i] = count;
            }
        }
        let null = NullDistribution::new(snapshots.len());
        let judge = |(traceback, series)| self.judge(traceback, series, &positions, &null);
        let mut verdicts: Vec<LeakVerdict> = series.into_iter().map(judge).collect();
        verdicts.sort_unstable_by(LeakVerdict::result_order);
        Ok(LeakFindings { verdicts, suppressed })
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
        Series { sizes, counts }: Series,
        positions: &[f64],
        null: &NullDistribution,
    ) -> LeakVerdict {
        let trend = Trend::of(positions, &sizes);
        let n_steps = sizes.len() - 1;
        let n_pairs = sizes.len() * n_steps / 2;
        let p_value = null.chance(trend.s);
        let duration = positions[n_steps] - positions[0];
        let verdict = self.verdict(&trend, &sizes, duration, p_value);
        LeakVerdict {
            traceback,
            verdict,
            size_diff: signed_diff(sizes[n_steps], sizes[0]),
            count_diff: signed_diff(counts[n_steps], counts[0]),
            sizes,
            counts,
            slope: trend.slope,
            slope_unit: self.seconds.as_ref().map_or(SlopeUnit::Snapshot, |_| SlopeUnit::Second),
            n_grown: trend.n_grown,
            n_shrunk: trend.n_shrunk,
            n_steps,
            tau: trend.s as f64 / n_pairs as f64,
            p_value,
        }
    }

    /// The table of the module's documentation, line by line.
    fn verdict(&self, trend: &Trend, sizes: &[u64], duration: f64, p_value: f64) -> Verdict {
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let range = trend.rise.max(trend.fall);
        let (step, step_index) = trend.largest_step;
        let growth = trend.slope * duration;
        let has_slowed = trend.late_slope < trend.slope / 2.0;
        let was_slow = trend.early_slope < trend.slope / 2.0;
        let only_grew = trend.n_grown + 1 == sizes.len();
        let is_significant = p_value <= SIGNIFICANCE;
        if growth >= self.min_growth as f64
            && (is_significant || only_grew)
            && trend.fall as f64 <= growth / 3.0
            && !has_slowed
            && (!was_slow || (is_significant && only_grew))
        {
            Verdict::Leak
        } else if range < largest.div_ceil(10) || range < self.min_growth {
            Verdict::Steady
        } else if trend.rise <= trend.fall / 2 {
            Verdict::Shrinking
        } else if trend.fall > trend.rise / 2 {
            Verdict::Fluctuating
        } else if step >= trend.rise - trend.rise / 10 && step_index + 2 < sizes.len() {
            Verdict::Jump
        } else if has_slowed || trend.late_slope == 0.0 {
            Verdict::Plateau
        } else {
            Verdict::Growth
        }
    }
}

/// The figures of one group in each snapshot.
struct Series {
    sizes: Vec<u64>,
    counts: Vec<u64>,
}

impl Series {
    fn new(n_snapshots: usize) -> Self {
        Self { sizes: vec![0; n_snapshots], counts: vec![0; n_snapshots] }
    }
}

fn groups(snapshot: &Snapshot, attribution: &Attribution, key_type: KeyType) -> Vec<Statistic> {
    if snapshot.attribution() == attribution {
        snapshot.statistics(key_type)
    } else {
        snapshot.clone().with_attribution(attribution.clone()).statistics(key_type)
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

/// What becomes of one group of traces over all snapshots.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LeakVerdict {
    /// What the traces of the group have in common.
    pub traceback: Traceback,
    /// What the group does.
    pub verdict: Verdict,
    /// The sum of its sizes in each snapshot, in bytes, oldest first.
    pub sizes: Vec<u64>,
    /// The number of its traces in each snapshot, oldest first.
    pub counts: Vec<u64>,
    /// By how many bytes it is larger in the newest snapshot than in the oldest.
    pub size_diff: i64,
    /// By how many traces it has more in the newest snapshot than in the oldest.
    pub count_diff: i64,
    /// How fast it grows, in bytes for each [unit](LeakVerdict::slope_unit): the median of the
    /// slopes between all pairs of snapshots. Up to 29 in 100 snapshots may be out of line without
    /// leading it astray.
    pub slope: f64,
    /// What the slope is counted by.
    pub slope_unit: SlopeUnit,
    /// The number of steps, from one snapshot to the next, in which it grew.
    pub n_grown: usize,
    /// The number of steps in which it shrank.
    pub n_shrunk: usize,
    /// The number of steps, which is one less than the number of snapshots.
    pub n_steps: usize,
    /// How steadily it grows: pairs of snapshots between which it grew, less those between which it
    /// shrank, by all pairs. 1 if it never did anything but grow, −1 if it only shrank.
    pub tau: f64,
    /// The chance that a group whose sizes are merely random would be as steady as this one, or
    /// steadier.
    pub p_value: f64,
}

impl LeakVerdict {
    /// Its size in the newest snapshot, in bytes.
    pub fn size(&self) -> u64 {
        self.sizes.last().copied().unwrap_or(0)
    }

    /// The number of its traces in the newest snapshot.
    pub fn count(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    fn result_order(&self, other: &Self) -> Ordering {
        self.verdict
            .cmp(&other.verdict)
            .then_with(|| other.slope.total_cmp(&self.slope))
            .then_with(|| Reverse(self.size()).cmp(&Reverse(other.size())))
            .then_with(|| other.traceback.cmp(&self.traceback))
    }
}

/// Writes one line: the newest frame, the verdict, and the figures that led to it. A slope by time
/// is written by the hour.
impl fmt::Display for LeakVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.traceback.newest() {
            Some(frame) => frame.fmt(f)?,
            None => self.traceback.fmt(f)?,
        }
        let slope = match self.slope_unit {
            SlopeUnit::Snapshot => format!("{} a snapshot", format_size_rate(self.slope)),
            SlopeUnit::Second => format!("{} an hour", format_size_rate(self.slope * 3600.0)),
        };
        write!(
            f,
            ": {}, {slope}: size={} ({}), count={} ({:+}), grew in {} of {} steps, p={}",
            self.verdict,
            format_size(self.size()),
            format_size_diff(self.size_diff),
            self.count(),
            self.count_diff,
            self.n_grown,
            self.n_steps,
            chance_text(self.p_value)
        )
    }
}

/// Writes a chance with two significant figures.
fn chance_text(chance: f64) -> String {
    let n_decimals = if chance > 0.0 { (1.0 - chance.log10().floor()).max(2.0) } else { 2.0 };
    if chance < 1e-4 {
        String::from("0.0001 or less")
    } else {
        format!("{chance:.0$}", n_decimals as usize)
    }
}

/// What a group of traces does over several snapshots; the module's documentation has the rule.
///
/// In the order of concern: a leak is the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It grows, steadily and still.
    Leak,
    /// It has grown, but too unevenly, or too lately, to tell: more snapshots will.
    Growth,
    /// It grew and has slowed down: a cache that is full, or a program that has warmed up.
    Plateau,
    /// It grew once: something was loaded, or a buffer was enlarged.
    Jump,
    /// It comes and goes.
    Fluctuating,
    /// It stays as large as it is, within a tenth.
    Steady,
    /// It gives back more than it gains.
    Shrinking,
}

impl Verdict {
    /// The name in small letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leak => "leak",
            Self::Growth => "growth",
            Self::Plateau => "plateau",
            Self::Jump => "jump",
            Self::Fluctuating => "fluctuating",
            Self::Steady => "steady",
            Self::Shrinking => "shrinking",
        }
    }
}

/// Writes the name in small letters.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a slope is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlopeUnit {
    /// From one snapshot to the next.
    Snapshot,
    /// One second.
    Second,
}

/// Why a [`LeakSearch`] cannot be carried out.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum LeakSearchError {
    /// There are not enough snapshots.
    #[error(
        "{n_snapshots} snapshots cannot tell a leak from other growth: take three or more, with \
         work in between"
    )]
    TooFewSnapshots {
        /// How many there are.
        n_snapshots: usize,
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
        "snapshot {index} was taken at {seconds} s, which is not after {before} s: give snapshots \
         and times oldest first"
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
