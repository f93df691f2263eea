//! What is to be reached, and whether it is.

use super::Measured;
use super::times::{COMPARE_BY_LINE, TAKE_SNAPSHOT, first, growth, speed_ratio};
use crate::bench::figure::{Figure, amount, ratio};
use crate::bench::goal::Goal;
use memtrace_benches::analysis::{Beside, Figures};

/// How many times faster than CPython's every operation is to be.
const MIN_SPEED_RATIO: f64 = 50.0;
const MAX_SNAPSHOT_MS: f64 = 20.0;
const MAX_COMPARISON_MS: f64 = 20.0;
const MAX_BYTES_IN_MEMORY: f64 = 16.0;
const MAX_BYTES_ON_DISK: f64 = 3.0;
/// Ten times, and a tenth for the unsteadiness of the figures.
const MAX_GROWTH: f64 = 11.0;

/// Judges all goals.
pub(super) fn judge(measured: &Measured) -> Vec<Goal> {
    let Measured { ours, ours_many, cpython, beside, .. } = measured;
    let snapshot = first(&ours.millis, TAKE_SNAPSHOT);
    let comparison = first(&ours.millis, COMPARE_BY_LINE);
    vec![
        at_least_as_fast(ours, cpython.as_ref()),
        at_most_ms("a snapshot of a million blocks", snapshot, MAX_SNAPSHOT_MS),
        at_most_ms("compare_to by line", comparison, MAX_COMPARISON_MS),
        at_most_bytes("in memory", bytes_in_memory(ours), MAX_BYTES_IN_MEMORY),
        at_most_bytes("on disk", per_trace(ours, ours.file_bytes), MAX_BYTES_ON_DISK),
        linear(ours, ours_many.as_ref()),
        not_stopped(&beside.beside),
    ]
}

/// Bytes of a snapshot's traces in memory: what the snapshot says or the kernel, whichever is more.
pub(super) fn bytes_in_memory(figures: &Figures) -> f64 {
    per_trace(figures, figures.stated_bytes.unwrap_or(0).max(figures.resident_bytes))
}

/// Divides bytes by the traces of a snapshot.
pub(super) fn per_trace(figures: &Figures, n_bytes: u64) -> f64 {
    n_bytes as f64 / figures.n_traces as f64
}

fn at_least_as_fast(ours: &Figures, cpython: Option<&Figures>) -> Goal {
    let name = format!("every operation {MIN_SPEED_RATIO} times as fast as CPython's");
    let Some(cpython) = cpython else {
        return Goal { name, found: String::from("no CPython"), is_met: None };
    };
    let ratios = cpython.millis.keys().map(|operation| {
        let ratio = speed_ratio(ours, cpython, operation);
        (ratio.unwrap_or(0.0), operation.as_str())
    });
    let mut ratios: Vec<(f64, &str)> = ratios.collect();
    ratios.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let text = |(value, operation): &(f64, &str)| format!("{} {operation}", ratio(*value));
    let slow: Vec<String> =
        ratios.iter().filter(|(ratio, _)| *ratio < MIN_SPEED_RATIO).map(text).collect();
    let found = match ratios.first() {
        Some(least) if slow.is_empty() => format!("at least {}", text(least)),
        Some(_) => slow.join(", "),
        None => String::from("nothing was timed"),
    };
    Goal { name, found, is_met: Some(slow.is_empty() && !ratios.is_empty()) }
}

fn at_most_ms(what: &str, found: Option<Figure>, most: f64) -> Goal {
    Goal {
        name: format!("{what} in {most} ms"),
        found: found.map_or_else(|| String::from("?"), |f| format!("{} ms", amount(f.median))),
        is_met: found.map(|found| found.median <= most),
    }
}

fn at_most_bytes(place: &str, found: f64, most: f64) -> Goal {
    Goal {
        name: format!("{most} bytes a trace {place}"),
        found: ratio(found),
        is_met: Some(found <= most),
    }
}

fn linear(ours: &Figures, ours_many: Option<&Figures>) -> Goal {
    let name = format!("ten times the blocks take {MAX_GROWTH} times as long at most");
    let Some(many) = ours_many else {
        return Goal { name, found: String::from("not measured"), is_met: None };
    };
    let growths = ours
        .millis
        .keys()
        .filter_map(|operation| Some((growth(ours, many, operation)?, operation.as_str())));
    let most = growths.max_by(|(a, _), (b, _)| a.total_cmp(b));
    Goal {
        name,
        found: most.map_or_else(String::new, |(growth, operation)| {
            format!("at most {}, {operation}", ratio(growth))
        }),
        is_met: most.map(|(growth, _)| growth <= MAX_GROWTH),
    }
}

/// That no thread was held for a good part of a snapshot.
fn not_stopped(beside: &[Beside]) -> Goal {
    let name = String::from("no thread is held for a tenth of a snapshot while one is taken");
    let snapshots = beside.iter().filter(|beside| beside.other == "takes snapshots");
    let held: Option<Vec<(f64, f64)>> = snapshots
        .map(|beside| {
            let gap = Figure::of(beside.longest_gap_ms.iter().copied())?;
            let snapshot = Figure::of(beside.other_ms.iter().copied())?;
            Some((gap.median, snapshot.median))
        })
        .collect();
    let most = held.into_iter().flatten().max_by(|(a, _), (b, _)| a.total_cmp(b));
    Goal {
        name,
        found: most.map_or_else(String::new, |(gap, snapshot)| {
            format!("{} ms of {} ms", ratio(gap), amount(snapshot))
        }),
        is_met: most.map(|(gap, snapshot)| gap <= snapshot / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::measured;
    use super::super::times::tests::figures;
    use super::*;

    fn is_met(measured: &Measured) -> Vec<Option<bool>> {
        judge(measured).iter().map(|goal| goal.is_met).collect()
    }

    #[test]
    fn every_goal_can_be_met_and_missed() {
        assert_eq!(is_met(&measured()), [Some(true); 7]);
        let mut bad = measured();
        bad.ours = figures(&[(TAKE_SNAPSHOT, 21.0), (COMPARE_BY_LINE, 21.0)]);
        bad.ours.resident_bytes = 17_000;
        bad.ours.file_bytes = 3_100;
        bad.ours_many = Some(figures(&[(TAKE_SNAPSHOT, 240.0)]));
        bad.beside.beside[0].longest_gap_ms = vec![9.0];
        assert_eq!(is_met(&bad), [Some(false); 7]);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let measured = Measured { ours_many: None, cpython: None, ..measured() };
        let judged = is_met(&measured);
        assert_eq!((judged[0], judged[5]), (None, None));
        assert_eq!(judged.iter().filter(|is_met| **is_met == Some(true)).count(), 5);
    }

    #[test]
    fn operations_that_are_too_slow_are_named_slowest_first() {
        let mut measured = measured();
        measured.cpython = Some(figures(&[(TAKE_SNAPSHOT, 100.0), (COMPARE_BY_LINE, 60.0)]));
        let goals = judge(&measured);
        assert_eq!(goals[0].found, "6.00 compare_to lineno, 10.0 take_snapshot");
    }
}
