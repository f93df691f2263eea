//! The report: results as tables.

use super::configuration::Configuration;
use super::memory::Memory;
use super::results::Results;
use crate::bench::figure::{Figure, amount, ratio};
use crate::bench::goal::{self, Goal};
use crate::bench::machine::{cpu_model, rustc_version};
use crate::bench::table::Table;
use memtrace_benches::{Kind, Latency, Workload};
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
    /// Bytes of the Rust source.
    pub(super) source_len: usize,
    pub(super) has_heaptrack: bool,
}

/// Writes the report in Markdown.
pub(super) fn write(
    results: &Results,
    memory: Option<&Memory>,
    conditions: &Conditions,
    goals: &[Goal],
) -> String {
    let ours = |c: &Configuration| c.is_ours() || *c == Configuration::Least25;
    let peers = |c: &Configuration| !ours(c) && !c.is_baseline();
    let mut sections = vec![
        introduction(conditions),
        format!("Budgets, by medians.\n\n{}", goal::to_markdown(goals)),
        format!(
            "Untraced: nanoseconds for each allocation, all work of the workload included; median \
             (least–greatest) of the rounds. These are the baselines: jemalloc's profiler is \
             compared with jemalloc, what is compiled with frame pointers with the same untraced.\n\n{}",
            untraced(results)
        ),
        format!(
            "Time as a multiple of the baseline. The mean is geometric, over the workloads that \
             work as programs do; of a peer that cannot hold ten million blocks, without them. `{}` \
             is no tracer: it compares up to as many return addresses, stores, takes out and counts, \
             and everything else comes for nothing.\n\n{}\n{}",
            Configuration::Least25,
            slowdowns(results, ours),
            slowdowns(results, peers)
        ),
        format!(
            "Nanoseconds added to each allocation, its release included: for tight pairs, to a \
             pair.\n\n{}",
            per_workload(
                results,
                |c| !c.is_baseline(),
                |w, c| { figure(results.added_ns(w, c), amount) }
            )
        ),
        format!(
            "How many times less time `{}` adds than tools that record every allocation; ∞ where it adds none that could be measured.\n\n{}",
            Configuration::Full25,
            per_workload(
                results,
                |c| Configuration::EXACT_PEERS.contains(c),
                |w, c| { results.times_less(w, Configuration::Full25, c).map_or_else(dash, times) }
            )
        ),
    ];
    if results.latency(Configuration::Untraced, |latency| latency.p50_ns).is_some() {
        sections.push(format!(
            "The service: latency of requests in microseconds, and requests a second in its \
             fastest batch; in brackets as a multiple of the baseline.\n\n{}",
            service(results)
        ));
    }
    sections.push(format!(
        "Peak of resident memory, MiB more than the baseline.\n\n{}",
        per_workload(
            results,
            |c| !c.is_baseline(),
            |w, c| { figure(results.added_bytes(w, c), |n_bytes| amount(n_bytes / MIB)) }
        )
    ));
    if let Some(memory) = memory {
        sections.push(format!(
            "Bytes for each live block while all are live: the tracer's own as it tells, and \
             resident bytes more than the baseline's.\n\n{}",
            bytes_per_block(memory)
        ));
        sections.push(format!(
            "More and more blocks of 64 bytes: nanoseconds for each to allocate and to free, and \
             the tracer's bytes.\n\n{}",
            growth(memory)
        ));
    }
    sections.join("\n")
}

fn introduction(conditions: &Conditions) -> String {
    let Conditions { n_rounds, budget, load_averages, document_len, source_len, has_heaptrack } =
        conditions;
    let n_cpus = thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let [before, after] = load_averages.map(|load| load.map_or_else(|| "?".into(), amount));
    let heaptrack = if *has_heaptrack { "records raw data" } else { "was not found on PATH" };
    format!(
        "{}, {n_cpus} CPUs usable; {}. Load average {before} before, {after} after. Rounds: \
         {n_rounds}; each process timed for {} ms, its fastest batch counts. The JSON document is \
         this workspace's `cargo metadata`, {document_len} bytes; the Rust source is of three of its \
         crates, {source_len} bytes. Heaptrack {heaptrack}.\n",
        cpu_model(),
        rustc_version(),
        budget.as_millis(),
    )
}

fn untraced(results: &Results) -> String {
    let baselines: Vec<_> = results.configurations().filter(|c| c.is_baseline()).collect();
    let titles = baselines.iter().map(|c| c.name());
    let mut table = Table::new(["workload", "allocations of a batch"].into_iter().chain(titles));
    for workload in results.workloads() {
        let n_allocations = results.n_allocations(workload).unwrap_or(0).to_string();
        let cells =
            baselines.iter().map(|&c| with_range(results.ns_per_allocation(workload, c), amount));
        table.row([workload.to_string(), n_allocations].into_iter().chain(cells));
    }
    table.to_markdown()
}

fn slowdowns(results: &Results, is_shown: impl Fn(&Configuration) -> bool) -> String {
    let shown: Vec<_> = results.configurations().filter(is_shown).collect();
    let mut table = Table::new(["workload"].into_iter().chain(shown.iter().map(|c| c.name())));
    for workload in results.workloads() {
        let cells = shown.iter().map(|&c| with_range(results.ratio(workload, c), ratio));
        table.row([workload.to_string()].into_iter().chain(cells));
    }
    let n_programs = results.workloads().filter(|w| w.kind() == Kind::Program).count();
    let means =
        shown.iter().map(|&c| results.mean_ratio(c).map_or_else(dash, |mean| format!("{mean:.3}")));
    table.row([format!("mean of {n_programs}")].into_iter().chain(means));
    table.to_markdown()
}

