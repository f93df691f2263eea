//! The report: figures as tables.

use super::measured::{Measured, Workload};
use super::programs::Allocator;
use crate::bench::figure::{Figure, amount, ratio};
use crate::bench::goal::{self, Goal};
use crate::bench::machine::{cpu_model, rustc_version};
use crate::bench::table::Table;
use memtrace_benches::heap::Memory;
use std::fs;
use std::thread;

/// Writes the report in Markdown.
pub(super) fn write(measured: &Measured, n_rounds: u16, goals: &[Goal]) -> String {
    let mut sections = vec![
        introduction(measured, n_rounds),
        format!("Goals, by medians.\n\n{}", goal::to_markdown(goals)),
    ];
    if measured.timed().next().is_some() {
        sections.push(format!(
            "Time for each operation.\n\n{}\nTime as a multiple of another allocator's: less than 1 is \
             faster.\n\n{}",
            times(measured),
            ratios(measured)
        ));
    }
    if measured.bursts().next().is_some() {
        sections.push(format!(
            "Resident bytes for each requested byte that lives: as soon as the burst is over, and a \
             second and some allocations later; in one of three rounds. At the height of the burst, resident bytes for each \
             byte that lived then.\n\n{}",
            memory(measured)
        ));
    }
    sections.join("\n")
}

fn introduction(measured: &Measured, n_rounds: u16) -> String {
    let n_cpus = thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string());
    let [before, after] =
        measured.load_averages.map(|load| load.map_or_else(|| "?".into(), amount));
    format!(
        "{}, {n_cpus} CPUs usable; {}; huge pages: {}. Load average {before} before, {after} after. {n_rounds} rounds, \
         each workload in a process of its own, allocators in turn within a round. Figures are medians \
         (least–greatest) over the rounds. Times hold only as far as nothing else used the machine; \
         those of several threads (server, ring, swap) are by the clock, the others without waiting \
         for a CPU.\n",
        cpu_model(),
        rustc_version(),
        huge_pages(),
    )
}

/// When the kernel gives huge pages unasked: where it does, a large block's first byte may cost as
/// much as 512 pages.
fn huge_pages() -> String {
    let text =
        fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    chosen(&text).unwrap_or("unknown").to_owned()
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

fn times(measured: &Measured) -> String {
    let names = Allocator::ALL.map(Allocator::name);
    let mut table = Table::new(["workload", "operation"].into_iter().chain(names));
    for workload in measured.timed() {
        let mut row = vec![workload.name.clone(), workload.unit.clone()];
        row.extend(Allocator::ALL.map(|allocator| with_range(workload.ns(allocator), time)));
        table.row(row);
    }
    table.to_markdown()
}

/// memtrace ÷ each of the others; and peers among themselves, to see what is usual.
fn ratios(measured: &Measured) -> String {
    use Allocator::{Glibc, Jemalloc, Memtrace, Mimalloc};
    let pairs = [
        (Memtrace, Glibc),
        (Memtrace, Mimalloc),
        (Memtrace, Jemalloc),
        (Mimalloc, Glibc),
        (Jemalloc, Glibc),
    ];
    let title = |(a, b): (Allocator, Allocator)| format!("{} ÷ {}", a.name(), b.name());
    let mut table = Table::new([String::from("workload")].into_iter().chain(pairs.map(title)));
    for workload in measured.timed() {
        let mut row = vec![workload.name.clone()];
        row.extend(pairs.map(|(a, b)| with_range(workload.ratio(a, b), ratio)));
        table.row(row);
    }
    let mut row = vec![String::from("geometric mean")];
    row.extend(pairs.map(|(a, b)| measured.mean_ratio(a, b).map_or_else(dash, ratio)));
    table.row(row);
    table.to_markdown()
}

fn memory(measured: &Measured) -> String {
    let mut table = Table::new([
        "workload",
        "allocator",
        "MiB live",
        "MiB resident",
        "per live byte",
        "later",
        "at the height",
    ]);
    for workload in measured.bursts() {
        for allocator in Allocator::ALL {
            table.row(burst(workload, allocator));
        }
    }
    table.to_markdown()
}

fn burst(workload: &Workload, allocator: Allocator) -> Vec<String> {
    let mut row = vec![workload.name.clone(), allocator.name().to_owned()];
    let Some(memory) = workload.memory(allocator) else { return row };
    let per_live_byte =
        |bytes: fn(&Memory) -> u64| with_range(workload.per_live_byte(allocator, bytes), ratio);
    row.extend([
        mib(memory.live_bytes),
        mib(memory.resident_bytes),
        per_live_byte(|memory| memory.resident_bytes),
        per_live_byte(|memory| memory.resident_later_bytes),
        ratio(memory.peak_resident_bytes as f64 / memory.peak_live_bytes as f64),
    ]);
    row
}

fn mib(n_bytes: u64) -> String {
    amount(n_bytes as f64 / f64::from(1 << 20))
}

/// Writes nanoseconds in the unit that suits them.
fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e4 => format!("{} ns", amount(ns)),
        ns if ns < 1e7 => format!("{} µs", amount(ns / 1e3)),
        ns => format!("{} ms", amount(ns / 1e6)),
    }
}

fn with_range(figure: Option<Figure>, format: impl Fn(f64) -> String) -> String {
    figure.map_or_else(dash, |figure| figure.with_range(format))
}

fn dash() -> String {
    String::from("–")
}

#[cfg(test)]
mod tests {
    use super::super::goals;
    use super::super::measured::tests::{add_burst, add_times};
    use super::*;

    #[test]
    fn the_report_holds_goals_times_ratios_and_memory() {
        let mut measured = Measured::default();
        add_times(&mut measured, "pair-16", [30.0, 20.0, 10.0, 8.0]);
        add_times(&mut measured, "json", [30e6, 60e6, 10e6, 5e6]);
        add_burst(&mut measured, "burst", 150);
        let text = write(&measured, 3, &goals::judge(&measured));
        for expected in [
            "1 of 2 not: 1.50 pair-16",
            "| resident a second after burst at most 1.2 of live bytes",
            "MISSED |",
            "not judged |",
            "| pair-16  |      pair |",
            "33.0 ns (30.0 ns–60.0 ns)",
            "33.0 ms (30.0 ms–60.0 ms)",
            "| geometric mean |",
            "1.50 (1.50–1.50) | 1.40 (1.40–1.40) |",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }

    #[test]
    fn a_report_of_times_alone_has_no_table_of_memory() {
        let mut measured = Measured::default();
        add_times(&mut measured, "pair-16", [30.0, 20.0, 10.0, 8.0]);
        let text = write(&measured, 3, &goals::judge(&measured));
        assert!(!text.contains("MiB"), "{text}");
    }

    #[test]
    fn the_choice_of_huge_pages_is_the_word_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen(""), None);
    }

    #[test]
    fn times_are_told_in_the_unit_that_suits_them() {
        assert_eq!(
            [9.96, 9_999.0, 12_345.0, 1.2e7].map(time),
            ["10.0 ns", "9999 ns", "12.3 µs", "12.0 ms"]
        );
    }
}
