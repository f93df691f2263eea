//! What is to be reached, and whether it is: in the default build, 25 frames.

use super::measured::{FRAMEHOP, Measured, SITE, Verdict, Workload};
use super::programs::Build;
use crate::bench::figure::{amount, ratio};
use crate::bench::goal::Goal;

/// The most that a capture with its site may take, in nanoseconds, by workload.
const MOST_NS: [(&str, f64); 6] = [
    ("same 25/25", 20.0),
    ("serde_json", 30.0),
    ("maps", 30.0),
    ("regex", 30.0),
    ("syn", 90.0),
    ("random 25/25", 100.0),
];
/// How many times cheaper it is to be than framehop and interning.
const MIN_RATIO: f64 = 8.0;

/// Judges all goals.
pub(super) fn judge(measured: &Measured) -> Vec<Goal> {
    let times = MOST_NS.map(|(name, most)| at_most(measured, name, most));
    [right(measured)].into_iter().chain(times).chain([cheaper(measured)]).collect()
}

fn right(measured: &Measured) -> Goal {
    let verdicts = measured.workloads.iter().map(|workload| (workload, workload.verdict(SITE)));
    let wrong: Vec<&str> = verdicts
        .clone()
        .filter(|(_, verdict)| *verdict != Verdict::Right)
        .map(|(workload, _)| workload.name.as_str())
        .collect();
    let n_all = verdicts.count();
    Goal {
        name: format!("{SITE}: every stack as the truth's, both builds"),
        found: if wrong.is_empty() {
            format!("all {n_all} workloads")
        } else {
            format!("not in {}", wrong.join(", "))
        },
        is_met: (n_all > 0).then_some(wrong.is_empty()),
    }
}

/// A time counts only if the stacks are right.
fn at_most(measured: &Measured, name: &str, most: f64) -> Goal {
    let workload = measured.find(Build::Default, name);
    let found = workload.and_then(|workload| Some((workload, workload.added_ns(SITE)?)));
    Goal {
        name: format!("{name} in {most} ns"),
        found: found.map_or_else(
            || String::from("not measured"),
            |(_, added)| format!("{} ns", added.with_range(amount)),
        ),
        is_met: found.map(|(workload, added)| {
            added.median <= most && workload.verdict(SITE) == Verdict::Right
        }),
    }
}

fn cheaper(measured: &Measured) -> Goal {
    let name = format!("every workload {MIN_RATIO} times cheaper than {FRAMEHOP} at its best");
    let workloads: Vec<&Workload> = measured.of(Build::Default).collect();
    let mut ratios: Vec<(f64, &str)> = workloads
        .iter()
        .filter_map(|workload| Some((workload.ratios()?[0], workload.name.as_str())))
        .collect();
    ratios.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let n_unknown = workloads.len() - ratios.len();
    let n_missed = ratios.iter().filter(|(ratio, _)| *ratio < MIN_RATIO).count();
    let mut found = match ratios.first() {
        Some((least, name)) => {
            format!("least {} {name}; {n_missed} of {} below", ratio(*least), workloads.len())
        }
        None => String::from("nothing to compare"),
    };
    if n_unknown > 0 {
        found += &format!("; {n_unknown} drowned in noise");
    }
    let is_met = match (n_missed, n_unknown) {
        (0, 0) if !ratios.is_empty() => Some(true),
        (0, _) => None,
        _ => Some(false),
    };
    Goal { name, found, is_met }
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::figures;
    use super::*;

    /// All workloads that have goals, at so many times what they may take.
    fn measured(part: f64) -> Measured {
        let mut measured = Measured::default();
        for (name, most) in MOST_NS {
            measured.add(Build::Default, figures(name, most * part, 1000.0));
        }
        measured
    }

    fn is_met(measured: &Measured) -> Vec<Option<bool>> {
        judge(measured).iter().map(|goal| goal.is_met).collect()
    }

    #[test]
    fn every_goal_can_be_met_and_missed() {
        assert_eq!(is_met(&measured(1.0)), [Some(true); 8]);
        let mut bad = measured(2.0);
        let mut wrong = figures("maps", 1.0, 10.0);
        wrong.contenders[0].n_wrong = 1;
        bad.add(Build::FramePointers, wrong);
        assert_eq!(is_met(&bad), [Some(false); 8]);
        let goals = judge(&bad);
        assert_eq!(goals[0].found, "not in maps");
        assert_eq!(goals[1].found, "40.0 (36.0–60.0) ns");
        assert_eq!(goals[7].found, "least 5.00 random 25/25; 2 of 6 below");
    }

    #[test]
    fn a_fast_time_with_wrong_stacks_reaches_no_goal() {
        let mut measured = Measured::default();
        let mut wrong = figures("maps", 1.0, 1000.0);
        wrong.contenders[0].n_sites_timed = Some(6);
        measured.add(Build::Default, wrong);
        let goals = judge(&measured);
        let maps = goals.iter().find(|goal| goal.name.starts_with("maps")).unwrap();
        assert_eq!((maps.found.as_str(), maps.is_met), ("1.0 (0.9–1.5) ns", Some(false)));
    }

    #[test]
    fn what_was_not_measured_or_drowned_in_noise_is_not_judged() {
        assert_eq!(is_met(&Measured::default()), [None; 8]);
        let mut measured = measured(1.0);
        let mut noisy = figures("channels", 1.0, 1000.0);
        noisy.contenders[0].ns = vec![99.0, 99.0, 130.0];
        measured.add(Build::Default, noisy);
        let goals = judge(&measured);
        let last = goals.last().unwrap();
        assert_eq!(last.is_met, None);
        assert!(last.found.ends_with("0 of 7 below; 1 drowned in noise"), "{}", last.found);
    }
}
