//! The report: figures as tables.

use super::Measured;
use super::goals::per_trace;
use super::times::{TAKE_SNAPSHOT, again, first, growth, speed_ratio};
use crate::bench::figure::{Figure, amount, ratio};
use crate::bench::goal::{self, Goal};
use crate::bench::machine::{cpu_model, rustc_version};
use crate::bench::table::Table;
use memtrace_benches::analysis::{Beside, BesideFigures, Figures};
use std::thread;

const MIB: f64 = 1024.0 * 1024.0;

/// Writes the report in Markdown.
pub(super) fn write(measured: &Measured, goals: &[Goal]) -> String {
    let Measured { ours, ours_many, cpython, beside, .. } = measured;
    let mut sections = vec![introduction(measured), the_heap(ours), goal::to_markdown(goals)];
    if let Some(cpython) = cpython {
        sections.push(format!(
            "What tracemalloc has, too, in ms: median (least–greatest) of the rounds. *First* \
             asks snapshots that were not asked before, *again* the same ones. *Ratio* is how many \
             times the first is faster than CPython with tracing stopped, or on where that is \
             faster; CPython's collector of cycles is on, unless said otherwise.\n\n{}",
            beside_cpython(measured, cpython)
        ));
    }
    sections.push(format!(
        "All operations, in ms. *Growth* is the time on ten times the blocks as a multiple.\n\n{}",
        all_operations(ours, ours_many.as_ref())
    ));
    sections.push(format!(
        "Bytes for each trace of a snapshot.\n\n{}",
        bytes_per_trace([Some(ours), ours_many.as_ref(), cpython.as_ref()].into_iter().flatten())
    ));
    sections.push(format!(
        "Threads that allocate and give back at full speed, each pair at a call site of its own, \
         and another thread beside them; {} live blocks, of which a snapshot reads {} MiB of table. \
         *Own* seconds leave out those in which a thread waited for a CPU: threads and their \
         neighbour share {} CPUs. Gaps are between the ends of two pairs, less waiting for a CPU. \
         Median of the rounds.\n\n{}",
        beside.n_live_traces,
        amount(beside.live_table_bytes as f64 / MIB),
        n_cpus(),
        beside_threads(beside)
    ));
    sections.join("\n")
}

fn introduction(measured: &Measured) -> String {
    let Measured { ours, cpython, n_rounds, load_averages, .. } = measured;
    let [before, after] = load_averages.map(|load| load.map_or_else(|| "?".into(), amount));
    let cpython = cpython.as_ref().map_or_else(
        || String::from("no CPython"),
        |cpython| format!("{} ({} s)", cpython.program, amount(cpython.waited_ms / 1000.0)),
    );
    format!(
        "{}, {} CPUs usable; {}. Load average {before} before, {after} after. Rounds: {n_rounds}. \
         Times leave out what the kernel made a program wait for a CPU: {} ({} s), {cpython}.\n",
        cpu_model(),
        n_cpus(),
        rustc_version(),
        ours.program,
        amount(ours.waited_ms / 1000.0),
    )
}

fn the_heap(ours: &Figures) -> String {
    format!(
        "The heap: {} blocks of 10,000 lines in 100 files, {} stacks of {} frames on average, {} \
         of them calls and the others inlined (in CPython all are calls, as many). Three lines in \
         four ask for one size, 16 to 152 bytes, the others for four sizes; one block in a thousand \
         has 4 KiB. Lines take turns at random in bursts of one to four blocks; a tenth of the \
         lines has over half of the blocks. Between the snapshots compared, one block in twenty is \
         replaced: 100 lines are gone, 100 new, half of the others unchanged. Tracing is on all \
         the time; in CPython, where it is said. First snapshot of all, names not known: {} ms.\n",
        ours.n_traces,
        ours.n_stacks,
        amount(ours.n_frames_per_stack),
        amount(ours.n_calls_per_stack),
        amount(ours.cold_snapshot_ms),
    )
}

fn beside_cpython(measured: &Measured, cpython: &Figures) -> String {
    let ours = &measured.ours;
    let mut table = Table::new([
        "operation",
        "first",
        "again",
        "CPython, stopped",
        "without its collector",
        "tracing",
        "ratio",
    ]);
    for operation in in_order(cpython) {
        table.row([
            operation.to_owned(),
            with_range(first(&ours.millis, operation)),
            median(again(&ours.millis, operation)),
            with_range(first(&cpython.millis, operation)),
            median(first(&cpython.millis_uncollected, operation)),
            median(first(&cpython.millis_tracing, operation)),
            speed_ratio(ours, cpython, operation).map_or_else(dash, ratio),
        ]);
    }
    table.to_markdown()
}

fn all_operations(ours: &Figures, ours_many: Option<&Figures>) -> String {
    let mut table = Table::new(["operation", "first", "again", "10 M first", "again", "growth"]);
    for operation in in_order(ours) {
        let many = |figure: fn(&_, &str) -> Option<Figure>| figure(&ours_many?.millis, operation);
        let growth = ours_many.and_then(|many| growth(ours, many, operation));
        table.row([
            operation.to_owned(),
            with_range(first(&ours.millis, operation)),
            median(again(&ours.millis, operation)),
            with_range(many(first)),
            median(many(again)),
            growth.map_or_else(dash, ratio),
        ]);
    }
    table.to_markdown()
}

