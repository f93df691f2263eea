//! Many threads that allocate at random, resize, hand on, stop, start, clear, scan and fork: everything that
//! is recorded is compared with the truth.
//!
//! `cargo xtask soak recorder` does it for half an hour.
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use memtrace_tests::nested_build::Settings;
use memtrace_tests::outcome::Outcome;
use memtrace_tests::recorder;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// One at a time: each has ten threads that never wait.
static TURN: Mutex<()> = Mutex::new(());

fn run(settings: &Settings, seconds: u64, options: &[&str]) -> Outcome {
    let _turn = TURN.lock();
    let program = recorder::build(Path::new(env!("CARGO_TARGET_TMPDIR")), settings);
    Outcome::run(&program, Duration::from_secs(seconds), 1, options)
}

fn check(settings: &Settings) {
    let outcome = run(settings, 5, &[]);
    let figure = |name: &str| outcome.figure(name);
    assert!(outcome.is_success, "{}:\n{outcome}", settings.name);
    // That there was something to be seen, even on a busy machine.
    assert!(figure("events") > 10_000, "{outcome}");
    assert!(figure("rounds") > 1 && figure("drains compared") == figure("rounds"), "{outcome}");
    assert!(figure("blocks compared") > 3000 && figure("scans") > 2, "{outcome}");
}

#[test]
fn a_random_load_is_recorded_as_it_is_in_release_builds() {
    check(&Settings::RELEASE);
}

#[test]
fn a_random_load_is_recorded_as_it_is_in_dev_builds() {
    check(&Settings::DEV);
}

/// Whatever was broken, it must be found.
fn check_spoilt(option: &str, every: &str, difference: &str) {
    let outcome = run(&Settings::RELEASE, 60, &[option, every]);
    assert!(!outcome.is_success && outcome.figure("spoilt") > 0, "{outcome}");
    assert!(outcome.messages.starts_with(difference), "{outcome}");
}

#[test]
fn a_release_that_the_truth_misses_is_a_difference() {
    check_spoilt("--miss-frees", "100000", "difference: a live block is not recorded");
}

#[test]
fn a_record_that_is_dropped_is_a_difference() {
    check_spoilt("--drop-records", "1000", "difference: a live block is not recorded");
}

#[test]
fn a_block_that_a_scan_does_not_see_is_a_difference() {
    check_spoilt("--drop-canaries", "2", "difference: a scan of ");
}
