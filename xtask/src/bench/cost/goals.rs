//! The budgets, and whether they are kept.

use super::configuration::Configuration;
use super::memory::Memory;
use super::results::Results;
use crate::bench::figure::{amount, ratio};
use crate::bench::goal::Goal;
use memtrace_benches::{Latency, Workload};

/// Time as a multiple of untraced, every allocation traced, 25 frames.
const MAX_RATIOS: [(Workload, f64); 2] = [(Workload::Json, 1.35), (Workload::MapsOfStrings, 1.2)];
/// Latency of a service, likewise.
const MAX_LATENCY_RATIO: f64 = 1.05;
/// Nanoseconds added to a pair below 25 frames.
const MAX_ADDED_NS: f64 = 35.0;
/// What two threads may do less, beside one, than untraced.
const MAX_SCALING_LOSS: f64 = 0.05;
/// Geometric means over the workloads that work as programs do.
const MAX_MEAN_RATIOS: [(Configuration, f64); 3] =
    [(Configuration::Full25, 1.3), (Configuration::Stopped, 1.01), (Configuration::Sampled, 1.02)];
/// How many times the added time is to be less than a peer's, on every workload.
const MIN_TIMES_LESS: [(Configuration, f64); 3] = [
    (Configuration::Heapscope, 4.0),
    (Configuration::Heaptrack, 10.0),
    (Configuration::Dhat, 50.0),
];
/// The tracer's own bytes for each live block, on every shape.
const MAX_TRACER_BYTES: [(Configuration, f64); 2] =
    [(Configuration::Full25, 24.0), (Configuration::Full25Pooled, 10.0)];
/// What ten times as many blocks take, as a multiple: ten, and a tenth for unsteadiness.
const MAX_GROWTH: f64 = 11.0;
/// At most so many of those that miss are named.
const N_NAMED: usize = 4;

/// Judges all goals.
pub(super) fn judge(results: &Results, memory: Option<&Memory>) -> Vec<Goal> {
    let mut goals: Vec<Goal> = MAX_RATIOS.map(|(w, max)| slowdown(results, w, max)).into();
    goals.push(latency(results, "p50", |latency| latency.p50_ns));
    goals.push(latency(results, "p99", |latency| latency.p99_ns));
    goals.push(added_to_a_pair(results));
    goals.push(scaling(results));
    goals.extend(MAX_MEAN_RATIOS.map(|(c, max)| mean(results, c, max)));
    goals.extend(MIN_TIMES_LESS.map(|(peer, min)| times_less(results, peer, min)));
    goals.extend(MAX_TRACER_BYTES.map(|(c, max)| tracer_bytes(memory, c, max)));
    goals.push(growth(memory));
    goals
}

/// A goal that a figure must not exceed.
fn at_most(name: String, found: Option<f64>, max: f64, format: impl Fn(f64) -> String) -> Goal {
    Goal {
        name,
        found: found.map_or_else(not_measured, format),
        is_met: found.map(|found| found <= max),
    }
}

fn slowdown(results: &Results, workload: Workload, max: f64) -> Goal {
    let found = results.ratio(workload, Configuration::Full25).map(|figure| figure.median);
    let name = format!("{workload}, traced: at most {max} of untraced");
    at_most(name, found, max, ratio)
}

fn latency(results: &Results, which: &str, of: impl Fn(&Latency) -> f64) -> Goal {
    let found = results.latency_ratio(Configuration::Full25, of).map(|figure| figure.median);
    let name = format!("service, traced: {which} at most {MAX_LATENCY_RATIO} of untraced");
    at_most(name, found, MAX_LATENCY_RATIO, ratio)
}

fn added_to_a_pair(results: &Results) -> Goal {
    let found = results.added_ns(Workload::TightPair, Configuration::Full25);
    let name = format!("at most {MAX_ADDED_NS} ns added to a tight pair below 25 frames");
    let format = |ns| format!("{} ns", amount(ns));
    at_most(name, found.map(|figure| figure.median), MAX_ADDED_NS, format)
}

fn scaling(results: &Results) -> Goal {
    let of = |configuration| results.scaling(configuration);
    let both = of(Configuration::Full25).zip(of(Configuration::Untraced));
    Goal {
        name: format!(
            "two threads, traced: within {} % of how they scale untraced",
            MAX_SCALING_LOSS * 100.0
        ),
        found: both.map_or_else(not_measured, |(traced, untraced)| {
            format!("{} times one thread, untraced {}", ratio(traced), ratio(untraced))
        }),
        is_met: both.map(|(traced, untraced)| traced >= untraced * (1.0 - MAX_SCALING_LOSS)),
    }
}

fn mean(results: &Results, configuration: Configuration, max: f64) -> Goal {
    let name = format!("{configuration}: at most {max} of untraced, geometric mean of programs");
    at_most(name, results.mean_ratio(configuration), max, |value| format!("{value:.3}"))
}

