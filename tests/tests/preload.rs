//! Programs that know nothing of the heap, with all they allocate in it: by the probe `preload`.

#![cfg(all(target_os = "linux", target_env = "gnu"))]

use memtrace_tests::nested_build::{Probe, Settings, stdout_of};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    Probe::new("preload").build_library(env!("CARGO_TARGET_TMPDIR"), &Settings::RELEASE)
});

/// Runs a shell's script without and with the heap, and expects the same output; returns the reports.
fn reports_of(name: &str, script: &str) -> Vec<String> {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("preload-{name}"));
    let _ = fs::remove_file(&report);
    let shell = || {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("LC_ALL", "C");
        shell
    };
    let plain = stdout_of(&mut shell());
    let mut with_heap = shell();
    with_heap.env("LD_PRELOAD", &*LIBRARY).env("MEMTRACE_PRELOAD_REPORT", &report);
    assert_eq!(stdout_of(&mut with_heap), plain);
    let text = fs::read_to_string(report).expect("the processes reported");
    text.lines().map(str::to_owned).collect()
}

/// Expects the reports to be of processes of which every one is well, and some allocated.
fn assert_well(reports: &[String]) {
    let mut n_blocks = 0;
    for report in reports {
        let fields: Vec<&str> = report.split('\t').collect();
        assert_eq!(fields[3..], ["0", "Ok(())"], "{report}");
        n_blocks += fields[1].parse::<u64>().expect("a number");
    }
    assert!(n_blocks > 20, "{n_blocks} blocks");
}

#[test]
fn a_sort_by_several_threads_is_the_same() {
    let script = "seq 1 200000 | sort --parallel=4 --buffer-size=8M -k1.2 | cksum";
    let reports = reports_of("sort", script);
    assert_well(&reports);
    assert!(reports.len() >= 3, "{reports:?}");
}

#[test]
fn processes_that_fork_and_run_others_are_the_same() {
    assert_well(&reports_of(
        "fork",
        "for i in 1 2 3; do (echo $i; ls / | wc -l) | sed s/1/x/; done",
    ));
}
