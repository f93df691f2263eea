//! What one group of traces does over several snapshots.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use crate::size_text::format_size_rate;
use crate::trend::Trend;
use crate::{Traceback, format_size, format_size_diff};

/// The chance at which steady growth is no longer put down to it.
const SIGNIFICANCE: f64 = 0.05;

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
    /// The bytes and traces of the newest snapshot that were allocated, or last resized, after the
    /// oldest one: what came and stayed. `None` if the snapshots have no births.
    pub born: Option<(u64, u64)>,
    /// Whether sizes and counts are estimates, of sampled snapshots.
    pub is_estimate: bool,
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

    pub(crate) fn result_order(&self, other: &Self) -> Ordering {
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
        let sign = if self.is_estimate { '≈' } else { '=' };
        write!(
            f,
            ": {}, {slope}: size{sign}{} ({}), count{sign}{} ({:+}), grew in {} of {} steps, p={}",
            self.verdict,
            format_size(self.size()),
            format_size_diff(self.size_diff),
            self.count(),
            self.count_diff,
            self.n_grown,
            self.n_steps,
            chance_text(self.p_value)
        )?;
        match self.born {
            Some((size, count)) => {
                write!(f, ", {} in {count} blocks since the first", format_size(size))
            }
            None => Ok(()),
        }
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

/// What a group of traces does over several snapshots.
///
/// In the order of concern: a leak is the smallest.
///
/// # The rule
///
/// For each group, over its sizes in all snapshots, oldest first (a group that a snapshot lacks has
/// size 0 there):
///
/// - `slope`: the median of the slopes between all pairs of snapshots; `early` and `late`: the same
///   over the first and the last half of the steps between snapshots (of an odd number the middle
///   one is in both halves; of three steps in none);
/// - `growth`: what the slope makes for from the first snapshot to the last;
/// - `p`: the chance that a group which only fluctuates, in whatever way but independently from
///   snapshot to snapshot, would rise as steadily as this one (Mann and Kendall's test, one sided);
/// - `rise` and `fall`: the most it gained, and lost, from any snapshot to any later one.
///
/// The first line that holds is the verdict:
///
/// | verdict | rule |
/// | --- | --- |
/// | [Leak](Verdict::Leak) | all of: `growth` > 0, and not less than the minimal growth; p ≤ 0.05, or it grew in every step; `fall` ≤ `growth` / 3; `late` ≥ `slope` / 2; `early` ≥ `slope` / 2, or p ≤ 0.05 and it grew in every step |
/// | [Steady](Verdict::Steady) | largest less smallest size is at most a tenth of the largest, or below the minimal growth |
/// | [Shrinking](Verdict::Shrinking) | `rise` ≤ `fall` / 2 |
/// | [Fluctuating](Verdict::Fluctuating) | `fall` > `rise` / 2 |
/// | [Jump](Verdict::Jump) | one step, not the last, makes at least nine tenths of `rise` |
/// | [Plateau](Verdict::Plateau) | `late` is 0, or < `slope` / 2 |
/// | [Growth](Verdict::Growth) | whatever else |
///
/// So a leak is what grows more steadily than chance explains, gives back no more than a third of
/// that, and did so early and does so still. Each of these turns away something else: chance what
/// fluctuates; giving back the sawtooth and the random walk; the halves what fills up and what
/// jumps. The median keeps a warm-up out of the slope.
///
/// # How sure
///
/// Of a thousand random series of each kind, so many in a hundred are called a leak; the test
/// `leaks_are_found_and_caches_are_not` makes the series and prints these figures:
///
/// | leaks | 3 snapshots | 5 | 10 | 20 |
/// | --- | --- | --- | --- | --- |
/// | even growth | 100 | 100 | 100 | 100 |
/// | even growth after a warm-up | 0 | 99 | 100 | 100 |
/// | with noise of up to a step | 64 | 79 | 99 | 100 |
/// | with noise of one step | 31 | 43 | 94 | 100 |
/// | with pauses, in two steps of five | 37 | 54 | 84 | 95 |
/// | under a sawtooth two steps high | 37 | 50 | 100 | 100 |
/// | a vector that doubles when it is full | 49 | 56 | 51 | 27 |
/// | **no leaks** | | | | |
/// | constant | 0 | 0 | 0 | 0 |
/// | steady, with noise of 1 to 5 % | 11 | 3 | 0 | 0 |
/// | steady, with slow noise of 5 % | 14 | 7 | 2 | 0 |
/// | a random walk | 14 | 9 | 7 | 5 |
/// | a cache that fills up midway | 0 | 0 | 0 | 0 |
/// | a cache that fills ever slower | 0 | 0 | 0 | 0 |
/// | a sawtooth of 2 to 6 steps | 53 | 14 | 0 | 0 |
/// | one jump, with noise of 1 % | 0 | 6 | 1 | 0 |
/// | a warm-up, then noise of 1 % | 0 | 8 | 0 | 0 |
/// | day and night | 13 | 0 | 0 | 0 |
///
/// Three snapshots that only grow are called a leak, although what merely fluctuates grows in both
/// steps in one case of six; [`LeakVerdict::p_value`] is 0.17 then. Take five or more. Take the
/// first after the program has warmed up, and let more time lie between two than a request, a
/// batch, or whatever the program does over and over.
///
/// No rule tells a leak from a cache that still fills at an even rate, or from a service with ever
/// more users, except by waiting. And one leak is often missed: that of a single buffer which
/// doubles when it is full, for it grows in few and ever rarer jumps.
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
    /// The table of the type's documentation, line by line. `sizes` are those of the trend, and
    /// `duration` is the distance of the first position to the last.
    pub(crate) fn of(
        trend: &Trend,
        sizes: &[u64],
        duration: f64,
        p_value: f64,
        min_growth: u64,
    ) -> Self {
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let range = trend.rise.max(trend.fall);
        let (step, step_index) = trend.largest_step;
        let growth = trend.slope * duration;
        let is_slow_at_last = trend.late_slope < trend.slope / 2.0;
        let is_slow_at_first = trend.early_slope < trend.slope / 2.0;
        let only_grew = trend.n_grown + 1 == sizes.len();
        let is_significant = p_value <= SIGNIFICANCE;
        if growth >= min_growth as f64
            && (is_significant || only_grew)
            && trend.fall as f64 <= growth / 3.0
            && !is_slow_at_last
            && (!is_slow_at_first || (is_significant && only_grew))
        {
            Self::Leak
        } else if range < min_growth || is_share(range, largest, 1, 10) {
            Self::Steady
        } else if is_share(trend.rise, trend.fall, 1, 2) {
            Self::Shrinking
        } else if !is_share(trend.fall, trend.rise, 1, 2) {
            Self::Fluctuating
        } else if is_share(trend.rise - step, trend.rise, 1, 10) && step_index + 2 < sizes.len() {
            Self::Jump
        } else if is_slow_at_last || trend.late_slope == 0.0 {
            Self::Plateau
        } else {
            Self::Growth
        }
    }

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

/// Whether a part is at most so many of so many equal shares of the whole.
fn is_share(part: u64, whole: u64, n_shares: u128, of: u128) -> bool {
    u128::from(part) * of <= u128::from(whole) * n_shares
}
