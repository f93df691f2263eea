//! Times of operations, summarised.

use crate::bench::figure::Figure;
use memtrace_benches::analysis::{Figures, Millis};
use std::collections::BTreeMap;

/// Taking a snapshot.
pub(super) const TAKE_SNAPSHOT: &str = "take_snapshot";
/// Comparing by line.
pub(super) const COMPARE_BY_LINE: &str = "compare_to lineno";

/// The times of an operation on new snapshots; `None` if it was not timed.
pub(super) fn first(millis: &BTreeMap<String, Millis>, operation: &str) -> Option<Figure> {
    Figure::of(millis.get(operation)?.first.iter().copied())
}

/// The times of an operation that was already done once on the same snapshots.
pub(super) fn again(millis: &BTreeMap<String, Millis>, operation: &str) -> Option<Figure> {
    Figure::of(millis.get(operation)?.again.iter().copied())
}

/// How many times faster an operation is than in CPython, tracing stopped, or on where that is
/// faster.
pub(super) fn speed_ratio(ours: &Figures, cpython: &Figures, operation: &str) -> Option<f64> {
    let stopped = first(&cpython.millis, operation)?.median;
    let tracing = first(&cpython.millis_tracing, operation);
    let theirs = tracing.map_or(stopped, |tracing| tracing.median.min(stopped));
    Some(theirs / first(&ours.millis, operation)?.median)
}

/// How many times longer an operation takes on the larger heap.
pub(super) fn growth(small: &Figures, large: &Figures, operation: &str) -> Option<f64> {
    let [small, large] = [small, large].map(|figures| first(&figures.millis, operation));
    Some(large?.median / small?.median)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures of operations that take so many milliseconds: the median of three, and half of that
    /// when done again.
    pub(in crate::bench::core) fn figures(millis: &[(&str, f64)]) -> Figures {
        let of = |&(name, ms): &(&str, f64)| {
            let first = vec![ms, ms * 1.5, ms * 0.9];
            (name.to_owned(), Millis { first, again: vec![ms / 2.0] })
        };
        let n_traces = 1000;
        Figures { n_traces, millis: millis.iter().map(of).collect(), ..Figures::default() }
    }

    #[test]
    fn the_ratio_is_to_the_faster_of_cpythons_times() {
        let ours = figures(&[("load", 2.0)]);
        let mut cpython = figures(&[("load", 300.0)]);
        assert_eq!(speed_ratio(&ours, &cpython, "load"), Some(150.0));
        cpython.millis_tracing = figures(&[("load", 100.0)]).millis;
        assert_eq!(speed_ratio(&ours, &cpython, "load"), Some(50.0));
        assert_eq!(speed_ratio(&ours, &cpython, "top lineno"), None);
    }
}