/// A table with a row for each workload and a column for each configuration shown.
fn per_workload(
    results: &Results,
    is_shown: impl Fn(&Configuration) -> bool,
    cell: impl Fn(Workload, Configuration) -> String,
) -> String {
    let shown: Vec<_> = results.configurations().filter(is_shown).collect();
    let mut table = Table::new(["workload"].into_iter().chain(shown.iter().map(|c| c.name())));
    for workload in results.workloads() {
        let cells = shown.iter().map(|&c| cell(workload, c));
        table.row([workload.to_string()].into_iter().chain(cells));
    }
    table.to_markdown()
}

fn service(results: &Results) -> String {
    let mut table = Table::new(["configuration", "p50, µs", "p99, µs", "requests a second"]);
    for c in results.configurations() {
        let latency = |of: fn(&Latency) -> f64| {
            let us = figure(results.latency(c, of), |ns| amount(ns / 1000.0));
            format!("{us} ({})", figure(results.latency_ratio(c, of), ratio))
        };
        let rate = figure(results.requests_per_second(c), |value| format!("{value:.0}"));
        let rate_ratio = figure(results.ratio(Workload::Service, c), |value| ratio(1.0 / value));
        table.row([
            c.to_string(),
            latency(|latency| latency.p50_ns),
            latency(|latency| latency.p99_ns),
            format!("{rate} ({rate_ratio})"),
        ]);
    }
    table.to_markdown()
}

fn bytes_per_block(memory: &Memory) -> String {
    let added = [Configuration::Full25, Configuration::Heapscope, Configuration::Dhat];
    let own = [Configuration::Full25, Configuration::Full25Pooled];
    let titles = ["shape", "live blocks"].map(String::from);
    let own_titles = own.map(|c| format!("tracer's own, {c}"));
    let resident = added.map(|c| format!("resident, {c}"));
    let mut table = Table::new(titles.into_iter().chain(own_titles).chain(resident));
    for shape in memory.shapes() {
        let cells = [shape.0.to_string(), memory.n_live(shape).unwrap_or(0).to_string()];
        let own = own.map(|c| memory.tracer_bytes(shape, c).map_or_else(dash, amount));
        let added = added.map(|c| memory.added_bytes(shape, c).map_or_else(dash, amount));
        table.row(cells.into_iter().chain(own).chain(added));
    }
    table.to_markdown()
}

fn growth(memory: &Memory) -> String {
    let mut table = Table::new([
        "live blocks",
        "allocate, untraced",
        "allocate, full 25",
        "free, untraced",
        "free, full 25",
        "tracer's bytes a block",
    ]);
    for shape in memory.growth() {
        let [untraced, full] = [Configuration::Untraced, Configuration::Full25];
        let cell = |value: Option<f64>| value.map_or_else(dash, amount);
        table.row([
            memory.n_live(shape).unwrap_or(0).to_string(),
            cell(memory.build_ns(shape, untraced)),
            cell(memory.build_ns(shape, full)),
            cell(memory.free_ns(shape, untraced)),
            cell(memory.free_ns(shape, full)),
            cell(memory.tracer_bytes(shape, full)),
        ]);
    }
    table.to_markdown()
}

fn figure(figure: Option<Figure>, format: impl Fn(f64) -> String) -> String {
    figure.map_or_else(dash, |figure| format(figure.median))
}

fn with_range(figure: Option<Figure>, format: impl Fn(f64) -> String) -> String {
    figure.map_or_else(dash, |figure| figure.with_range(format))
}

fn times(value: f64) -> String {
    if value.is_finite() { ratio(value) } else { String::from("∞") }
}

fn dash() -> String {
    String::from("–")
}

#[cfg(test)]
mod tests {
    use super::super::goals;
    use super::super::memory::tests::one_round;
    use super::super::results::tests::three_rounds;
    use super::*;

    #[test]
    fn the_report_holds_budgets_ratios_added_times_latencies_and_memory() {
        let results = three_rounds(&[Workload::Json, Workload::Service]);
        let memory = one_round(20);
        let conditions = Conditions {
            n_rounds: 3,
            budget: Duration::from_millis(300),
            load_averages: [Some(0.25), None],
            document_len: 5,
            source_len: 6,
            has_heaptrack: false,
        };
        let goals = goals::judge(&results, Some(&memory));
        let text = write(&results, Some(&memory), &conditions, &goals);
        for expected in [
            "Load average 0.2 before, ? after. Rounds: 3; each process timed for 300 ms",
            "Heaptrack was not found on PATH.",
            "MISSED |\n",
            "| json     |                    100 | 100 (100–300) |",
            "| json      | 2.00 (2.00–2.50) |",
            "| mean of 2 |            2.000 |",
            "| json     |     150 | 15000 |",
            "| json     | 100.0 |",
            "| full 25       |  0.0 (2.00) |  0.1 (2.00) |     400000 (0.50) |",
            "| blocks-4096 |      500000 |                  20.0 |                                  – |              20.0 |                   – |",
            "| 20000000    |               30.0 |",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }
}
