//! The report: results as tables.

use super::configuration::{HEAPTRACK, UNTRACED};
use super::figure::{amount, ratio};
use super::results::Results;
use super::table::Table;
use memtrace_benches::Workload;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;

/// Under which conditions the results came about.
pub(super) struct Conditions {
    pub(super) n_rounds: u16,
    /// For how long each process timed its workload.
    pub(super) budget: Duration,
    /// Load averages of the last minute, before and after.
    pub(super) load_averages: [Option<f64>; 2],
    /// Bytes of the JSON document.
    pub(super) document_len: usize,
    pub(super) has_heaptrack: bool,
}

/// Writes the report in Markdown.
pub(super) fn write(results: &Results, conditions: &Conditions) -> String {
    let mut sections = vec![
        introduction(conditions),
        format!(
            "Time as a multiple of untraced: median (least–greatest) of the rounds.\n\n{}",
            ratios(results)
        ),
        format!(
            "Nanoseconds added to each allocation, its release included: median of the rounds.\n\n{}",
            added_times(results)
        ),
        format!(
            "Peak of resident memory: MiB untraced, and MiB more than that.\n\n{}",
            peaks(results)
        ),
    ];
    if results.workloads().any(|workload| workload == Workload::KeptBlocks) {
        sections.push(format!(
            "Bytes for each of {} blocks that live at once ({}).\n\n{}",
            Workload::N_KEPT_BLOCKS,
            Workload::KeptBlocks,
            bytes_per_block(results)
        ));
    }
    sections.join("\n")
}

fn introduction(conditions: &Conditions) -> String {
    let Conditions { n_rounds, budget, load_averages, document_len, has_heaptrack } = conditions;
    let n_cpus = thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let [before, after] = load_averages.map(|load| load.map_or_else(|| "?".into(), amount));
    let heaptrack = if *has_heaptrack { "records raw data" } else { "was not found on PATH" };
    format!(
        "{}, {n_cpus} CPUs usable; {}. Load average {before} before, {after} after. Rounds: {n_rounds}; each process \
         timed for {} ms, its fastest batch counts. The JSON \
         document is this workspace's `cargo metadata`, {document_len} bytes. {HEAPTRACK} \
         {heaptrack}.\n",
        cpu_model(),
        rustc_version(),
        budget.as_millis(),
    )
}

fn ratios(results: &Results) -> String {
    per_workload(results, "untraced, ns per allocation", |workload, configuration| {
        if configuration == UNTRACED {
            results.ns_per_allocation(workload, UNTRACED).with_range(amount)
        } else {
            results.ratio(workload, configuration).with_range(ratio)
        }
    })
}

fn added_times(results: &Results) -> String {
    per_workload(results, "allocations of a batch", |workload, configuration| {
        if configuration == UNTRACED {
            results.n_allocations(workload).to_string()
        } else {
            amount(results.added_ns(workload, configuration).median)
        }
    })
}

fn peaks(results: &Results) -> String {
    per_workload(results, "untraced, MiB", |workload, configuration| {
        if configuration == UNTRACED {
            amount(results.peak_bytes(workload, UNTRACED).median / MIB)
        } else {
            amount(results.added_bytes(workload, configuration).median / MIB)
        }
    })
}

/// A table with a row for each workload and a column for each configuration.
fn per_workload(
    results: &Results,
    untraced_title: &str,
    cell: impl Fn(Workload, usize) -> String,
) -> String {
    let (_, others) = results.configurations().split_first().unwrap_or((&"", &[]));
    let mut table = Table::new(["workload", untraced_title].iter().chain(others).copied());
    for workload in results.workloads() {
        let cells = (0..results.configurations().len()).map(|i| cell(workload, i));
        table.row([workload.to_string()].into_iter().chain(cells));
    }
    table.to_markdown()
}

fn bytes_per_block(results: &Results) -> String {
    let workload = Workload::KeptBlocks;
    let per_block = |bytes: f64| amount(bytes / Workload::N_KEPT_BLOCKS as f64);
    let mut table = Table::new(["configuration", "resident, more than untraced", "tracer's own"]);
    for (i, name) in results.configurations().iter().enumerate().filter(|(i, _)| *i != UNTRACED) {
        let tracer = results.tracer_bytes(workload, i);
        table.row([
            (*name).to_owned(),
            per_block(results.added_bytes(workload, i).median),
            tracer.map_or_else(|| String::from("–"), |tracer| per_block(tracer.median)),
        ]);
    }
    table.to_markdown()
}

pub(super) fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| String::from("unknown CPU"), |(_, name)| name.trim().to_owned())
}

pub(super) fn rustc_version() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| String::from("unknown rustc"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::three_rounds;

    #[test]
    fn the_report_holds_ratios_added_times_and_memory() {
        let results = three_rounds(Workload::KeptBlocks);
        let conditions = Conditions {
            n_rounds: 3,
            budget: Duration::from_millis(300),
            load_averages: [Some(0.25), None],
            document_len: 5,
            has_heaptrack: false,
        };
        let text = write(&results, &conditions);
        for expected in [
            "Load average 0.2 before, ? after. Rounds: 3; each process timed for 300 ms",
            "heaptrack was not found on PATH.",
            "|               100 (100–300) | 2.00 (2.00–2.50) |",
            "| kept-blocks |                    100 |    150 |",
            "| kept-blocks |          10.0 |    4.0 |",
            "| traced        |                          4.2 |          3.1 |",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }
}