/// The operations, snapshots first and then by name.
fn in_order(figures: &Figures) -> impl Iterator<Item = &str> {
    let names = || figures.millis.keys().map(String::as_str);
    let is_first = |name: &&str| *name == TAKE_SNAPSHOT;
    names().filter(is_first).chain(names().filter(move |name| !is_first(name)))
}

fn bytes_per_trace<'a>(all: impl Iterator<Item = &'a Figures>) -> String {
    let mut table =
        Table::new(["program", "traces", "in memory, resident", "as it says", "on disk"]);
    for figures in all {
        let stated = figures.stated_bytes.map(|n_bytes| amount(per_trace(figures, n_bytes)));
        table.row([
            figures.program.clone(),
            figures.n_traces.to_string(),
            amount(per_trace(figures, figures.resident_bytes)),
            stated.unwrap_or_else(dash),
            ratio(per_trace(figures, figures.file_bytes)),
        ]);
    }
    table.to_markdown()
}

fn beside_threads(figures: &BesideFigures) -> String {
    let mut table = Table::new([
        "threads, and one that",
        "k pairs/s",
        "of those beside reading",
        "k pairs/own s",
        "of those alone",
        "longest gap, ms",
        "the other's turn, ms",
    ]);
    let of = |values: &[f64]| Figure::of(values.iter().copied());
    // Within a round: a slow spell of the machine falls on both.
    let relative = |values: &[f64], base: &[f64]| {
        Figure::of(values.iter().zip(base).map(|(value, base)| value / base))
    };
    for beside in &figures.beside {
        let find = |other: &str| {
            let same = |b: &&Beside| b.n_threads == beside.n_threads && b.other == other;
            figures.beside.iter().find(same)
        };
        let per_second = find("reads memory")
            .and_then(|base| relative(&beside.pairs_per_second, &base.pairs_per_second));
        let per_own_second = find("sleeps")
            .and_then(|base| relative(&beside.pairs_per_own_second, &base.pairs_per_own_second));
        let thousands = |figure: Option<Figure>| {
            figure.map_or_else(dash, |figure| amount(figure.median / 1000.0))
        };
        let with_range = |figure: Option<Figure>| figure.map_or_else(dash, |f| f.with_range(ratio));
        table.row([
            format!("{}, {}", beside.n_threads, beside.other),
            thousands(of(&beside.pairs_per_second)),
            with_range(per_second),
            thousands(of(&beside.pairs_per_own_second)),
            with_range(per_own_second),
            with_range(of(&beside.longest_gap_ms)),
            median(of(&beside.other_ms)),
        ]);
    }
    table.to_markdown()
}

fn with_range(figure: Option<Figure>) -> String {
    figure.map_or_else(dash, |figure| figure.with_range(amount))
}

fn median(figure: Option<Figure>) -> String {
    figure.map_or_else(dash, |figure| amount(figure.median))
}

fn dash() -> String {
    String::from("–")
}

fn n_cpus() -> String {
    thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::goals;
    use super::super::times::COMPARE_BY_LINE;
    use super::super::times::tests::figures;
    use super::*;

    /// Figures that meet all goals.
    pub(in crate::bench::core) fn measured() -> Measured {
        let of_ours = |snapshot, comparison| {
            figures(&[
                (TAKE_SNAPSHOT, snapshot),
                (COMPARE_BY_LINE, comparison),
                ("top lineno", 1.0),
            ])
        };
        let mut ours = of_ours(10.0, 10.0);
        ours.stated_bytes = Some(9_000);
        ours.resident_bytes = 9_500;
        ours.file_bytes = 2_500;
        let beside = |other: &str, k_pairs: f64| Beside {
            n_threads: 2,
            other: other.to_owned(),
            pairs_per_second: vec![k_pairs * 1000.0; 2],
            pairs_per_own_second: vec![k_pairs * 1500.0; 2],
            longest_gap_ms: vec![1.0, 2.0],
            other_ms: vec![20.0],
        };
        let list = vec![
            beside("takes snapshots", 900.0),
            beside("reads memory", 1000.0),
            beside("sleeps", 1200.0),
        ];
        Measured {
            ours,
            ours_many: Some(of_ours(90.0, 20.0)),
            cpython: Some(figures(&[(TAKE_SNAPSHOT, 500.0), (COMPARE_BY_LINE, 2000.0)])),
            beside: BesideFigures { n_live_traces: 1000, live_table_bytes: 1 << 20, beside: list },
            n_rounds: 3,
            load_averages: [Some(0.25), None],
        }
    }

    #[test]
    fn the_report_holds_goals_times_bytes_and_what_threads_did() {
        let measured = measured();
        let text = write(&measured, &goals::judge(&measured));
        for expected in [
            "Load average 0.2 before, ? after. Rounds: 3.",
            "| compare_to by line in 20 ms",
            "| compare_to lineno | 10.0 (9.0–15.0) |   5.0 |",
            "| 200.0 |",
            "9.00 |",
            "2.50 |",
            "0.90 (0.90–0.90)",
            "0.75 (0.75–0.75)",
            "1.50 (1.00–2.00)",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
        assert!(!text.contains("NO"), "{text}");
    }

    #[test]
    fn without_cpython_there_is_no_table_of_it() {
        let measured = Measured { cpython: None, ..measured() };
        let text = write(&measured, &goals::judge(&measured));
        assert!(!text.contains("What tracemalloc has") && text.contains("no CPython"), "{text}");
    }
}
