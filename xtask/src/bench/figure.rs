//! Figures over rounds: the median, and the least and the greatest beside it.

/// A figure that was taken once in each round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Figure {
    /// Summarises the values of all rounds; `None` if there are none.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[upper]
        } else {
            f64::midpoint(values[upper - 1], values[upper])
        };
        Some(Self { median, min, max })
    }

    /// Returns the median with the range of the rounds behind it.
    pub(super) fn with_range(self, format: impl Fn(f64) -> String) -> String {
        format!("{} ({}–{})", format(self.median), format(self.min), format(self.max))
    }
}

/// Writes a ratio with as many digits as mean something.
pub(super) fn ratio(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// Writes a number of nanoseconds, mebibytes or the like.
pub(super) fn amount(value: f64) -> String {
    let text = if value.abs() < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    // Not "-0.0": a difference of nothing has no sign.
    if text.trim_start_matches(['-', '0', '.']).is_empty() {
        return text.trim_start_matches('-').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_between_the_two() {
        let median = |values: &[f64]| Figure::of(values.iter().copied()).unwrap().median;
        assert_eq!(median(&[5.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 4.0]), 4.0);
        assert_eq!(median(&[9.0, 1.0, 4.0, 5.0]), 4.5);
        assert_eq!(Figure::of([]), None);
    }

    #[test]
    fn one_slow_round_moves_the_range_and_not_the_median() {
        let figure = Figure::of([1.0, 1.02, 40.0, 1.01, 1.0]).unwrap();
        assert_eq!(figure.with_range(ratio), "1.01 (1.00–40.0)");
    }

    #[test]
    fn small_numbers_keep_a_digit_that_large_ones_do_not_need() {
        assert_eq!([ratio(1.004), ratio(9.996), ratio(123.46)], ["1.00", "10.00", "123.5"]);
        assert_eq!(
            [amount(3.12), amount(-0.01), amount(-7.06), amount(1234.5)],
            ["3.1", "0.0", "-7.1", "1234"]
        );
    }
}