fn times_less(results: &Results, peer: Configuration, min: f64) -> Goal {
    let of = |w: Workload| Some((results.times_less(w, Configuration::Full25, peer)?, w.name()));
    let found: Vec<(f64, &str)> = results.workloads().filter_map(of).collect();
    let (text, is_met) = worst(found, |value| value < min, |a, b| a.total_cmp(b), "at least");
    Goal {
        name: format!("adds {min} times less time than {peer}, every workload"),
        found: text,
        is_met,
    }
}

fn tracer_bytes(memory: Option<&Memory>, configuration: Configuration, max: f64) -> Goal {
    let found: Vec<(f64, &str)> = memory.map_or_else(Vec::new, |memory| {
        let of = |amount| Some((memory.tracer_bytes(amount, configuration)?, amount.0.name()));
        memory.shapes().filter_map(of).collect()
    });
    let (text, is_met) = worst(found, |value| value > max, |a, b| b.total_cmp(a), "at most");
    let name = format!("{configuration}: at most {max} bytes of tracer for each live block");
    Goal { name, found: text, is_met }
}

fn growth(memory: Option<&Memory>) -> Goal {
    let found = memory.and_then(|memory| {
        let mut amounts = memory.growth().rev();
        let (many, few) = (amounts.next()?, amounts.next()?);
        let bytes = |amount| memory.tracer_bytes(amount, Configuration::Full25);
        let of = |amount| Some(bytes(amount)? * memory.n_live(amount)? as f64);
        Some((of(many)? / of(few)?, memory.n_live(many)?))
    });
    Goal {
        name: format!("ten times as many blocks: at most {MAX_GROWTH} times the tracer's memory"),
        found: found.map_or_else(not_measured, |(growth, n_live)| {
            format!("{} times, for {n_live} blocks", ratio(growth))
        }),
        is_met: found.map(|(growth, _)| growth <= MAX_GROWTH),
    }
}

/// Names the worst of several figures, or all that miss, and says whether none does.
fn worst(
    mut found: Vec<(f64, &str)>,
    is_missed: impl Fn(f64) -> bool,
    worst_first: impl Fn(&f64, &f64) -> std::cmp::Ordering,
    bound: &str,
) -> (String, Option<bool>) {
    found.sort_by(|(a, _), (b, _)| worst_first(a, b));
    let n_missed = found.iter().filter(|(value, _)| is_missed(*value)).count();
    let text = |(value, name): &(f64, &str)| format!("{} {name}", ratio(*value));
    let Some(first) = found.first() else {
        return (not_measured(), None);
    };
    if n_missed == 0 {
        return (format!("{bound} {}", text(first)), Some(true));
    }
    let named: Vec<String> = found.iter().take(n_missed.min(N_NAMED)).map(text).collect();
    let more = if n_missed > N_NAMED { ", …" } else { "" };
    (format!("{n_missed} of {} not: {}{more}", found.len(), named.join(", ")), Some(false))
}

fn not_measured() -> String {
    String::from("not measured")
}

#[cfg(test)]
mod tests {
    use super::super::memory::tests::one_round;
    use super::super::results::tests::three_rounds;
    use super::*;

    fn goal<'a>(goals: &'a [Goal], part: &str) -> &'a Goal {
        goals.iter().find(|goal| goal.name.contains(part)).unwrap()
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        let goals = judge(&three_rounds(&[]), None);
        assert_eq!(goals.len(), 15);
        assert!(goals.iter().all(|goal| goal.is_met.is_none() && goal.found == "not measured"));
    }

    #[test]
    fn figures_are_held_against_their_budgets() {
        let goals = judge(&three_rounds(&Workload::ALL), Some(&one_round(20)));
        let found = |part| {
            let goal = goal(&goals, part);
            (goal.found.as_str(), goal.is_met)
        };
        assert_eq!(found("json"), ("2.00", Some(false)));
        assert_eq!(found("p99"), ("2.00", Some(false)));
        assert_eq!(found("tight pair"), ("150 ns", Some(false)));
        assert_eq!(found("two threads"), ("2.00 times one thread, untraced 2.00", Some(true)));
        assert_eq!(found("full 25: at most 1.3"), ("2.000", Some(false)));
        assert_eq!(found("stopped"), ("not measured", None));
        assert_eq!(found("dhat"), ("at least 100.0 tight-pair-5", Some(true)));
        assert_eq!(found("bytes of tracer"), ("at most 20.0 blocks-32", Some(true)));
        assert_eq!(found("ten times as many"), ("10.0 times, for 20000000 blocks", Some(true)));
    }

    #[test]
    fn of_several_that_miss_the_worst_are_named() {
        let goals = judge(&three_rounds(&[]), Some(&one_round(25)));
        let goal = goal(&goals, "bytes of tracer");
        assert_eq!(goal.is_met, Some(false));
        assert!(
            goal.found.starts_with("6 of 6 not: 25.0 blocks-32, ") && goal.found.ends_with('…')
        );
    }
}
