//! The report: figures as tables.

use super::Effort;
use super::measured::{FRAMEHOP, Measured, Verdict, Workload};
use super::programs::Build;
use crate::bench::figure::{Figure, amount, ratio};
use crate::bench::goal::{self, Goal};
use crate::bench::machine::{cpu_model, rustc_version};
use crate::bench::table::Table;
use std::thread;

/// Writes the report in Markdown.
pub(super) fn write(measured: &Measured, effort: Effort, goals: &[Goal]) -> String {
    let mut sections = vec![
        introduction(measured, effort),
        format!(
            "Goals, by the default build and 25 frames. *At its best* is framehop in the layout that \
             suits it best; memtrace is taken in the median of all.\n\n{}",
            goal::to_markdown(goals)
        ),
    ];
    for build in Build::ALL {
        let is_program = |workload: &&Workload| workload.first().is_program;
        let loops: Vec<&Workload> = measured.of(build).filter(|w| !is_program(w)).collect();
        let programs: Vec<&Workload> = measured.of(build).filter(is_program).collect();
        if !loops.is_empty() {
            sections.push(format!(
                "Captures in a loop, {}: nanoseconds a capture, *depth*/*limit*, the call of a \
                 contender that does nothing subtracted.\n\n{}",
                build.name(),
                times(&loops)
            ));
        }
        if !programs.is_empty() {
            sections.push(format!(
                "Programs with a capture at every allocation, {}: nanoseconds added to an \
                 allocation, CPU time of the process.\n\n{}",
                build.name(),
                times(&programs)
            ));
            sections.push(format!(
                "The same as a multiple of the time untraced, and what the programs do. *Depth* is \
                 the mean number of frames that a limit of {} leaves.\n\n{}",
                programs[0].first().limit,
                slowdowns(&programs)
            ));
        }
    }
    sections.push(memory(measured));
    sections.join("\n")
}

fn introduction(measured: &Measured, effort: Effort) -> String {
    let Effort { n_layouts, n_rounds, budget_ms } = effort;
    let n_cpus = thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let [before, after] =
        measured.load_averages.map(|load| load.map_or_else(|| "?".into(), amount));
    let absent = match measured.absent()[..] {
        [] => String::from("All contenders were there."),
        ref names => format!("MISSING on this machine: {}.", names.join(", ")),
    };
    format!(
        "{}, {n_cpus} CPUs usable; {}. Load average {before} before, {after} after. {n_layouts} \
         layouts of the code, {n_rounds} rounds each, contenders in turn within a round, \
         {budget_ms} ms or one run. Figures are medians (least–greatest) over the rounds of all \
         layouts. The truth is the backtrace crate; what claims to be right and is not says WRONG. \
         *Cut short* are stacks that are right as far as they go and lack outer frames: in a build \
         with frame pointers those of the C library, at the outer end of complete stacks. Framehop's \
         cache of rules is direct-mapped: \
         how often it hits depends on the layout. Times hold only as far as nothing else used the \
         machine. {absent}\n",
        cpu_model(),
        rustc_version(),
    )
}

/// Times by workload and contender.
fn times(workloads: &[&Workload]) -> String {
    let names = contenders(workloads);
    let more = ["framehop ÷ memtrace, best", "median", "framehop's hits"];
    let titles = ["workload"].into_iter().chain(names.iter().copied()).chain(more);
    let mut table = Table::new(titles);
    for workload in workloads {
        let mut row = vec![workload.name.clone()];
        row.extend(names.iter().map(|name| cell(workload, name)));
        let ratios = workload.ratios();
        row.extend((0..2).map(|i| ratios.map_or_else(dash, |ratios| ratio(ratios[i]))));
        row.push(workload.rule_hits(FRAMEHOP).map_or_else(dash, |part| percent(part, 1)));
        table.row(row);
    }
    table.to_markdown()
}

fn cell(workload: &Workload, name: &str) -> String {
    let time = with_range(workload.added_ns(name), amount);
    match workload.verdict(name) {
        Verdict::Right | Verdict::Unknown => time,
        Verdict::Wrong(0.0) => format!("{time} WRONG number of stacks"),
        Verdict::Wrong(part) => format!("{time} WRONG {}", percent(part, 2)),
        Verdict::Partly(right, cut) => {
            format!("{time}, {} right, {} cut short", percent(right, 0), percent(cut, 0))
        }
    }
}

fn slowdowns(workloads: &[&Workload]) -> String {
    let names = contenders(workloads);
    let facts = ["allocations", "depth", "sites", "ns untraced"];
    let titles = ["program"].into_iter().chain(facts).chain(names.iter().copied());
    let mut table = Table::new(titles);
    for workload in workloads {
        let figures = workload.first();
        let mut row = vec![
            workload.name.clone(),
            figures.n_captures.to_string(),
            amount(figures.mean_depth),
            figures.n_sites.to_string(),
            with_range(workload.base_ns(), amount),
        ];
        row.extend(names.iter().map(|name| with_range(workload.slowdown(name), ratio)));
        table.row(row);
    }
    table.to_markdown()
}

/// The contenders of all workloads, in their order.
fn contenders<'a>(workloads: &[&'a Workload]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for name in workloads.iter().flat_map(|workload| workload.contenders()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What contenders tell of their memory: the most over the workloads.
fn memory(measured: &Measured) -> String {
    let workloads: Vec<&Workload> = measured.workloads.iter().collect();
    let mut table = Table::new(["contender", "bytes of memory, as it tells"]);
    for name in contenders(&workloads) {
        let all = workloads.iter().flat_map(|workload| &workload.first().contenders);
        let most = all.filter(|c| c.name == name).filter_map(|c| c.memory_bytes).max();
        if let Some(n_bytes) = most {
            table.row([name.to_owned(), n_bytes.to_string()]);
        }
    }
    let what = "Memory that is mapped: the table of rules, of which a few pages are resident, and the \
                caches of all threads.";
    format!("{what}\n\n{}", table.to_markdown())
}

fn with_range(figure: Option<Figure>, format: impl Fn(f64) -> String) -> String {
    figure.map_or_else(dash, |figure| figure.with_range(format))
}

fn percent(part: f64, n_digits: usize) -> String {
    format!("{:.n_digits$} %", part * 100.0)
}

fn dash() -> String {
    String::from("–")
}

#[cfg(test)]
mod tests {
    use super::super::goals;
    use super::super::measured::tests::figures;
    use super::*;

    const EFFORT: Effort = Effort { n_layouts: 3, n_rounds: 3, budget_ms: 10 };

    #[test]
    fn the_report_holds_goals_times_slowdowns_and_what_was_missing() {
        let mut measured = Measured::default();
        let mut same = figures("same 25/25", 10.0, 200.0);
        same.absent = vec![String::from("libunwind + intern")];
        same.contenders[1].rule_hits = Some(0.9876);
        measured.add(Build::Default, same);
        let mut json = figures("serde_json", 50.0, 200.0);
        json.contenders[1].n_wrong = 430;
        json.contenders[0].memory_bytes = Some(1 << 20);
        measured.add(Build::FramePointers, json);
        let text = write(&measured, EFFORT, &goals::judge(&measured));
        for expected in [
            "MISSING on this machine: libunwind + intern.",
            "| same 25/25 in 20 ns",
            "10.0 (9.0–15.0) ns |    reached |",
            "| same 25/25 | 10.0 (9.0–15.0) |     200 (180–300) |",
            "98.8 %",
            "200 (180–300) WRONG 43.00 %",
            "1.50 (1.50–1.68)",
            "1048576",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }
}
