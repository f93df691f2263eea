//! How a series of sizes moves: its slope, and whether it does more than fluctuate.
//!
//! Two estimates, chosen because sizes of live memory are nothing like a straight line with normal
//! errors around it: programs warm up, caches drop half of their entries, buffers double.
//!
//! - The **slope** is Theil and Sen's: the median of the slopes of all lines through two of the
//!   points. Up to 29 % of the points may be anything at all before it is led astray; one is enough
//!   to do so with least squares, and the first snapshot, taken before the program had warmed up,
//!   usually is that one. (H. Theil, *A rank-invariant method of linear and polynomial regression
//!   analysis*, Proc. KNAW 53, 1950; P. K. Sen, *Estimates of the regression coefficient based on
//!   Kendall's tau*, JASA 63, 1968.)
//! - The **evidence** is Mann and Kendall's: `S` = pairs of points that rise less pairs that fall.
//!   It asks for the order of sizes only, so it needs no idea of what fluctuations are normal.
//!   `tau` is `S` by the number of pairs: 1 for a series that only grows, −1 for one that only
//!   shrinks. (H. B. Mann, *Nonparametric tests against trend*, Econometrica 13, 1945; M. G.
//!   Kendall, *Rank correlation methods*, 1948.)
//!
//! [`NullDistribution`] tells how likely so large an `S` is when each order of the sizes is as
//! likely as any other. It is exact, not the usual normal approximation, which is poor for the
//! handful of points there are. Equal sizes make an `S` less likely than it says; so it errs on the
//! side of doubt.
//!
//! **Cost.** For n points, time proportional to n² a series, and to n³ once for the distribution.

/// How likely each `S` of Mann and Kendall is for a series of some length without trend.
#[derive(Debug)]
pub(crate) struct NullDistribution {
    n_points: usize,
    /// For each number k of falling pairs, the chance of k or fewer.
    at_most: Vec<f64>,
}

impl NullDistribution {
    /// Counts the orders of `n_points` different sizes by their falling pairs, as a share of all.
    ///
    /// The k-th point can fall below 0 to k−1 of those before it, each as likely as any other,
    /// whatever their order.
    pub(crate) fn new(n_points: usize) -> Self {
        let mut shares = vec![1.0];
        for n_choices in 2..=n_points {
            let mut next = vec![0.0; shares.len() + n_choices - 1];
            let mut sum = 0.0;
            for (k, share) in next.iter_mut().enumerate() {
                sum += shares.get(k).copied().unwrap_or(0.0);
                if let Some(left) = k.checked_sub(n_choices) {
                    sum -= shares.get(left).copied().unwrap_or(0.0);
                }
                *share = sum / n_choices as f64;
            }
            shares = next;
        }
        let mut sum = 0.0;
        let at_most = shares.into_iter().map(|share| {
            sum += share;
            sum
        });
        Self { n_points, at_most: at_most.collect() }
    }

    /// The chance of this `S` or a larger one without any trend.
    pub(crate) fn chance(&self, s: i64) -> f64 {
        let n_pairs = (self.n_points * self.n_points.saturating_sub(1) / 2) as i64;
        // S = rising - falling and both make up all pairs. An odd remainder, which only equal
        // sizes can leave, is rounded to the more likely side.
        let n_falling = usize::try_from((n_pairs - s + 1) / 2).unwrap_or(0);
        self.at_most.get(n_falling).copied().unwrap_or(1.0).min(1.0)
    }
}

/// What is said of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trend {
    /// Bytes for each unit of position, over the whole series.
    pub(crate) slope: f64,
    /// The same over the first half of the steps. Of an odd number, the middle step is in both
    /// halves; but not of three, where it would be most of what the halves are to be told by.
    pub(crate) early_slope: f64,
    /// The same over the last half of the steps.
    pub(crate) late_slope: f64,
    /// Rising pairs less falling pairs.
    pub(crate) s: i64,
    /// Steps from one point to the next that rise.
    pub(crate) n_grown: usize,
    /// Steps that fall.
    pub(crate) n_shrunk: usize,
    /// The largest gain, in bytes, from any point to any later one.
    pub(crate) rise: u64,
    /// The largest loss, in bytes, from any point to any later one.
    pub(crate) fall: u64,
    /// The largest gain of one step, in bytes, and which step it is.
    pub(crate) largest_step: (u64, usize),
}

impl Trend {
    /// Looks at a series of at least two sizes, in bytes. `positions` are as many, finite, and
    /// increasing.
    pub(crate) fn of(positions: &[f64], sizes: &[u64]) -> Self {
        let n_steps = sizes.len() - 1;
        let half = 1 + if n_steps == 3 { 1 } else { n_steps.div_ceil(2) };
        let late = sizes.len() - half;
        let steps = || sizes.windows(2).map(|pair| (pair[0], pair[1]));
        let (mut rise, mut fall) = (0, 0);
        let (mut lowest, mut highest) = (u64::MAX, 0);
        for &size in sizes {
            lowest = lowest.min(size);
            highest = highest.max(size);
            rise = rise.max(size - lowest);
            fall = fall.max(highest - size);
        }
        let gains = steps().map(|(from, to)| to.saturating_sub(from)).zip(0..);
        Self {
            slope: median_slope(positions, sizes),
            early_slope: median_slope(&positions[..half], &sizes[..half]),
            late_slope: median_slope(&positions[late..], &sizes[late..]),
            s: pairs(sizes).map(|(i, k)| sizes[k].cmp(&sizes[i]) as i64).sum(),
            n_grown: steps().filter(|(from, to)| to > from).count(),
            n_shrunk: steps().filter(|(from, to)| to < from).count(),
            rise,
            fall,
            // Of equal steps the latest, which leaves more of the growth to what is recent.
            largest_step: gains.max().unwrap_or_default(),
        }
    }
}

