//! What is to be reached, and whether it is.

use super::measured::{Measured, Workload};
use super::programs::Allocator::{Glibc, Memtrace, Mimalloc};
use crate::bench::figure::ratio;
use crate::bench::goal::Goal;

/// How many times as long as under mimalloc workloads may take, on geometric average.
const MAX_MEAN_RATIO: f64 = 1.15;
/// Resident bytes for each live byte after a burst that was freed.
const MAX_RESIDENT: f64 = 1.2;
/// At most so many of the workloads that are too slow are named.
const N_NAMED: usize = 3;
/// The bursts of which nothing is left.
const FREED_BURSTS: [&str; 2] = ["burst", "burst-4"];

/// Judges all goals.
pub(super) fn judge(measured: &Measured) -> Vec<Goal> {
    let bursts = FREED_BURSTS.map(|name| at_most_resident(measured, name));
    [faster(measured), near(measured)].into_iter().chain(bursts).collect()
}

fn faster(measured: &Measured) -> Goal {
    let ratio_of = |workload: &Workload| workload.ratio(Memtrace, Glibc);
    let mut ratios: Vec<(f64, &str)> = measured
        .timed()
        .filter_map(|workload| Some((ratio_of(workload)?.median, workload.name.as_str())))
        .collect();
    ratios.sort_unstable_by(|(a, _), (b, _)| b.total_cmp(a));
    let n_slow = ratios.iter().filter(|(value, _)| *value >= 1.0).count();
    let text = |(value, name): &(f64, &str)| format!("{} {name}", ratio(*value));
    Goal {
        name: String::from("faster than glibc on every workload"),
        found: match ratios.first() {
            Some(most) if n_slow == 0 => format!("at most {}", text(most)),
            Some(_) => {
                let named: Vec<String> =
                    ratios.iter().take(n_slow.min(N_NAMED)).map(text).collect();
                let more = if n_slow > N_NAMED { ", …" } else { "" };
                format!("{n_slow} of {} not: {}{more}", ratios.len(), named.join(", "))
            }
            None => String::from("not measured"),
        },
        is_met: (!ratios.is_empty()).then_some(n_slow == 0),
    }
}

fn near(measured: &Measured) -> Goal {
    let mean = measured.mean_ratio(Memtrace, Mimalloc);
    Goal {
        name: format!("time at most {MAX_MEAN_RATIO} of mimalloc's, geometric mean"),
        found: mean.map_or_else(|| String::from("not measured"), ratio),
        is_met: mean.map(|mean| mean <= MAX_MEAN_RATIO),
    }
}

/// By what is resident a second and some allocations later: an allocator that gives everything back at
/// once makes a program that comes and goes pay for its pages each time. The report has both figures.
fn at_most_resident(measured: &Measured, name: &str) -> Goal {
    let mut bursts = measured.bursts();
    let found = bursts.find(|workload| workload.name == name).and_then(|workload| {
        workload.per_live_byte(Memtrace, |memory| memory.resident_later_bytes)
    });
    Goal {
        name: format!("resident a second after {name} at most {MAX_RESIDENT} of live bytes"),
        found: found.map_or_else(|| String::from("not measured"), |f| f.with_range(ratio)),
        is_met: found.map(|found| found.median <= MAX_RESIDENT),
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::{add_burst, add_times};
    use super::*;

    fn is_met(measured: &Measured) -> Vec<Option<bool>> {
        judge(measured).iter().map(|goal| goal.is_met).collect()
    }

    #[test]
    fn every_goal_can_be_met_and_missed() {
        let mut good = Measured::default();
        add_times(&mut good, "pair-16", [11.0, 12.0, 10.0, 1.0]);
        add_times(&mut good, "swap", [11.0, 20.0, 10.0, 1.0]);
        FREED_BURSTS.into_iter().for_each(|name| add_burst(&mut good, name, 130));
        assert_eq!(is_met(&good), [Some(true); 4]);
        assert_eq!(judge(&good)[0].found, "at most 0.92 pair-16");

        let mut bad = Measured::default();
        add_times(&mut bad, "pair-16", [12.0, 12.0, 10.0, 100.0]);
        add_times(&mut bad, "swap", [30.0, 20.0, 30.0, 100.0]);
        add_times(&mut bad, "json", [12.0, 20.0, 9.0, 100.0]);
        FREED_BURSTS.into_iter().for_each(|name| add_burst(&mut bad, name, 131));
        assert_eq!(is_met(&bad), [Some(false); 4]);
        let goals = judge(&bad);
        assert_eq!(goals[0].found, "2 of 3 not: 1.50 swap, 1.00 pair-16");
        assert_eq!(goals[2].found, "1.21 (1.21–1.21)");
    }

    #[test]
    fn one_burst_that_leaves_too_much_misses_its_goal_alone() {
        let mut measured = Measured::default();
        add_burst(&mut measured, FREED_BURSTS[0], 120);
        add_burst(&mut measured, FREED_BURSTS[1], 140);
        assert_eq!(is_met(&measured), [None, None, Some(true), Some(false)]);
    }

    #[test]
    fn what_was_not_measured_is_not_judged() {
        assert_eq!(is_met(&Measured::default()), [None; 4]);
    }
}
