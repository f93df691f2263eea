//! Sums over traces of a sampled program, and how far they may be off.
//!
//! A block of `s` bytes was recorded with the chance `p = 1 - exp(-s / T)`, where `T` is the snapshot's
//! period in bytes, each independently of the others; one of `T` bytes and more always, and memory that
//! the program told of as well. So a recorded block stands for `1 / p` blocks and `s / p` bytes, and sums
//! of these are right on average (Horvitz and Thompson's estimator). Their variances are estimated
//! without bias by the sums of `(1 - p) / p²` and `s² (1 - p) / p²`.
//!
//! **Cost.** An exponential for each trace, once for each snapshot; snapshots that are exact pay nothing:
//! what sums traces is compiled for either.

use std::num::NonZeroU64;

use crate::columns::{Sum, TraceColumns, Uniform};

/// How far the figures of a sampled snapshot may be off: half the widths of their 95 % intervals.
///
/// The interval of a figure is the figure plus or minus this. In 95 of 100 samplings of one program it
/// holds the truth, provided that the figure is made of some dozens of samples; with fewer it does so less
/// often, and a group without a sample is not there at all. That goes for counts above all where blocks of
/// a few bytes stand beside large ones: a sampled block of one byte counts for a whole period. Blocks that
/// were all recorded have errors of 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SamplingError {
    /// In bytes, of sizes.
    pub size: u64,
    /// In blocks, of counts.
    pub count: u64,
}

impl SamplingError {
    /// Makes one of its figures.
    pub const fn new(size: u64, count: u64) -> Self {
        Self { size, count }
    }

    fn of_variances(size: f64, count: f64) -> Self {
        // Half the width, in standard deviations, of the interval that holds 95 % of a normal
        // distribution.
        const Z: f64 = 1.959_963_984_540_054;
        // Saturates.
        let half = |variance: f64| (Z * variance.sqrt()).ceil() as u64;
        Self { size: half(size), count: half(count) }
    }
}

/// Bytes and blocks of some traces: exact, or estimated.
pub(crate) trait Total: Copy + 'static {
    const ZERO: Self;

    /// Whether it matters how often the same is added.
    const IS_ESTIMATE: bool;

    /// Adds what is independent of what was added before.
    fn add(&mut self, other: Self);

    /// Adds what was added `n_before` times already.
    fn add_again(&mut self, other: Self, n_before: u32);

    fn is_empty(&self) -> bool;

    /// Size and count.
    fn figures(&self) -> (u64, u64);

    fn error(&self) -> Option<SamplingError>;

    /// The error of the difference of two independent sums.
    fn diff_error(self, other: Self) -> Option<SamplingError>;

    fn of_trace(traces: &TraceColumns, index: usize) -> Self;

    /// The total of each of `n_stacks` stacks.
    fn of_stacks(traces: &TraceColumns, n_stacks: usize) -> &[Self];
}

impl Total for Sum {
    const ZERO: Self = Self { size: 0, count: 0 };
    const IS_ESTIMATE: bool = false;

    fn add(&mut self, other: Self) {
        Sum::add(self, other);
    }

    fn add_again(&mut self, other: Self, _: u32) {
        Sum::add(self, other);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn figures(&self) -> (u64, u64) {
        (self.size, self.count)
    }

    fn error(&self) -> Option<SamplingError> {
        None
    }

    fn diff_error(self, _: Self) -> Option<SamplingError> {
        None
    }

    fn of_trace(traces: &TraceColumns, index: usize) -> Self {
        Self { size: traces.sizes.get(index), count: 1 }
    }

    fn of_stacks(traces: &TraceColumns, n_stacks: usize) -> &[Self] {
        traces.sums(n_stacks)
    }
}

/// Estimates of bytes and blocks, with their variances.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Estimate {
    size: f64,
    count: f64,
    size_variance: f64,
    count_variance: f64,
}

impl Estimate {
    /// A trace that was not left to chance.
    fn certain(size: u64) -> Self {
        Self { size: size as f64, count: 1.0, ..Self::ZERO }
    }

    /// A trace that was recorded by a chance that follows from its size.
    fn sampled(size: u64, period: NonZeroU64) -> Self {
        if size >= period.get() {
            return Self::certain(size);
        }
        // A block of no bytes has the chance of one of one byte.
        let p = -(-(size.max(1) as f64) / period.get() as f64).exp_m1();
        let (size, count_variance) = (size as f64, (1.0 - p) / (p * p));
        Self {
            size: size / p,
            count: 1.0 / p,
            size_variance: size * size * count_variance,
            count_variance,
        }
    }
}

