//! A crate outside of this workspace that does what the documentation says, and no more.

use memtrace_tests::nested_build::{Probe, Settings, stdout_of};
use std::process::Command;

/// What the probe printed under each of its headings.
struct Sections(String);

impl Sections {
    fn of(settings: &Settings) -> Self {
        let programs = Probe::new("outside").build(env!("CARGO_TARGET_TMPDIR"), settings, &[]);
        let mut program = Command::new(&programs["outside"]);
        // Source lines are found wherever the program runs.
        Self(stdout_of(program.current_dir("/")))
    }

    fn section(&self, name: &str) -> Vec<&str> {
        let heading = format!("[ {name} ]");
        let lines = self.0.lines().skip_while(|line| *line != heading).skip(1);
        lines.take_while(|line| !line.starts_with("[ ")).collect()
    }

    /// The lines of both reports that begin with `note: `.
    fn notes(&self) -> Vec<&str> {
        let sections = ["Report", "Growth"].map(|name| self.section(name));
        sections.into_iter().flatten().filter(|line| line.starts_with("note: ")).collect()
    }
}

#[test]
fn with_line_tables_the_line_that_holds_the_memory_comes_first() {
    let output = Sections::of(&Settings::LINE_TABLES);
    let (file, line) = Probe::new("outside").marked("site: page");
    assert_eq!(file, "src/cache.rs");
    assert_eq!(
        output.section("Top 5")[0],
        format!("src/cache.rs:{line}: size=2000 KiB, count=1000, average=2048 B")
    );
    assert_eq!(
        output.section("Top 5 differences")[0],
        format!(
            "src/cache.rs:{line}: size=2000 KiB (+2000 KiB), count=1000 (+1000), average=2048 B"
        )
    );
    let place = [
        format!("  File \"src/cache.rs\", line {line}"),
        "    let page = vec![number as u8; 2048]; // site: page".to_owned(),
        String::new(),
    ];
    let report = output.section("Report");
    assert_eq!(report[0], "2000.00 total KiB, 1000 total blocks");
    assert_eq!(report[1..4], place);
    let growth = output.section("Growth");
    assert_eq!(growth[0], "2000.00 new KiB, 2000.00 total KiB, 1000 new blocks, 1000 total blocks");
    assert_eq!(growth[1..4], place);
    assert_eq!(output.notes(), [""; 0]);
}

#[test]
fn a_limit_of_one_frame_is_spent_on_the_program_and_not_on_the_recorder() {
    let programs =
        Probe::new("outside").build(env!("CARGO_TARGET_TMPDIR"), &Settings::LINE_TABLES, &[]);
    let output = stdout_of(Command::new("env").arg("MEMTRACE=1").arg(&programs["outside"]));
    let output = Sections(output);
    let statistics = output.section("Top 5");
    assert!(statistics[0].contains("size=2000 KiB, count=1000,"), "{statistics:#?}");
    for statistic in statistics {
        assert!(!statistic.contains("/memtrace-"), "{statistic}");
    }
}

#[test]
fn without_debug_information_functions_are_named_and_a_note_says_how_to_get_lines() {
    let output = Sections::of(&Settings::RELEASE);
    // One place for the whole function: the pages, and the list of them.
    let statistic = output.section("Top 5")[0];
    assert!(
        statistic.starts_with("<outside::cache::Cache::insert>:0: size=2016 KiB, count=1001,"),
        "{statistic}"
    );
    let report = output.section("Report");
    assert_eq!(report[0], "2016.00 total KiB, 1001 total blocks");
    assert_eq!(report[1], "  File \"<outside::cache::Cache::insert>\", line 0");
    let growth = output.section("Growth");
    assert_eq!(growth[0], "2016.00 new KiB, 2016.00 total KiB, 1001 new blocks, 1001 total blocks");
    let notes = output.notes();
    assert_eq!(notes.len(), 2, "one for each report: {notes:?}");
    for note in notes {
        assert!(note.contains("debug = \"line-tables-only\""), "{note}");
    }
}

#[test]
fn a_stripped_program_gives_addresses_and_a_note_says_how_to_get_names() {
    let output = Sections::of(&Settings::release("stripped", &[("strip", "true")]));
    let statistics = output.section("Top 5");
    // No name is made up: places are addresses in the program's file.
    for statistic in &statistics {
        let address =
            statistic.strip_prefix("<outside+0x").and_then(|rest| rest.split_once(">:0:"));
        let (address, _) = address.unwrap_or_else(|| panic!("not an address: {statistic}"));
        assert!(u64::from_str_radix(address, 16).is_ok(), "{statistic}");
    }
    assert!(!statistics.is_empty());
    let notes = output.notes();
    assert_eq!(notes.len(), 2, "one for each report: {notes:?}");
    for note in notes {
        // Line tables alone would be stripped, too.
        assert!(note.contains("debug = \"line-tables-only\"") && note.contains("strip"), "{note}");
    }
}