/// All pairs of indices, the earlier one first.
fn pairs(sizes: &[u64]) -> impl Iterator<Item = (usize, usize)> {
    (0..sizes.len()).flat_map(move |k| (0..k).map(move |i| (i, k)))
}

/// The median of the slopes between all pairs of points; 0 if there is no pair.
fn median_slope(positions: &[f64], sizes: &[u64]) -> f64 {
    let mut slopes: Vec<f64> = pairs(sizes)
        .map(|(i, k)| difference(sizes[k], sizes[i]) / (positions[k] - positions[i]))
        .collect();
    if slopes.is_empty() {
        return 0.0;
    }
    let middle = slopes.len() / 2;
    let is_even = slopes.len().is_multiple_of(2);
    let (lower, &mut upper, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    if is_even { lower.iter().copied().fold(f64::MIN, f64::max).midpoint(upper) } else { upper }
}

/// `a - b`, exact before it is rounded once.
fn difference(a: u64, b: u64) -> f64 {
    let magnitude = a.abs_diff(b) as f64;
    if a < b { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn trend(sizes: &[u64]) -> Trend {
        let positions: Vec<f64> = (0..sizes.len()).map(|i| i as f64).collect();
        Trend::of(&positions, sizes)
    }

    /// The chance of `S` or more, by making every order.
    fn counted_chance(n_points: usize, s: i64) -> f64 {
        fn orders(rest: &mut Vec<u64>, made: &mut Vec<u64>, counts: &mut [u64; 2], s: i64) {
            if rest.is_empty() {
                counts[0] += 1;
                counts[1] += u64::from(trend(made).s >= s);
            }
            for i in 0..rest.len() {
                made.push(rest.remove(i));
                orders(rest, made, counts, s);
                rest.insert(i, made.pop().unwrap());
            }
        }
        let mut counts = [0; 2];
        orders(&mut (0..n_points as u64).collect(), &mut Vec::new(), &mut counts, s);
        counts[1] as f64 / counts[0] as f64
    }

    #[test]
    fn chances_are_those_of_all_orders() {
        for n_points in 2..=6 {
            let distribution = NullDistribution::new(n_points);
            let n_pairs = (n_points * (n_points - 1) / 2) as i64;
            for s in (-n_pairs..=n_pairs).step_by(2) {
                let (found, counted) = (distribution.chance(s), counted_chance(n_points, s));
                assert!((found - counted).abs() < 1e-12, "{n_points} {s}: {found} {counted}");
            }
        }
        // Kendall's table for ten points.
        let ten = NullDistribution::new(10);
        assert!((ten.chance(21) - 0.036).abs() < 5e-4 && (ten.chance(45) - 2.756e-7).abs() < 1e-10);
    }

    #[test]
    fn an_uneven_s_is_given_the_larger_chance() {
        let three = NullDistribution::new(3);
        assert_eq!(three.chance(2), three.chance(1));
        assert_eq!(three.chance(0), three.chance(-1));
        assert!((three.chance(-3) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_distribution_of_many_points_is_sound() {
        let many = NullDistribution::new(300);
        assert!((many.chance(0) - 0.5).abs() < 0.01);
        assert!(many.at_most.is_sorted_by(|a, b| *b - *a > -1e-12));
        assert!((many.at_most.last().unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_outlier_does_not_move_the_slope() {
        assert_eq!(trend(&[10, 20, 30, 40, 50, 60]).slope, 10.0);
        assert_eq!(trend(&[0, 1_000_020, 30, 40, 50, 60]).slope, 10.0);
        assert_eq!(Trend::of(&[0.0, 1.0, 4.0], &[0, 2, 8]).slope, 2.0);
        assert_eq!(trend(&[u64::MAX, 0]).slope, -(u64::MAX as f64));
    }

    #[test]
    fn rise_and_fall_are_between_any_two_points_in_time() {
        let sawtooth = trend(&[10, 30, 5, 25, 7]);
        assert_eq!((sawtooth.rise, sawtooth.fall), (20, 25));
        assert_eq!((sawtooth.n_grown, sawtooth.n_shrunk), (2, 2));
        assert_eq!(sawtooth.largest_step, (20, 2));
        let falling = trend(&[9, 4, 0]);
        assert_eq!((falling.rise, falling.fall, falling.s), (0, 9, -3));
    }

    proptest! {
        #[test]
        fn the_median_is_the_middle_of_the_sorted_slopes(sizes in vec(0..1000_u64, 2..20)) {
            let mut slopes: Vec<f64> = pairs(&sizes)
                .map(|(i, k)| (sizes[k] as f64 - sizes[i] as f64) / (k - i) as f64)
                .collect();
            slopes.sort_by(f64::total_cmp);
            let n = slopes.len();
            let expected = slopes[(n - 1) / 2].midpoint(slopes[n / 2]);
            prop_assert!((trend(&sizes).slope - expected).abs() < 1e-9);
        }

        #[test]
        fn the_mirrored_series_has_the_mirrored_trend(sizes in vec(0..1000_u64, 2..20)) {
            let mirrored: Vec<u64> = sizes.iter().map(|size| 1000 - size).collect();
            let (a, b) = (trend(&sizes), trend(&mirrored));
            prop_assert!((a.slope + b.slope).abs() < 1e-9);
            prop_assert_eq!((a.s, a.rise, a.fall), (-b.s, b.fall, b.rise));
            prop_assert_eq!((a.n_grown, a.n_shrunk), (b.n_shrunk, b.n_grown));
        }
    }
}