impl Total for Estimate {
    const ZERO: Self = Self { size: 0.0, count: 0.0, size_variance: 0.0, count_variance: 0.0 };
    const IS_ESTIMATE: bool = true;

    fn add(&mut self, other: Self) {
        self.add_again(other, 0);
    }

    fn add_again(&mut self, other: Self, n_before: u32) {
        self.size += other.size;
        self.count += other.count;
        // The variance of n times a figure is n² times its variance.
        let more = f64::from(n_before) * 2.0 + 1.0;
        self.size_variance += other.size_variance * more;
        self.count_variance += other.count_variance * more;
    }

    fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    /// Rounded to the nearest; saturates.
    fn figures(&self) -> (u64, u64) {
        (self.size.round() as u64, self.count.round() as u64)
    }

    fn error(&self) -> Option<SamplingError> {
        Some(SamplingError::of_variances(self.size_variance, self.count_variance))
    }

    fn diff_error(self, other: Self) -> Option<SamplingError> {
        let mut both = self;
        both.add(other);
        both.error()
    }

    fn of_trace(traces: &TraceColumns, index: usize) -> Self {
        let size = traces.sizes.get(index);
        match traces.period {
            Some(period) if !traces.is_certain(index) => Self::sampled(size, period),
            _ => Self::certain(size),
        }
    }

    fn of_stacks(traces: &TraceColumns, n_stacks: usize) -> &[Self] {
        traces.estimates(n_stacks)
    }
}

/// The total of each value of a column, in no particular order.
pub(crate) fn totals_by<T: Total>(
    traces: &TraceColumns,
    column: &Uniform,
    n_stacks: usize,
) -> Vec<(u32, T)> {
    match column {
        Uniform::One(_) if traces.len() == 0 => Vec::new(),
        Uniform::One(value) => {
            let mut total = T::ZERO;
            T::of_stacks(traces, n_stacks).iter().for_each(|&sum| total.add(sum));
            vec![(*value, total)]
        }
        Uniform::Each(values) => {
            let mut totals: hashbrown::HashMap<u32, T> = hashbrown::HashMap::new();
            // Neighbours are often of one domain or thread: these are summed before they are looked up.
            let mut index = 0;
            for run in values.chunk_by(|a, b| a == b) {
                let mut total = T::ZERO;
                for at in index..index + run.len() {
                    total.add(T::of_trace(traces, at));
                }
                index += run.len();
                totals.entry(run[0]).or_insert(T::ZERO).add(total);
            }
            totals.into_iter().collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(n_bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(n_bytes).unwrap()
    }

    #[test]
    fn a_trace_stands_for_as_many_as_its_chance_says() {
        // p = 1 - exp(-1/2).
        let found = Estimate::sampled(500, period(1000));
        let p = 0.393_469_340_287_366_6;
        for (found, expected) in [
            (found.count, 1.0 / p),
            (found.size, 500.0 / p),
            (found.count_variance, (1.0 - p) / p / p),
            (found.size_variance, 250_000.0 * (1.0 - p) / p / p),
        ] {
            assert!((found / expected - 1.0).abs() < 1e-14, "{found} {expected}");
        }
        assert_eq!(Estimate::sampled(1000, period(1000)), Estimate::certain(1000));
        assert_eq!(Estimate::certain(7).error(), Some(SamplingError::new(0, 0)));
        let nothing = Estimate::sampled(0, period(1000));
        assert_eq!(nothing.figures(), (0, 1001));
        assert_eq!(nothing.size_variance, 0.0);
    }

    #[test]
    fn adding_the_same_n_times_is_n_times_as_much_and_as_uncertain() {
        let one = Estimate::sampled(64, period(4096));
        let mut three = Estimate::ZERO;
        (0..3).for_each(|n_before| three.add_again(one, n_before));
        assert!((three.count / one.count - 3.0).abs() < 1e-12);
        assert!((three.size_variance / one.size_variance - 9.0).abs() < 1e-12);
    }

    #[test]
    fn figures_of_any_size_have_an_end() {
        let mut huge = Estimate::sampled(1 << 40, period(u64::MAX));
        (0..1000).for_each(|_| huge.add(huge));
        assert_eq!(huge.figures(), (u64::MAX, u64::MAX));
        assert_eq!(huge.error(), Some(SamplingError::new(u64::MAX, u64::MAX)));
    }
}
