//! Checks a workload, then times it: in each round all contenders in turn.

use crate::check;
use crate::clock::cpu_ns;
use crate::contender::{ALL, Contender, Site, TRUTH, n_all, nothing};
use crate::hook::{Mode, set_mode, take_count};
use crate::programs::{self, Program};
use crate::synthetic::Synthetic;
use crate::table::TABLE;
use memtrace_benches::unwind::{self, Figures};
use std::error::Error;
use std::hint::black_box;

/// Runs of a workload in which all captures are checked: more than one, so that what a contender
/// remembers is checked, too. All begin with the same call, so that their stacks are the same.
const N_CHECKS: u64 = 3;

/// How much is to be measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) n_rounds: usize,
    /// CPU time for each contender in each round, in nanoseconds; one run at least.
    pub(crate) budget_ns: f64,
}

/// Checks and times captures in a loop.
pub(crate) fn synthetic(
    name: &str,
    workload: &Synthetic,
    effort: Effort,
) -> Result<Figures, Box<dyn Error>> {
    let mean_depth = workload.assert_depth();
    let mut n_captures = 0;
    for _ in 0..black_box(N_CHECKS) {
        n_captures = workload.run(check::check);
    }
    assert_eq!(check::n_checked(), n_captures * N_CHECKS);
    assert!((check::mean_depth() - workload.limit as f64).abs() < 1e-9, "not at the limit");

    let contenders: Vec<usize> = (0..ALL.len()).filter(|&i| ALL[i].is_there()).collect();
    let sites: Vec<Site> =
        [nothing as Site].into_iter().chain(contenders.iter().map(|&i| ALL[i].site)).collect();
    let before = check::n_sites_timed();
    let times = rounds(&sites, effort, &mut |site| {
        workload.run(*site);
    });
    let figures = Figures {
        workload: name.to_owned(),
        is_program: false,
        limit: workload.limit,
        n_captures,
        mean_depth,
        ..Figures::default()
    };
    finish(figures, &contenders, times, Some(before))
}

/// Checks and times a program that allocates.
pub(crate) fn program(
    name: &str,
    program: &Program,
    effort: Effort,
) -> Result<Figures, Box<dyn Error>> {
    let limit = programs::LIMIT;
    let run = |mode| {
        set_mode(mode, limit);
        let checksum = program.run();
        set_mode(Mode::Off, limit);
        checksum
    };
    // What is made once and kept is not among what is counted.
    let checksum = run(Mode::Off);
    let mut is_wrong = run(Mode::Count) != checksum;
    let n_captures = take_count();
    for _ in 0..black_box(N_CHECKS) {
        is_wrong |= run(Mode::Check) != checksum;
    }
    let n_checked = check::n_checked();
    if program.is_deterministic && n_checked != n_captures * N_CHECKS {
        return Err(format!("{name}: {n_checked} captures at {n_captures} allocations").into());
    }

    let interning = |&i: &usize| ALL[i].is_interning && ALL[i].is_there();
    let contenders: Vec<usize> = (0..ALL.len()).filter(interning).collect();
    let modes: Vec<Mode> =
        [Mode::Off].into_iter().chain(contenders.iter().map(|&i| Mode::Capture(i))).collect();
    let before = check::n_sites_timed();
    let times = rounds(&modes, effort, &mut |&mode| is_wrong |= run(mode) != checksum);
    if is_wrong {
        return Err(format!("{name} computes something else when it is traced").into());
    }
    let figures = Figures {
        workload: name.to_owned(),
        is_program: true,
        limit,
        n_captures,
        mean_depth: check::mean_depth(),
        ..Figures::default()
    };
    finish(figures, &contenders, times, program.is_deterministic.then_some(before))
}

/// Times `run` under each of `ways` in each round; each round begins with another one. Returns the
/// nanoseconds of a run, by way and round.
fn rounds<T>(ways: &[T], effort: Effort, run: &mut impl FnMut(&T)) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..effort.n_rounds {
        for i in (0..ways.len()).map(|i| (i + round) % ways.len()) {
            let mut n_runs = 1;
            let mut ns = 0.0;
            // First once, as others have used the caches meanwhile. Both times by the same call, so
            // that the stacks are the same: the loop must not be unrolled.
            for _ in 0..black_box(2) {
                let start = cpu_ns();
                for _ in 0..n_runs {
                    run(&ways[i]);
                }
                ns = (cpu_ns() - start) / f64::from(n_runs);
                n_runs = (effort.budget_ns / ns).clamp(1.0, 1e6) as u32;
            }
            times[i].push(ns);
        }
    }
    times
}

/// Fills in what all workloads have; the first times are those of the base. Without the numbers of
/// stacks found before anything was timed, those found since are not told.
fn finish(
    mut figures: Figures,
    contenders: &[usize],
    times: Vec<Vec<f64>>,
    n_sites_before: Option<[u64; n_all()]>,
) -> Result<Figures, Box<dyn Error>> {
    if TABLE.n_lost() > 0 {
        return Err(format!("the table had no room for {} stacks", TABLE.n_lost()).into());
    }
    let n_sites_timed = check::n_sites_timed();
    let mut ns = times.into_iter().map(|times| {
        times.into_iter().map(|ns| ns / figures.n_captures as f64).collect::<Vec<_>>()
    });
    figures.base_ns = ns.next().unwrap_or_default();
    figures.n_sites = check::n_sites(TRUTH);
    figures.has_frame_pointers = cfg!(frame_pointers);
    for (&i, ns) in contenders.iter().zip(ns) {
        let Contender { name, is_exact, is_interning, .. } = ALL[i];
        let (n_checked, n_wrong) =
            if is_interning { (check::n_checked(), check::n_wrong(i)) } else { (0, 0) };
        figures.contenders.push(unwind::Contender {
            name: name.to_owned(),
            is_exact,
            is_interning,
            ns,
            n_checked,
            n_wrong,
            n_cut: if is_interning { check::n_cut(i) } else { 0 },
            n_sites: check::n_sites(i),
            n_sites_timed: n_sites_before.map(|before| n_sites_timed[i] - before[i]),
            memory_bytes: ALL[i].memory_bytes(),
            rule_hits: ALL[i].rule_hits(),
        });
    }
    let absent = ALL.iter().filter(|contender| !contender.is_there());
    figures.absent = absent.map(|contender| contender.name.to_owned()).collect();
    Ok(figures)
}
